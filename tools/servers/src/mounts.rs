//! A mount namespace: files and folders that only the processes inside of it see.
//!
//! An idle process keeps it alive, so that its mounts outlive the processes that use it: a server that was killed finds
//! its data again. Root can create one directly. Other users need a user namespace around it, in which they are root
//! and may mount; each program then runs in an inner one, with its usual user id, because PostgreSQL does not start as
//! root.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::account::is_root;
use crate::process::{Launch, Process};

/// How long it may take to mount.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What the idle process prints when everything is mounted.
const MOUNTED: &str = "mounted";

/// A mount namespace. Dropping it ends it; what was mounted is unmounted when the last process inside has ended.
#[derive(Debug)]
pub struct Mounts {
    holder: Process,
}

impl Mounts {
    /// Creates one and runs a shell script in it that mounts; its arguments are `$1` and so on. The script's output
    /// is written to a file in `folder`.
    ///
    /// # Errors
    /// When this machine does not allow such a namespace, or the script fails.
    pub async fn make(
        folder: &Path,
        script: &str,
        arguments: impl IntoIterator<Item = &OsStr>,
    ) -> anyhow::Result<Self> {
        let log = folder.join("mounts.log");
        // The death signal is lost when the user namespace changes, so it is set after that.
        let script =
            format!("set -e; {script}; echo {MOUNTED}; exec setpriv --pdeathsig KILL -- sleep infinity");
        let mut launch = Launch::new("mounts", "unshare");
        if !is_root() {
            launch = launch.args(["--user", "--map-root-user"]);
        }
        let holder = launch
            .args(["--mount", "--propagation", "private", "--", "sh", "-c", &script, "sh"])
            .args(arguments)
            .log(&log)
            .spawn()?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let printed = std::fs::read_to_string(&log).unwrap_or_default();
            if printed.lines().any(|line| line == MOUNTED) {
                return Ok(Self { holder });
            }
            if holder.status().is_some() || Instant::now() >= deadline {
                bail!(
                    "this needs a mount namespace, which requires root or user namespaces, and this machine allows \
                     neither: {}",
                    printed.trim()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The command that runs another one inside, for [`Launch::within`].
    #[must_use]
    pub fn enter_command(&self) -> Vec<OsString> {
        let holder = self.holder.pid().to_string();
        let mut words = vec!["nsenter", "--target", &holder, "--mount"];
        let (user, group) = (
            format!("--map-user={}", rustix::process::geteuid().as_raw()),
            format!("--map-group={}", rustix::process::getegid().as_raw()),
        );
        if !is_root() {
            words.extend(["--user", "--preserve-credentials", "--", "unshare", "--user", &user, &group]);
        }
        words.push("--");
        words.into_iter().map(OsString::from).collect()
    }

    /// The path by which a process outside reaches a file or folder inside.
    ///
    /// # Errors
    /// When the path is not absolute.
    pub fn path_from_outside(&self, inside: &Path) -> anyhow::Result<PathBuf> {
        let relative = inside.strip_prefix("/").context("a mount point is an absolute path")?;
        Ok(PathBuf::from(format!("/proc/{}/root", self.holder.pid())).join(relative))
    }
}
