//! `atrium-ctl`: what an operator changes while the platform runs.

mod audit;
mod config;
mod org;

use std::process::ExitCode;

use atrium_shared::{db::Database, lifecycle::exit, settings::Reader};
use clap::{Parser, Subcommand};

/// Operates an Atrium platform. Needs ATRIUM_DATABASE_URL.
#[derive(Parser)]
#[command(name = "atrium-ctl", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Configuration: what holds for everybody unless an organization or a project sets its own, or with --org what
    /// one organization has, quotas included.
    #[command(subcommand)]
    Config(config::Command),
    /// Organizations: suspended and resumed against their owners' will.
    #[command(subcommand)]
    Org(org::Command),
    /// The audit log of an organization.
    #[command(subcommand)]
    Audit(audit::Command),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit("atrium-ctl", run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut reader = Reader::from_env();
    let url = reader.postgres_url("ATRIUM_DATABASE_URL", "atrium_app");
    let pooling = reader.database_pooling();
    let (url, pooling) = reader.finish(url.zip(pooling))?;
    let database = Database::connect_to(&url, 2, "atrium-ctl", pooling).await?;
    match arguments.command {
        Command::Config(command) => config::run(command, &database).await,
        Command::Org(command) => org::run(command, &database).await,
        Command::Audit(command) => audit::run(command, &database).await,
    }
}
