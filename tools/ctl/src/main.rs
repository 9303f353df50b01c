//! `atrium-ctl`: the operator's command line for a running platform.
//!
//! It connects as the same roles as the services, so the tenant wall applies to it, too.

mod audit;
mod config;
mod dead_letters;
mod org;

use std::process::ExitCode;

use anyhow::Context as _;
use atrium_shared::{
    db::{Database, Reach, check_role, connect_pool},
    lifecycle::exit,
    settings::Reader,
};
use clap::{Parser, Subcommand};

use self::dead_letters::Sources;

/// Operates an Atrium platform. Needs ATRIUM_DATABASE_URL.
#[derive(Parser)]
#[command(name = "atrium-ctl", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reads and changes configuration: the defaults of all organizations or, with --org, the values and quotas of one.
    #[command(subcommand)]
    Config(config::Command),
    /// Suspends and resumes organizations.
    #[command(subcommand)]
    Org(org::Command),
    /// Lists, replays and drops messages that could not be processed. Also needs ATRIUM_RELAY_DATABASE_URL and
    /// ATRIUM_REDIS_URL.
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Lists and verifies an organization's audit log.
    #[command(subcommand)]
    Audit(audit::Command),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    exit("atrium-ctl", run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut reader = Reader::from_env();
    let settings = reader.ctl();
    let dead_letters = match arguments.command {
        Command::DeadLetters(_) => reader.dead_letters().map(Some),
        _ => Some(None),
    };
    let (settings, dead_letters) = reader.finish(settings.zip(dead_letters))?;
    let database =
        Database::connect_to(&settings.database_url, 2, "atrium-ctl", settings.database_pooling).await?;
    match arguments.command {
        Command::Config(command) => config::run(command, &database).await,
        Command::Org(command) => org::run(command, &database).await,
        Command::DeadLetters(command) => {
            let settings =
                dead_letters.context("ATRIUM_RELAY_DATABASE_URL and ATRIUM_REDIS_URL are required")?;
            let outbox = connect_pool(settings.relay_database_url.expose(), 1, "atrium-ctl")
                .await
                .context("cannot connect with ATRIUM_RELAY_DATABASE_URL")?;
            check_role(&mut *outbox.acquire().await?, Reach::RELAY).await?;
            let sources = Sources { database, outbox, redis: Sources::redis(&settings.redis_url)? };
            dead_letters::run(command, &sources).await
        }
        Command::Audit(command) => audit::run(command, &database).await,
    }
}
