//! A temporary folder for each stack, removed with it.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::account::Account;
use crate::process::is_alive;

const PREFIX: &str = "atrium-";

/// How long the folder of a dead process is kept: its servers may still be shutting down in it.
const GRACE: Duration = Duration::from_secs(60);

/// Where Linux has a file system in memory.
const MEMORY: &str = "/dev/shm";
/// How many bytes have to be free there. The tests use about half a gigabyte.
const ENOUGH_MEMORY: u64 = 2 << 30;

/// A folder that removes itself, with everything in it, when it is dropped.
#[derive(Debug)]
pub struct Folder {
    root: TempDir,
}

impl Folder {
    /// Creates a new folder, and removes those of stacks that were killed before they could clean up.
    ///
    /// # Errors
    /// When the temporary folder of this machine cannot be written.
    pub fn create() -> anyhow::Result<Self> {
        Self::create_in(&reachable_temp_dir())
    }

    /// The same in memory, where the machine has room for that. For servers whose data need not survive: each database
    /// that a test copies is 300 files, and creating and removing those takes a file system longer than PostgreSQL
    /// takes to fill them.
    ///
    /// # Errors
    /// As [`Folder::create`].
    pub fn in_memory() -> anyhow::Result<Self> {
        let memory = Path::new(MEMORY);
        let room =
            rustix::fs::statvfs(memory).is_ok_and(|disk| disk.f_bavail * disk.f_frsize > ENOUGH_MEMORY);
        if room { Self::create_in(memory) } else { Self::create() }
    }

    fn create_in(parent: &Path) -> anyhow::Result<Self> {
        remove_orphans(parent);
        let root = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .tempdir_in(parent)
            .with_context(|| format!("cannot create a folder in {}", parent.display()))?;
        // Others can enter (the servers' account has its data below), but not list it.
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o711))?;
        Ok(Self { root })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Creates a folder inside that only its owner can read.
    ///
    /// # Errors
    /// When it exists or cannot be created.
    pub fn private(&self, name: &str, owner: Option<&Account>) -> std::io::Result<PathBuf> {
        let path = self.path().join(name);
        std::fs::create_dir(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        if let Some(owner) = owner {
            owner.give(&path)?;
        }
        Ok(path)
    }
}

/// The machine's temporary folder, unless the servers' account could not get there (`TMPDIR` below `/root`).
fn reachable_temp_dir() -> PathBuf {
    let wanted = std::env::temp_dir();
    let open =
        wanted.ancestors().all(|folder| folder.metadata().is_ok_and(|metadata| metadata.mode() & 0o001 != 0));
    if open { wanted } else { PathBuf::from("/tmp") }
}

fn remove_orphans(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return;
    };
    let me = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(owner_of) else {
            continue;
        };
        let Ok(metadata) = entry.metadata() else { continue };
        let old = metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > GRACE));
        if metadata.is_dir() && metadata.uid() == me && old && !is_alive(pid) {
            // Another process may be removing it at the same time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The process id in a folder's name.
fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Folder, owner_of};

    #[test]
    fn a_folder_is_gone_after_the_drop() {
        let folder = Folder::create().expect("a temporary folder");
        let path = folder.path().to_owned();
        assert_eq!(path.file_name().and_then(|name| owner_of(name.to_str()?)), Some(std::process::id()));
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn other_folders_have_no_owner() {
        assert_eq!(owner_of("atrium-12-aB3"), Some(12));
        assert_eq!(owner_of("atrium-notes"), None);
        assert_eq!(owner_of("atrium-x-y"), None);
        assert_eq!(owner_of("systemd-private-12-x"), None);
    }
}
