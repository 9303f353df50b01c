//! A clock that can be set: libfaketime, loaded before a process's own libraries, reads from a file how far the process
//! is ahead of the machine.
//!
//! Only the time of day jumps. Timers and time limits run by the monotonic clock, which nobody can set, on a machine
//! whose clock jumps as here.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::binaries::FakeTime;

/// The clock of one process.
#[derive(Clone, Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that is right, kept in `file`.
    ///
    /// # Errors
    /// When libfaketime is missing, or the file cannot be written.
    pub fn make(file: PathBuf) -> anyhow::Result<Self> {
        let FakeTime { library } = FakeTime::find().context("libfaketime is not on this machine")?;
        let clock = Self { library, file };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it so many seconds ahead of the machine's clock, or behind.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, seconds_ahead: i64) -> anyhow::Result<()> {
        // In one step: half a number is another one.
        let folder = self.file.parent().unwrap_or_else(|| Path::new("/"));
        let mut next = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(next, "{seconds_ahead:+}")?;
        next.persist(&self.file).with_context(|| format!("cannot write {}", self.file.display()))?;
        Ok(())
    }

    /// What makes a process go by it.
    pub(crate) fn environment(&self) -> [(String, String); 5] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // It is looked at every time, and not every ten seconds.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Shared memory is for families of processes, and stays behind when one is killed.
            ("FAKETIME_DISABLE_SHM", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }
}
