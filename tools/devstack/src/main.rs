//! `atrium-devstack`: the stack for development (`dev`), for tests (`exec`), the tour through the main job, the same in
//! a browser, requests that no test thought of (`fuzz`), and the crash matrix (`chaos`).

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
    /// Starts everything with a demo inside, and keeps it running until Ctrl-C.
    Dev(dev::Options),
    /// Does the main job in a real browser, on a stack of its own.
    Browser,
    /// Interferes at every place of the write path where it could hurt, and holds the promises against what came of it.
    Chaos(chaos::Options),
    /// Runs a command with a private PostgreSQL and Redis, and a migrated template database for tests.
    Exec {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Makes requests out of the contract, well-formed and not, and holds the answers of a stack of its own against it.
    Fuzz,
    /// Plays the main job through the public API of the running stack, or of one of its own.
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
