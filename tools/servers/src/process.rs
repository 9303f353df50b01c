//! One child process: it ends with its parent, its output is written to a file, and signals reach only it.
//!
//! A thread per child waits for it. It reaps the child under the same lock that signaling takes, so a signal can never
//! reach another process that was given the id of a child that has ended.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::sync::watch;

use crate::account::Account;
use crate::spawner;

pub use rustix::process::Signal;

/// What to start, and how.
#[derive(Debug)]
pub struct Launch {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    account: Option<Account>,
    death_signal: &'static str,
    log: Option<PathBuf>,
    own_group: bool,
    wrapper: Vec<OsString>,
}

impl Launch {
    /// A program that gets `SIGTERM` when this process ends, in a process group of its own.
    #[must_use]
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            account: None,
            death_signal: "TERM",
            log: None,
            own_group: true,
            wrapper: Vec::new(),
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable. `ATRIUM_` variables are never inherited: a setting in the developer's shell must
    /// not affect a stack.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets several environment variables.
    #[must_use]
    pub fn envs(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Runs it as another user (only root can).
    #[must_use]
    pub fn account(mut self, account: Option<Account>) -> Self {
        self.account = account;
        self
    }

    /// The signal that the kernel sends it when this process ends, by its short name.
    #[must_use]
    pub fn death_signal(mut self, signal: &'static str) -> Self {
        self.death_signal = signal;
        self
    }

    /// Appends its output to a file; without this it writes to the output of this process.
    #[must_use]
    pub fn log(mut self, file: impl Into<PathBuf>) -> Self {
        self.log = Some(file.into());
        self
    }

    /// Leaves it in the process group of this process: Ctrl-C on the terminal then reaches it directly.
    #[must_use]
    pub fn in_our_group(mut self) -> Self {
        self.own_group = false;
        self
    }

    /// Runs it by a command that enters another environment first, such as a mount namespace.
    #[must_use]
    pub fn within(mut self, wrapper: Option<Vec<OsString>>) -> Self {
        self.wrapper = wrapper.unwrap_or_default();
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When `setpriv` is missing or the log file cannot be written. A missing *program* is exit status 127.
    pub fn spawn(self) -> io::Result<Process> {
        let mut words = self.wrapper;
        words.push("setpriv".into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if let Some(Account { uid, gid }) = &self.account {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        command.args(["--pdeathsig", self.death_signal, "--"]).arg(&self.program).args(&self.arguments);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("ATRIUM_")) {
                command.env_remove(name);
            }
        }
        command.envs(self.environment);
        if self.own_group {
            command.process_group(0).stdin(Stdio::null());
        }
        if let Some(log) = &self.log {
            let file = OpenOptions::new().create(true).append(true).open(log)?;
            command.stdout(file.try_clone()?).stderr(file);
        }
        let child = spawner::spawn(command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let missing = format!("{} is missing; install the package util-linux", words[0].display());
                io::Error::new(error.kind(), missing)
            }
            _ => error,
        })?;
        Process::watch(self.name, child, self.log, self.own_group)
    }
}

/// A child that was started. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    own_group: bool,
    log: Option<PathBuf>,
    reaped: Arc<Mutex<bool>>,
    status: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    fn watch(name: String, mut child: Child, log: Option<PathBuf>, own_group: bool) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        let reaped = Arc::new(Mutex::new(false));
        let (ended, status) = watch::channel(None);
        let waiter = {
            let reaped = Arc::clone(&reaped);
            move || {
                while let Err(rustix::io::Errno::INTR) =
                    rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
                {
                }
                let mut reaped = locked(&reaped);
                if let Ok(status) = child.wait() {
                    *reaped = true;
                    ended.send_replace(Some(status));
                }
            }
        };
        std::thread::Builder::new().name(format!("wait-{name}")).stack_size(128 * 1024).spawn(waiter)?;
        Ok(Self { name, pid, own_group, log, reaped, status })
    }

    /// Its name on the screen.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The file that its output is written to, if any.
    #[must_use]
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(&self, signal: Signal) {
        let reaped = locked(&self.reaped);
        if !*reaped {
            // It may be a zombie by now, on which a signal has no effect.
            let _ = rustix::process::kill_process(self.pid, signal);
        }
    }

    /// Sends a signal to it and to what it started, when it has a process group of its own.
    pub fn signal_group(&self, signal: Signal) {
        if !self.own_group {
            return self.signal(signal);
        }
        let reaped = locked(&self.reaped);
        if !*reaped {
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }

    /// How it ended, or `None` while it runs.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        *self.status.borrow()
    }

    /// Waits until it has ended.
    pub async fn ended(&self) -> ExitStatus {
        ended(self.status.clone()).await
    }

    /// The same as [`Process::ended`], without borrowing the process.
    pub fn end(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        ended(self.status.clone())
    }

    /// Sends `signal`, waits up to `grace`, then kills. Returns whether it ended by itself.
    pub async fn stop(&self, signal: Signal, grace: Duration) -> bool {
        self.signal(signal);
        if tokio::time::timeout(grace, self.ended()).await.is_ok() {
            return true;
        }
        self.kill().await;
        false
    }

    /// Kills it (`SIGKILL`) and waits until it has ended.
    pub async fn kill(&self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let patience = Instant::now() + Duration::from_secs(5);
        while self.status().is_none() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

async fn ended(mut status: watch::Receiver<Option<ExitStatus>>) -> ExitStatus {
    match status.wait_for(Option::is_some).await.map(|status| *status) {
        Ok(Some(status)) => status,
        // The waiting thread ended without a status, which only a failing wait(2) can cause.
        _ => ExitStatus::default(),
    }
}

fn locked(mutex: &Mutex<bool>) -> MutexGuard<'_, bool> {
    mutex.lock()
}

/// Whether a process of this id exists (a zombie counts).
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return false;
    };
    // "Not permitted" means that it exists and belongs to another user.
    !matches!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Launch, Signal, is_alive};

    #[tokio::test]
    async fn the_end_is_noticed_and_later_signals_do_nothing() {
        let process = Launch::new("false", "false").spawn().expect("spawns");
        assert_eq!(process.ended().await.code(), Some(1));
        assert!(!is_alive(process.pid()));
        process.signal(Signal::KILL);
    }

    #[tokio::test]
    async fn a_process_that_ignores_the_signal_is_killed() {
        let process = Launch::new("stubborn", "sh")
            .args(["-c", "trap '' TERM; while :; do sleep 0.05; done"])
            .spawn()
            .expect("spawns");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!process.stop(Signal::TERM, Duration::from_millis(200)).await);
        assert!(!is_alive(process.pid()));
    }

    #[tokio::test]
    async fn a_dropped_process_is_killed() {
        let process = Launch::new("sleep", "sleep").arg("60").spawn().expect("spawns");
        let pid = process.pid();
        assert!(is_alive(pid));
        drop(process);
        assert!(!is_alive(pid));
    }

    #[tokio::test]
    async fn settings_of_the_shell_are_not_inherited() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("env.log");
        let process = Launch::new("env", "env").env("ATRIUM_GIVEN", "yes").log(&log).spawn().expect("spawns");
        assert!(process.ended().await.success());
        let printed = std::fs::read_to_string(&log).expect("the log is there");
        let ours: Vec<_> = printed.lines().filter(|line| line.starts_with("ATRIUM_")).collect();
        assert_eq!(ours, ["ATRIUM_GIVEN=yes"]);
    }
}
