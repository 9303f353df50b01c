//! `dev`: a complete stack with demo data, for interactive use.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use atrium_harness::checkout::Checkout;
use atrium_harness::compile;
use atrium_harness::interrupt::Interrupts;
use atrium_harness::screen::{Screen, readable};
use atrium_harness::stack::{Plan, Stack};
use atrium_harness::supervisor;
use atrium_servers::existing::Existing;
use atrium_servers::postgres::Durability;
use atrium_servers::process::is_alive;
use clap::Args;

use crate::seed::{self, Demo};

/// The usual port, used if it is free.
const PORT: u16 = 8080;

/// Options of `dev`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// The folder for addresses and logs [default: .dev in the checkout].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) files: Option<PathBuf>,
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// When something does not start.
pub(crate) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let mut interrupts = Interrupts::listen()?;
    let screen = Screen::new();
    let checkout = Checkout::find()?;
    let files = Files::take(&options.files.clone().unwrap_or_else(|| checkout.dev_folder()))?;

    screen.title("Atrium for development");
    let prepare = async {
        let binaries = compile::binaries(&checkout).await?;
        let plan = Plan {
            existing: Existing::from_env()?,
            durability: Durability::Durable,
            port: Some(PORT),
            logs: files.logs.clone(),
            binaries,
        };
        let stack = Stack::start(plan, &screen).await?;
        let demo = screen.step("demo data, through the public API", seed::create(&stack.client())).await?;
        anyhow::Ok((stack, demo))
    };
    let (stack, demo) = tokio::select! {
        prepared = prepare => prepared?,
        // Dropping the stack stops it.
        signal = interrupts.next() => {
            screen.alert("stopped before the stack was ready");
            return Ok(ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1)));
        }
    };
    stack.addresses().write(&files.addresses)?;
    welcome(&screen, &stack, &demo, &files, start);

    let changed = || {
        if let Err(error) = stack.addresses().write(&files.addresses) {
            screen.alert(&format!("{} is out of date: {error:#}", Files::shown(&files.addresses)));
        }
    };
    tokio::select! {
        () = supervisor::watch(&stack, &screen, changed) => {}
        _ = interrupts.next() => {}
    }
    screen.text("");
    screen.note("stopping; press Ctrl-C again to stop at once");
    files.remove_addresses();
    tokio::select! {
        killed = stack.stop() => {
            for name in killed {
                screen.alert(&format!("{name} did not stop in time and was killed"));
            }
            screen.note("everything has stopped");
        }
        _ = interrupts.next() => screen.alert("killed"),
    }
    Ok(ExitCode::SUCCESS)
}

/// This stack's files in `.dev`. The first stack of a checkout holds a lock and uses names without a suffix;
/// additional stacks add their process id.
struct Files {
    addresses: PathBuf,
    logs: PathBuf,
    lock: Option<File>,
}

impl Files {
    fn take(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        remove_orphans(folder);
        let lock = File::create(folder.join("lock"))?;
        let (suffix, lock) = match lock.try_lock() {
            Ok(()) => (String::new(), Some(lock)),
            Err(TryLockError::WouldBlock) => (format!(".{}", std::process::id()), None),
            Err(TryLockError::Error(error)) => return Err(error).context("cannot lock .dev/lock"),
        };
        let files = Self {
            addresses: folder.join(format!("env{suffix}")),
            logs: folder.join(format!("logs{suffix}")),
            lock,
        };
        // Remove what a killed stack has left.
        let _ = std::fs::remove_file(&files.addresses);
        let _ = std::fs::remove_dir_all(&files.logs);
        std::fs::create_dir(&files.logs)?;
        Ok(files)
    }

    fn is_first(&self) -> bool {
        self.lock.is_some()
    }

    /// A path relative to the folder in which `dev` was started.
    fn shown(path: &Path) -> String {
        let here = std::env::current_dir().unwrap_or_default();
        path.strip_prefix(&here).unwrap_or(path).display().to_string()
    }

    fn remove_addresses(&self) {
        let _ = std::fs::remove_file(&self.addresses);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.remove_addresses();
        // The first stack's logs are kept until the next start.
        if !self.is_first() {
            let _ = std::fs::remove_dir_all(&self.logs);
        }
    }
}

/// Removes the files of other stacks that were killed.
fn remove_orphans(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix("env.").or(name.strip_prefix("logs.")));
        if pid.and_then(|pid| pid.parse().ok()).is_some_and(|pid| !is_alive(pid)) {
            let _ = std::fs::remove_file(entry.path()).or_else(|_| std::fs::remove_dir_all(entry.path()));
        }
    }
}

fn welcome(screen: &Screen, stack: &Stack, demo: &Demo, files: &Files, start: Instant) {
    let url = stack.url();
    let tour = if files.is_first() {
        "make tour".to_owned()
    } else {
        format!("make tour ENV={}", Files::shown(&files.addresses))
    };
    let Demo { guests, projects, actions, invitations } = demo;
    let mut codes = String::new();
    for invitation in invitations {
        codes.push_str(&format!("\n                  {:<14} {}", invitation.organization, invitation.code));
    }
    screen.text("");
    screen.title(&format!("  Atrium is running at  {url}  (started in {})", readable(start.elapsed())));
    screen.text(&format!(
        "
  Sign in         open {url} and sign in as a guest; no account is needed.
                  In a terminal: curl -sX POST {url}/v1/auth/guest
  Demo            {} organizations, {projects} projects, {guests} guests, {actions} chat actions.
                  Invitation codes, each for one more admin:{codes}
  Try             {tour}: the main user journey through the public API, step by step
                  {url}/docs: the API reference
                  kill -9 {} (the API) or {} (the workers): they are restarted
  Files           {} (addresses, process ids)
                  {} (logs of the API and the workers)

  Ctrl-C stops everything.
",
        invitations.len(),
        stack.api.pid(),
        stack.workers.pid(),
        Files::shown(&files.addresses),
        Files::shown(&files.logs),
    ));
}
