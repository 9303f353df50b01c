//! `atrium-devstack`: the stack for development (`dev`), for tests (`exec`), and the tour through the main job.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a command with a private PostgreSQL and Redis, and a migrated template database for tests.
    Exec {
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Exec { command } => atrium_devstack::exec::run(&command).await,
    }
}
