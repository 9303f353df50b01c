//! `atrium-migrate`: brings the database to the shape this release needs, then exits.

use std::process::ExitCode;

use anyhow::Context as _;
use atrium_migrations::{RolePasswords, migrate};
use clap::Parser;

/// Brings the database that ATRIUM_OWNER_DATABASE_URL names to the shape this release needs.
///
/// ATRIUM_APP_PASSWORD, ATRIUM_RELAY_PASSWORD and ATRIUM_WATCHER_PASSWORD set the passwords of the roles; a role
/// whose variable is not set keeps its own.
#[derive(Parser)]
#[command(name = "atrium-migrate", version)]
struct Arguments {}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command answers on the terminal")]
async fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    match run().await {
        Ok(()) => {
            println!("the database is up to date");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("atrium-migrate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    const EXAMPLE: &str = "for example postgres://postgres:secret@127.0.0.1:5432/atrium";
    let url = std::env::var("ATRIUM_OWNER_DATABASE_URL").ok().with_context(|| {
        format!("ATRIUM_OWNER_DATABASE_URL is not set; it names the database as a role that may create roles, {EXAMPLE}")
    })?;
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme));
    anyhow::ensure!(is_postgres, "ATRIUM_OWNER_DATABASE_URL is not an address of PostgreSQL; {EXAMPLE}");
    migrate(&url, &RolePasswords::from_env()).await
}
