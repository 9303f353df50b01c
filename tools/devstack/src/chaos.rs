//! `chaos`: the crash matrix. In every round people work, a process stands at a named place of the write path, and
//! there something is killed, paused, cut off or forgotten. Then everything is healed, and what was promised is held
//! against the database and the streams.
//!
//! A round is drawn from seed and number alone; see `docs/reliability.md`. Most of a round is waiting for leases and
//! timeouts, so several lanes play at the same time, each on servers of its own.

mod interference;
mod invariants;
mod lane;
mod plan;
mod points;
mod report;
mod stage;
mod witness;
mod workload;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Args;

use crate::binaries::{self, Wanted};
use crate::checkout::Checkout;
use crate::compile;
use crate::interrupt::Interrupts;
use crate::screen::{Screen, spoken};
use lane::{Lane, Played};
use plan::{Plan, Turns};
use report::Report;

/// What to play.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Where the rounds are drawn from [default: another one each time].
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many rounds.
    #[arg(long, default_value_t = 100)]
    pub rounds: u32,
    /// The first round.
    #[arg(long, default_value_t = 0)]
    pub from: u32,
    /// How many rounds are played at the same time.
    #[arg(long, default_value_t = 4)]
    pub lanes: u32,
    /// Only this fault, by its name in the table.
    #[arg(long)]
    pub fault: Option<String>,
    /// Only this crash point.
    #[arg(long)]
    pub point: Option<String>,
    /// Ends at the first violation.
    #[arg(long)]
    pub stop: bool,
}

/// Plays the rounds.
///
/// # Errors
/// When PostgreSQL or Redis is missing, or Atrium does not compile.
pub async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut interrupts = Interrupts::listen()?;
    let screen = Screen::new();
    binaries::ensure(Wanted { postgres: true, redis: true, for_tests: false }, &screen)?;
    let turns = Turns::of(options.fault.as_deref(), options.point.as_deref())?;
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
        () = play(options, seed, &turns, &binaries, &screen, &report) => None,
        signal = interrupts.next() => Some(signal),
    };
    let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    screen.text(&report.table());
    for violated in report.violated() {
        screen.alert(violated);
    }
    screen.title(&format!("  Seed {seed}: {} ({}).", report.summary(), spoken(start.elapsed())));
    Ok(match signal {
        Some(signal) => ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(1)),
        None if report.is_clean() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

async fn play(
    options: &Options,
    seed: u64,
    turns: &Turns,
    binaries: &Path,
    screen: &Screen,
    report: &Mutex<Report>,
) {
    let (next, end) = (AtomicU32::new(options.from), options.from + options.rounds);
    let with_report = |act: &mut dyn FnMut(&mut Report)| {
        act(&mut report.lock().unwrap_or_else(PoisonError::into_inner));
    };
    let lanes = (0..options.lanes.clamp(1, options.rounds.max(1))).map(async |_| {
        let mut lane = Lane::new(binaries);
        loop {
            let round = next.fetch_add(1, Ordering::Relaxed);
            if round >= end {
                break;
            }
            let played = lane.play(Plan::draw(seed, round, turns)).await;
            show(&played, seed, screen);
            with_report(&mut |report| report.add(&played));
            if options.stop && !played.violations.is_empty() {
                next.store(end, Ordering::Relaxed);
            }
        }
        for violation in lane.end().await {
            with_report(&mut |report| report.add_late(&violation));
        }
    });
    futures_util::future::join_all(lanes).await;
}

fn show(played: &Played, seed: u64, screen: &Screen) {
    let Played { plan, reached, took, violations, logs } = played;
    let reached = if *reached { "" } else { "; nobody came there" };
    if violations.is_empty() {
        return screen.note(&format!("{plan}{reached} ({})", spoken(*took)));
    }
    screen.alert(&format!("{plan}{reached} ({}): violated", spoken(*took)));
    for violation in violations {
        screen.alert(violation);
    }
    screen.text(&format!("{plan:#?}\n{logs}"));
    screen.alert(&format!("again: make chaos SEED={seed} FROM={} ROUNDS=1", plan.round));
}
