//! `tour`: the main user journey through the public API, each step with its time.
//!
//! A step that fails says what was expected and what it got. The tour tolerates processes that are killed and restarted
//! while it runs: requests are repeated with the same idempotency key, and streams continue after their last event.

mod latency;
mod step;
mod steps;
mod window;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use atrium_contract::Contract;
use atrium_harness::addresses::Addresses;
use atrium_harness::checkout::Checkout;
use atrium_harness::client::Client;
use atrium_harness::interrupt::Interrupts;
use atrium_harness::screen::{Screen, readable};
use atrium_harness::stack::Stack;
use atrium_servers::folder::Folder;
use clap::Args;

use self::step::Tour;

/// Options of `tour`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// The file with the addresses of a running stack, as `make dev` wrote it [default: .dev/env].
    #[arg(long, value_name = "FILE")]
    pub(crate) env: Option<PathBuf>,
    /// Uses the Atrium at this address.
    #[arg(long, value_name = "URL", conflicts_with = "env")]
    pub(crate) url: Option<String>,
    /// Starts a stack for the tour, even if another one is running.
    #[arg(long, conflicts_with_all = ["env", "url"])]
    pub(crate) own_stack: bool,
    /// Measures this many presses and configuration changes afterwards.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) rounds: u32,
    /// Milliseconds to wait between two steps.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) pause: u64,
}

/// Runs the tour.
///
/// # Errors
/// When no stack can be reached or started.
pub(crate) async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut interrupts = Interrupts::listen()?;
    let screen = Screen::new();
    let tour = async {
        match running(options)? {
            Some(url) => {
                screen.title(&format!("Tour of the Atrium at {url}"));
                visit(&screen, &url, options).await
            }
            None => tour_own_stack(&screen, options).await,
        }
    };
    tokio::select! {
        outcome = tour => outcome,
        signal = interrupts.next() => Ok(ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1))),
    }
}

/// The address of the running Atrium to use, if any.
fn running(options: &Options) -> anyhow::Result<Option<String>> {
    if options.own_stack || options.url.is_some() {
        return Ok(options.url.clone());
    }
    let addresses = match &options.env {
        Some(file) => {
            let addresses = Addresses::read(file)?;
            anyhow::ensure!(addresses.is_live(), "the stack that wrote {} is not running", file.display());
            Some(addresses)
        }
        None => {
            let file = Checkout::find()?.dev_folder().join("env");
            Addresses::read(&file).ok().filter(Addresses::is_live)
        }
    };
    addresses.map(|addresses| addresses.get("ATRIUM_URL").map(str::to_owned)).transpose()
}

async fn tour_own_stack(screen: &Screen, options: &Options) -> anyhow::Result<ExitCode> {
    screen.title("Tour on a private stack");
    let folder = Folder::create()?;
    let stack = Stack::for_one_command(&folder, screen).await?;
    let outcome = visit(screen, stack.url(), options).await;
    if !matches!(outcome, Ok(code) if code == ExitCode::SUCCESS) {
        stack.show_logs(screen);
    }
    stack.stop().await;
    outcome
}

async fn visit(screen: &Screen, url: &str, options: &Options) -> anyhow::Result<ExitCode> {
    let contract = Contract::load().context("the tour checks every answer against the contract")?;
    let client = Client::new(url).with_contract(Arc::new(contract));
    let tour = Tour { screen: *screen, client, pause: Duration::from_millis(options.pause) };
    let start = Instant::now();
    // In a task: an answer that violates the contract panics, and the stack has to be stopped all the same.
    let rounds = options.rounds;
    let walk = tokio::spawn(async move {
        let visit = tour.walk().await?;
        if rounds > 0 {
            tour.measure(visit, rounds).await?;
        }
        anyhow::Ok(())
    });
    match walk.await {
        Ok(Ok(())) => {
            screen.title(&format!("  The tour is complete ({}).", readable(start.elapsed())));
            Ok(ExitCode::SUCCESS)
        }
        Ok(Err(error)) => {
            screen.title(&format!("  The tour failed: {error:#}"));
            Ok(ExitCode::FAILURE)
        }
        Err(_) => {
            screen.title("  The tour failed; see above.");
            Ok(ExitCode::FAILURE)
        }
    }
}
