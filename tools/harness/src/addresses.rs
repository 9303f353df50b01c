//! `.dev/env`: the addresses and process ids of a running stack, as `KEY=value` lines, for other commands.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use atrium_servers::process::is_alive;

/// The process id of the devstack: the file is valid while that process runs.
const OWNER: &str = "ATRIUM_DEVSTACK_PID";

/// The values of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    values: BTreeMap<String, String>,
}

impl Addresses {
    /// Adds a value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Display) -> Self {
        self.values.insert(key.to_owned(), value.to_string());
        self
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or a line is not `KEY=value`.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} was not written by `make dev`", file.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut values = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let Some((key, value)) = line.split_once('=') else { bail!("`{line}` is not KEY=value") };
            values.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self { values })
    }

    /// Writes the file atomically: readers see the old one or the new one, never half of it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let folder = file.parent().context("a file is in a folder")?;
        // Only the owner can read a temporary file, and this one contains passwords.
        let mut next = tempfile::NamedTempFile::new_in(folder)?;
        for (key, value) in &self.values {
            writeln!(next, "{key}={value}")?;
        }
        next.persist(file).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(())
    }

    /// A value.
    ///
    /// # Errors
    /// When it is missing.
    pub fn get(&self, key: &str) -> anyhow::Result<&str> {
        self.values.get(key).map(String::as_str).with_context(|| format!("{key} is missing"))
    }

    /// Whether the stack that wrote this is still running.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.values.get(OWNER).and_then(|pid| pid.parse().ok()).is_some_and(|pid: u32| {
            // The id may belong to another process by now.
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            is_alive(pid) && name.trim_end() == "atrium-devstack"
        })
    }

    /// Adds this process as the one that the file belongs to.
    #[must_use]
    pub fn owned_by_us(self) -> Self {
        self.with(OWNER, std::process::id())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::Addresses;

    #[test]
    fn an_environment_file_round_trips() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("env");
        let addresses = Addresses::default()
            .with("ATRIUM_URL", "http://127.0.0.1:8080")
            .with("ATRIUM_REDIS_URL", "redis://x:y=z@127.0.0.1:1/0");
        addresses.write(&file).expect("writes");
        let read = Addresses::read(&file).expect("reads");
        assert_eq!(read, addresses);
        assert_eq!(read.get("ATRIUM_REDIS_URL").expect("is there"), "redis://x:y=z@127.0.0.1:1/0");
        assert!(read.get("ATRIUM_NOTHING").is_err());
        let mode = std::fs::metadata(&file).expect("is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "passwords are for the owner alone");
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing else stays");
    }

    #[test]
    fn other_files_are_refused() {
        assert!(Addresses::parse("ATRIUM_URL").is_err());
        assert!(Addresses::parse("# a comment\n\nA=b\n").is_ok());
    }

    #[test]
    fn a_stopped_stack_is_not_live() {
        assert!(!Addresses::default().is_live());
        // This process lives, but is no devstack.
        assert!(!Addresses::default().owned_by_us().is_live());
        assert!(!Addresses::default().with(super::OWNER, 0).is_live());
    }
}
