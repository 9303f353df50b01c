//! Runs `atrium-ctl`: sets configuration values of the default scope and of single organizations.

use std::path::Path;

use anyhow::bail;
use atrium_servers::process::Launch;
use serde_json::Value;

use crate::service::Wiring;

/// The limits of stacks for development and tests: a hundred times the defaults.
pub const RAISED_LIMITS: [(&str, u32); 6] = [
    ("limits.sign_ins_per_minute", 1_000),
    ("limits.chat_actions_per_second", 500),
    ("limits.requests_per_minute", 10_000),
    ("limits.bad_tokens_per_minute", 10_000),
    ("quotas.requests_per_minute", 6_000_000),
    ("quotas.active_streams", 100_000),
];

/// Sets one key of the default scope.
///
/// # Errors
/// If `atrium-ctl` is missing or fails.
pub async fn set_default(wiring: &Wiring, key: &str, value: &Value, reason: &str) -> anyhow::Result<()> {
    let value = value.to_string();
    run(wiring, &["config", "set", key, &value, "--reason", reason]).await.map(|_| ())
}

/// Sets one key for one organization.
///
/// # Errors
/// If `atrium-ctl` is missing or fails.
pub async fn set_for(
    wiring: &Wiring,
    org: &str,
    key: &str,
    value: &Value,
    reason: &str,
) -> anyhow::Result<()> {
    let value = value.to_string();
    run(wiring, &["config", "set", key, &value, "--org", org, "--reason", reason]).await.map(|_| ())
}

/// Removes one key from the default scope, so that the built-in value applies again.
///
/// # Errors
/// If `atrium-ctl` is missing or fails.
pub async fn unset_default(wiring: &Wiring, key: &str, reason: &str) -> anyhow::Result<()> {
    run(wiring, &["config", "unset", key, "--reason", reason]).await.map(|_| ())
}

/// Raises the limits.
///
/// # Errors
/// If `atrium-ctl` is missing or fails.
pub async fn raise_limits(wiring: &Wiring) -> anyhow::Result<()> {
    for (key, value) in RAISED_LIMITS {
        set_default(wiring, key, &value.into(), "a stack for development and tests").await?;
    }
    Ok(())
}

/// Runs `atrium-ctl` and returns what it printed.
///
/// # Errors
/// When it is missing or fails; with what it printed.
pub async fn run(wiring: &Wiring, arguments: &[&str]) -> anyhow::Result<String> {
    let program = wiring.binaries.join("atrium-ctl");
    if !program.is_file() {
        bail!("{} does not exist; build it with `cargo build -p atrium-ctl`", program.display());
    }
    let output = tempfile::NamedTempFile::new_in(&wiring.logs)?;
    let process = Launch::new("atrium-ctl", program)
        .args(arguments)
        .env("ATRIUM_DATABASE_URL", &wiring.database.app)
        .env("ATRIUM_RELAY_DATABASE_URL", &wiring.database.relay)
        .env("ATRIUM_REDIS_URL", &wiring.redis)
        .env("ATRIUM_LOG_FORMAT", "text")
        .log(output.path())
        .spawn()?;
    let status = process.ended().await;
    let printed = read(output.path());
    if !status.success() {
        bail!("`atrium-ctl {}` ended with {status}:\n{printed}", arguments.join(" "));
    }
    Ok(printed)
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}
