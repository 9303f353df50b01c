//! The system account that servers run as when this process is root: PostgreSQL does not start as root.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// A user of this machine, as numbers.
#[derive(Clone, Debug)]
pub struct Account {
    /// The user id.
    pub uid: u32,
    /// The primary group's id.
    pub gid: u32,
}

impl Account {
    /// `None` when this process is not root: then servers run as the current user.
    ///
    /// # Errors
    /// If this process is root and the machine has neither `postgres` nor `nobody`.
    pub fn for_servers() -> anyhow::Result<Option<Self>> {
        if !is_root() {
            return Ok(None);
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(Self::named)
            .map(Some)
            .context("PostgreSQL cannot run as root, and this machine has no user `postgres` or `nobody`")
    }

    fn named(name: &str) -> Option<Self> {
        let number = |flag| {
            let output = Command::new("id").args([flag, name]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        Some(Self { uid: number("-u")?, gid: number("-g")? })
    }

    /// Gives a file or folder to this account.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn give(&self, path: &Path) -> std::io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
    }
}

/// Whether this process runs as root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
