//! A mount namespace: files and folders that only the processes inside of it see.
//!
//! A process that does nothing holds it, so that what is mounted there outlives those that use it: a server that was
//! killed finds its data again. Root makes it just so. Anybody else needs a user namespace around it, in which they are
//! root and may mount; each program then runs in an inner one, where it is the user that it is outside: PostgreSQL
//! refuses to run as root.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::account::is_root;
use crate::process::{Launch, Process};

/// How long it may take to mount.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the holder says when everything is mounted.
const MOUNTED: &str = "mounted";

/// A mount namespace. Dropping it ends it; what was mounted is gone when the last process inside is.
#[derive(Debug)]
pub struct Mounts {
    holder: Process,
}

impl Mounts {
    /// Makes one and runs a shell script in it that mounts; its arguments are `$1` and so on. What the script says goes
    /// to a file in `folder`.
    ///
    /// # Errors
    /// When this machine lets us make no such namespace, or the script fails.
    pub async fn make(
        folder: &Path,
        script: &str,
        arguments: impl IntoIterator<Item = &OsStr>,
    ) -> anyhow::Result<Self> {
        let log = folder.join("mounts.log");
        // The wish to die with us is lost with the change to another user namespace, and so said behind it.
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.lines().any(|line| line == MOUNTED) {
                return Ok(Self { holder });
            }
            if holder.status().is_some() || Instant::now() >= deadline {
                bail!(
                    "this needs a mount namespace of its own, as root or where users may make user namespaces, and \
                     none can be had here: {}",
                    said.trim()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What stands in front of a command that is to run inside.
    pub(crate) fn entrance(&self) -> Vec<OsString> {
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

    /// How somebody outside reaches a file or folder inside.
    ///
    /// # Errors
    /// When the path is not absolute.
    pub fn outside(&self, inside: &Path) -> anyhow::Result<PathBuf> {
        let relative = inside.strip_prefix("/").context("a mount point is an absolute path")?;
        Ok(PathBuf::from(format!("/proc/{}/root", self.holder.pid())).join(relative))
    }
}
