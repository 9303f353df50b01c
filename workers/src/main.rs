//! `atrium-workers`: the background workers.

use std::process::ExitCode;

use atrium_shared::{lifecycle::exit, settings::Reader, telemetry::logs};
use atrium_workers::{Role, run};
use clap::{Parser, ValueEnum as _};

/// Publishes the outbox, runs sagas, distributes configuration, publishes and counts chat actions, deletes expired data.
#[derive(Parser)]
#[command(name = "atrium-workers", version)]
struct Arguments {
    /// The roles that this process runs; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Role::value_variants())]
    roles: Vec<Role>,
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("atrium-workers", start(Arguments::parse()).await)
}

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    let mut reader = Reader::from_env();
    let (common, own) = (reader.common("workers"), reader.workers());
    let (settings, own) = reader.finish(common.zip(own))?;
    let level = logs::init(settings.log_format);
    run(&arguments.roles, settings, own, level).await
}
