//! `atrium-workers`: the roles that work behind the API.

use std::process::ExitCode;

use atrium_shared::{lifecycle::exit, settings::Reader, telemetry::logs};
use atrium_workers::{Role, run};
use clap::{Parser, ValueEnum as _};

/// Publishes the outbox, carries out sagas, spreads configuration, runs the chat, tidies up.
#[derive(Parser)]
#[command(name = "atrium-workers", version)]
struct Arguments {
    /// Which roles this process plays; all of them unless it is told otherwise.
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
