//! `atrium-devstack`: the command line for developers.
//!
//! Each subcommand starts a private stack from `atrium-harness`, and stops it at the end: `dev` for a person, `exec`
//! for tests, `tour` and `browser` for the main user journey, `fuzz` for generated requests, `chaos` for the crash
//! matrix.

mod browser;
mod dev;
mod exec;
mod fuzz;
mod seed;
mod tour;

use std::ffi::OsString;
use std::process::ExitCode;

use atrium_chaos as chaos;
use atrium_harness::screen;
use clap::{Parser, Subcommand};

/// Starts private stacks of PostgreSQL, Redis and Atrium.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a complete stack with demo data, and keeps it running until Ctrl-C.
    Dev(dev::Options),
    /// Runs the main user journey in a real browser, on a stack of its own.
    Browser,
    /// Injects faults at every crash point of the write path, and checks that nothing accepted is lost or done twice.
    Chaos(chaos::Options),
    /// Runs a command with a private PostgreSQL and Redis, and a migrated template database for tests.
    Exec {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Generates valid and invalid requests from the contract, and checks the answers of a stack of its own.
    Fuzz,
    /// Runs the main user journey through the public API, on the running stack or on one of its own.
    Tour(tour::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Dev(options) => dev::run(&options).await,
        Command::Browser => browser::run().await,
        Command::Chaos(options) => chaos::run(&options).await,
        Command::Exec { command } => exec::run(&command).await,
        Command::Fuzz => fuzz::run().await,
        Command::Tour(options) => tour::run(&options).await,
    };
    outcome.unwrap_or_else(|error| {
        screen::print_error(&error);
        ExitCode::FAILURE
    })
}
