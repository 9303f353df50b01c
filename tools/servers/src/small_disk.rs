//! A disk that can be filled: a tmpfs that only one server sees, and a file on it that takes all the free space.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::account::Account;
use crate::mounts::Mounts;

/// Space for a PostgreSQL with one database and a few segments of its log.
const SIZE: &str = "192m";

/// The disk. It is unmounted when it is dropped and its server has ended.
#[derive(Debug)]
pub struct SmallDisk {
    mounts: Mounts,
    ballast: PathBuf,
}

impl SmallDisk {
    /// Mounts one at `at`, an empty folder, for the account of the server that will use it.
    ///
    /// # Errors
    /// When this machine does not allow it.
    pub async fn mount(folder: &Path, at: &Path, account: Option<&Account>) -> anyhow::Result<Self> {
        let owner = account.map_or_else(String::new, |Account { uid, gid }| format!(",uid={uid},gid={gid}"));
        let options = format!("size={SIZE},mode=0700{owner}");
        let script = "mount -t tmpfs -o \"$1\" tmpfs \"$2\"";
        let mounts = Mounts::make(folder, script, [OsStr::new(&options), at.as_os_str()]).await?;
        // In the server's data folder: the server ignores files that it did not create.
        let ballast = mounts.path_from_outside(at)?.join("ballast");
        Ok(Self { mounts, ballast })
    }

    /// The namespace in which the disk is mounted.
    #[must_use]
    pub fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// Takes all the free space.
    ///
    /// # Errors
    /// When writing fails for another reason than a full disk.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut file: File = OpenOptions::new().create(true).append(true).open(&self.ballast)?;
        loop {
            match file.write(&[0; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => bail!("the disk cannot be filled: {error}"),
            }
        }
    }

    /// Frees the space again.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn make_room(&self) -> std::io::Result<()> {
        std::fs::remove_file(&self.ballast)
    }
}
