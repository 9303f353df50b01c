//! The crash matrix: faults injected at every crash point of the write path, and the promises checked afterwards.
//!
//! In every round simulated users work while a process is held at a crash point, and there something is killed, paused,
//! disconnected or deleted. Then everything is healed, and the database and the streams are compared with what the
//! users were promised. A round is drawn from the seed and its number alone; see `docs/reliability.md`. Most of a round
//! is waiting for leases and timeouts, so several runners work at the same time, each on servers of its own.

mod deployment;
mod faults;
mod invariants;
mod observer;
mod plan;
mod points;
mod report;
mod runner;
mod workload;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use atrium_harness::checkout::Checkout;
use atrium_harness::compile;
use atrium_harness::interrupt::Interrupts;
use atrium_harness::screen::{Screen, readable};
use atrium_servers::binaries::{self, Wanted};
use clap::Args;
use parking_lot::Mutex;

use self::plan::{Pairs, Plan};
use self::report::Report;
use self::runner::{RoundResult, Runner};

/// Which rounds to run.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The seed that the rounds are drawn from [default: random].
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many rounds.
    #[arg(long, default_value_t = 100)]
    pub rounds: u32,
    /// The first round.
    #[arg(long, default_value_t = 0)]
    pub from: u32,
    /// How many rounds run at the same time.
    #[arg(long, default_value_t = 4)]
    pub parallel: u32,
    /// Only this fault, by its name in the report's table.
    #[arg(long)]
    pub fault: Option<String>,
    /// Only this crash point.
    #[arg(long)]
    pub point: Option<String>,
    /// Stops at the first violation.
    #[arg(long)]
    pub stop: bool,
}

/// Runs the rounds, and prints the report.
///
/// # Errors
/// When PostgreSQL or Redis is missing, or Atrium does not compile.
pub async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut interrupts = Interrupts::listen()?;
    let screen = Screen::new();
    binaries::ensure(Wanted { postgres: true, redis: true, for_tests: false }, |text| screen.note(text))?;
    let pairs = Pairs::of(options.fault.as_deref(), options.point.as_deref())?;
    let binaries = compile::binaries(&Checkout::find()?).await?;
    let seed = options.seed.unwrap_or_else(rand::random);
    screen.title(&format!(
        "Chaos: seed {seed}, rounds {} to {}",
        options.from,
        options.from + options.rounds - 1
    ));
    let report = Mutex::new(Report::default());
    let start = Instant::now();
    let signal = tokio::select! {
        () = run_all(options, seed, &pairs, &binaries, &screen, &report) => None,
        signal = interrupts.next() => Some(signal),
    };
    let report = report.into_inner();
    screen.text(&report.table());
    for violated in report.violated() {
        screen.alert(violated);
    }
    screen.title(&format!("  Seed {seed}: {} ({}).", report.summary(), readable(start.elapsed())));
    Ok(match signal {
        Some(signal) => ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1)),
        None if report.is_clean() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

async fn run_all(
    options: &Options,
    seed: u64,
    pairs: &Pairs,
    binaries: &Path,
    screen: &Screen,
    report: &Mutex<Report>,
) {
    let (next, end) = (AtomicU32::new(options.from), options.from + options.rounds);
    let with_report = |act: &mut dyn FnMut(&mut Report)| {
        act(&mut report.lock());
    };
    let runners = (0..options.parallel.clamp(1, options.rounds.max(1))).map(async |_| {
        let mut runner = Runner::new(binaries);
        loop {
            let round = next.fetch_add(1, Ordering::Relaxed);
            if round >= end {
                break;
            }
            let result = runner.run(Plan::draw(seed, round, pairs)).await;
            show(&result, seed, screen);
            with_report(&mut |report| report.add(&result));
            if options.stop && !result.violations.is_empty() {
                next.store(end, Ordering::Relaxed);
            }
        }
        for violation in runner.end().await {
            with_report(&mut |report| report.add_late(&violation));
        }
    });
    futures_util::future::join_all(runners).await;
}

fn show(result: &RoundResult, seed: u64, screen: &Screen) {
    let RoundResult { plan, reached, took, violations, logs } = result;
    let reached = if *reached { "" } else { "; the point was not reached" };
    if violations.is_empty() {
        return screen.note(&format!("{plan}{reached} ({})", readable(*took)));
    }
    screen.alert(&format!("{plan}{reached} ({}): VIOLATED", readable(*took)));
    for violation in violations {
        screen.alert(violation);
    }
    screen.text(&format!("{plan:#?}\n{logs}"));
    screen.alert(&format!("repeat with: make chaos SEED={seed} FROM={} ROUNDS=1", plan.round));
}
