//! `browser`: the main user journey in a real Chromium, on a stack of its own.
//!
//! The test itself is JavaScript, in `web/tests`. It needs Node, which is a prerequisite of the web app; the browser is
//! installed from the system's packages where possible.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use atrium_harness::checkout::Checkout;
use atrium_harness::interrupt::Interrupts;
use atrium_harness::screen::Screen;
use atrium_harness::stack::Stack;
use atrium_harness::supervisor;
use atrium_servers::binaries::path_folders;
use atrium_servers::folder::Folder;
use atrium_servers::packages;
use tokio::process::Command;

/// The names under which distributions ship the browser.
const BROWSERS: [&str; 2] = ["chromium", "chromium-browser"];

/// Runs the test; without Node, says that it is skipped.
///
/// # Errors
/// When there is no browser, or the stack does not start.
pub(crate) async fn run() -> anyhow::Result<ExitCode> {
    let mut interrupts = Interrupts::listen()?;
    let screen = Screen::new();
    screen.title("The main user journey in a browser");
    if find("npm").is_none() {
        screen.note("skipped: the web app's tests need Node, which is not installed");
        return Ok(ExitCode::SUCCESS);
    }
    let browser = browser(&screen)?;
    let folder = Folder::create()?;
    let stack = Arc::new(Stack::for_one_command(&folder, &screen).await?);
    // The test stops the API once: the windows must continue when it is back.
    let watched = Arc::clone(&stack);
    let supervisor = tokio::spawn(async move { supervisor::watch(&watched, &Screen::new(), || {}).await });
    let outcome = tokio::select! {
        outcome = test(&stack, &browser) => outcome,
        _ = interrupts.next() => Ok(false),
    };
    supervisor.abort();
    let _ = supervisor.await;
    if !matches!(outcome, Ok(true)) {
        stack.show_logs(&screen);
    }
    stack.stop().await;
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn test(stack: &Stack, browser: &Path) -> anyhow::Result<bool> {
    let web = Checkout::find()?.root().join("web");
    for arguments in [&["ci", "--no-audit", "--no-fund"][..], &["run", "test:browser"]] {
        let status = Command::new("npm")
            .arg("--prefix")
            .arg(&web)
            .args(arguments)
            .env("ATRIUM_URL", stack.url())
            .env("ATRIUM_API_PID", stack.api.pid().to_string())
            .env("CHROMIUM", browser)
            .kill_on_drop(true)
            .status()
            .await
            .context("cannot run npm")?;
        if !status.success() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The browser, installed if that is possible.
fn browser(screen: &Screen) -> anyhow::Result<PathBuf> {
    let found = || BROWSERS.into_iter().find_map(find);
    if let Some(browser) = found() {
        return Ok(browser);
    }
    if packages::may_install() {
        screen.note("Chromium: not installed; installing it from this system's packages");
        packages::install(&["chromium"])?;
    }
    let Some(browser) = found() else {
        bail!("Chromium is not installed. On Debian:  sudo apt-get install -y chromium");
    };
    Ok(browser)
}

fn find(program: &str) -> Option<PathBuf> {
    path_folders().into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}
