//! A clock that can be set: libfaketime, preloaded into a process, reads from a file how far its clock is ahead of the
//! machine's.
//!
//! Only the time of day jumps. Timers and timeouts use the monotonic clock, which is not affected, as on a machine
//! whose clock is set.

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
    /// A clock that agrees with the machine's, controlled by `file`.
    ///
    /// # Errors
    /// When libfaketime is missing, or the file cannot be written.
    pub fn make(file: PathBuf) -> anyhow::Result<Self> {
        let FakeTime { library } = FakeTime::find().context("libfaketime is not on this machine")?;
        let clock = Self { library, file };
        clock.set(0)?;
        Ok(clock)
    }

    /// Sets it ahead of the machine's clock by this many seconds, or behind.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, seconds_ahead: i64) -> anyhow::Result<()> {
        // Atomic: the first half of a number is another number.
        let folder = self.file.parent().unwrap_or_else(|| Path::new("/"));
        let mut next = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(next, "{seconds_ahead:+}")?;
        next.persist(&self.file).with_context(|| format!("cannot write {}", self.file.display()))?;
        Ok(())
    }

    /// The environment that makes a process use it.
    #[must_use]
    pub fn environment(&self) -> [(String, String); 5] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            // Read at every call, and not every ten seconds.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Shared memory is for groups of processes, and is left behind when one is killed.
            ("FAKETIME_DISABLE_SHM", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }
}
