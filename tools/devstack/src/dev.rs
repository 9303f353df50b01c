//! `dev`: everything at once, for a person at a terminal.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use atrium_harness::checkout::Checkout;
use atrium_harness::compile;
use atrium_harness::interrupt::Interrupts;
use atrium_harness::screen::{Screen, spoken};
use atrium_harness::stack::{Plan, Stack};
use atrium_harness::supervisor;
use atrium_servers::existing::Existing;
use atrium_servers::postgres::Durability;
use atrium_servers::process::is_alive;
use clap::Args;

use crate::seed::{self, Demo};

/// The port people expect.
const PORT: u16 = 8080;

/// How to run.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// Where addresses and logs go [default: .dev in the checkout].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) files: Option<PathBuf>,
}

/// Runs until it is told to stop.
///
/// # Errors
/// When something does not start.
pub(crate) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let mut interrupts = Interrupts::listen()?;
    let screen = Screen::new();
    let checkout = Checkout::find()?;
    let place = Place::take(&options.files.clone().unwrap_or_else(|| checkout.dev_folder()))?;

    screen.title("Atrium for development");
    let prepare = async {
        let binaries = compile::binaries(&checkout).await?;
        let plan = Plan {
            existing: Existing::from_env()?,
            durability: Durability::Durable,
            port: Some(PORT),
            logs: place.logs.clone(),
            binaries,
        };
        let stack = Stack::start(plan, &screen).await?;
        let demo = screen.step("a demo, through the public API", seed::plant(&stack.client())).await?;
        anyhow::Ok((stack, demo))
    };
    let (stack, demo) = tokio::select! {
        prepared = prepare => prepared?,
        // Dropping what was started stops it.
        signal = interrupts.next() => {
            screen.alert("stopped before it was ready");
            return Ok(ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1)));
        }
    };
    stack.addresses().write(&place.addresses)?;
    welcome(&screen, &stack, &demo, &place, start);

    let changed = || {
        if let Err(error) = stack.addresses().write(&place.addresses) {
            screen.alert(&format!("{} is out of date: {error:#}", Place::shown(&place.addresses)));
        }
    };
    tokio::select! {
        () = supervisor::watch(&stack, &screen, changed) => {}
        _ = interrupts.next() => {}
    }
    screen.text("");
    screen.note("stopping; once more to stop at once");
    place.leave();
    tokio::select! {
        killed = stack.stop() => {
            for name in killed {
                screen.alert(&format!("{name} did not end by itself and was killed"));
            }
            screen.note("everything is stopped");
        }
        _ = interrupts.next() => screen.alert("killed"),
    }
    Ok(ExitCode::SUCCESS)
}

/// This stack's files in `.dev`. The first stack of a checkout holds a lock and has the plain names; further ones
/// have their process id in theirs.
struct Place {
    addresses: PathBuf,
    logs: PathBuf,
    lock: Option<File>,
}

impl Place {
    fn take(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        remove_orphans(folder);
        let lock = File::create(folder.join("lock"))?;
        let (suffix, lock) = match lock.try_lock() {
            Ok(()) => (String::new(), Some(lock)),
            Err(TryLockError::WouldBlock) => (format!(".{}", std::process::id()), None),
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock .dev/lock"),
        };
        let place = Self {
            addresses: folder.join(format!("env{suffix}")),
            logs: folder.join(format!("logs{suffix}")),
            lock,
        };
        // What a killed predecessor left.
        let _ = std::fs::remove_file(&place.addresses);
        let _ = std::fs::remove_dir_all(&place.logs);
        std::fs::create_dir(&place.logs)?;
        Ok(place)
    }

    fn is_first(&self) -> bool {
        self.lock.is_some()
    }

    /// A path as one types it where `dev` was started.
    fn shown(path: &Path) -> String {
        let here = std::env::current_dir().unwrap_or_default();
        path.strip_prefix(&here).unwrap_or(path).display().to_string()
    }

    fn leave(&self) {
        let _ = std::fs::remove_file(&self.addresses);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
        // The first stack's logs stay for reading until the next start.
        if !self.is_first() {
            let _ = std::fs::remove_dir_all(&self.logs);
        }
    }
}

/// Removes the files of further stacks that were killed.
fn remove_orphans(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("env.").or(name.strip_prefix("logs.")));
        if pid.and_then(|pid| pid.parse().ok()).is_some_and(|pid| !is_alive(pid)) {
            let _ = std::fs::remove_file(entry.path()).or_else(|_| std::fs::remove_dir_all(entry.path()));
        }
    }
}

fn welcome(screen: &Screen, stack: &Stack, demo: &Demo, place: &Place, start: Instant) {
    let url = stack.url();
    let tour = if place.is_first() {
        "make tour".to_owned()
    } else {
        format!("make tour ENV={}", Place::shown(&place.addresses))
    };
    let Demo { guests, projects, actions, invitations } = demo;
    let mut codes = String::new();
    for invitation in invitations {
        codes.push_str(&format!("\n                  {:<14} {}", invitation.organization, invitation.code));
    }
    screen.text("");
    screen.title(&format!("  Atrium runs at  {url}  ({} after the start)", spoken(start.elapsed())));
    screen.text(&format!(
        "
  Sign in         open {url} and sign in as a guest: there is nothing to fill in.
                  In a terminal: curl -sX POST {url}/v1/auth/guest
  Demo            {} organizations, {projects} projects, {guests} guests, {actions} chat actions.
                  Join as an admin with one of these codes, each good for one person:{codes}
  Try             {tour}: the main job through the public API, step by step
                  {url}/docs: the API, to browse
                  kill -9 {} (the API) or {} (the workers): they come back
  Files           {} (addresses, process ids)
                  {} (logs of the API and the workers)

  Ctrl-C stops everything.
",
        invitations.len(),
        stack.api.pid(),
        stack.workers.pid(),
        Place::shown(&place.addresses),
        Place::shown(&place.logs),
    ));
}
