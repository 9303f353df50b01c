//! Which process applies which revision: every process reports it to Redis, and the status resource reads it.
//!
//! Reports only inform people. Those that Redis loses are replaced by the next reports. The time of a report is that of
//! Redis, because with the clocks of two processes a live process could appear to have stopped reporting.

use std::collections::HashMap;

use redis::{AsyncCommands as _, RedisResult};
use time::OffsetDateTime;

use crate::{
    ids::OrgId,
    messages::AppliedReport,
    streams::{CONFIG_PROCESSES_KEY, Redis, config_applied_key},
    timings::CONFIGURATION_REPORT_TIMEOUT,
};

/// Redis' time: seconds since 1970, and microseconds.
type RedisTime = (i64, i64);

/// What one process reports about one organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The process's name.
    pub process: String,
    /// The revision that it applies; none when it has not loaded this organization's configuration, and will load the
    /// newest at first use.
    pub revision: Option<i64>,
    /// When it began to apply it.
    pub applied_at: Option<OffsetDateTime>,
}

/// Reports that this process is live, and which revisions it applies.
///
/// # Errors
/// When Redis is unavailable.
pub async fn report(
    redis: &Redis,
    process: &str,
    applied: &[(OrgId, i64, OffsetDateTime)],
) -> RedisResult<()> {
    let (seconds, microseconds): RedisTime = redis::cmd("TIME").query_async(&mut redis.shared()).await?;
    let mut pipe = redis::pipe();
    pipe.hset(CONFIG_PROCESSES_KEY, process, seconds * 1_000 + microseconds / 1_000).ignore();
    for (org, revision, at) in applied {
        let key = config_applied_key(*org);
        let report = serde_json::to_string(&AppliedReport { revision: *revision, applied_at: *at })
            .map_err(std::io::Error::from)?;
        pipe.hset(&key, process, report).ignore().expire(&key, 3600).ignore();
    }
    pipe.query_async(&mut redis.shared()).await
}

/// Removes this process, which is ending.
///
/// # Errors
/// When Redis is unavailable.
pub async fn leave(redis: &Redis, process: &str) -> RedisResult<()> {
    redis.shared().hdel(CONFIG_PROCESSES_KEY, process).await
}

/// What every live process reports about an organization, ordered by process name.
///
/// # Errors
/// When Redis is unavailable.
pub async fn status(redis: &Redis, org: OrgId) -> RedisResult<Vec<Applied>> {
    let ((seconds, microseconds), processes, applied): (
        RedisTime,
        HashMap<String, i64>,
        HashMap<String, String>,
    ) = redis::pipe()
        .cmd("TIME")
        .hgetall(CONFIG_PROCESSES_KEY)
        .hgetall(config_applied_key(org))
        .query_async(&mut redis.shared())
        .await?;
    let now = seconds * 1_000 + microseconds / 1_000;
    let (live, expired): (Vec<_>, Vec<_>) = processes.into_iter().partition(|(_, reported_at)| {
        i128::from(now - reported_at) <= CONFIGURATION_REPORT_TIMEOUT.as_millis() as i128
    });
    if !expired.is_empty() {
        // A killed process did not remove itself. A process that was only slow reports again.
        let expired: Vec<String> = expired.into_iter().map(|(process, _)| process).collect();
        let _: () = redis::pipe()
            .hdel(CONFIG_PROCESSES_KEY, &expired)
            .ignore()
            .hdel(config_applied_key(org), &expired)
            .ignore()
            .query_async(&mut redis.shared())
            .await?;
    }
    let mut status: Vec<Applied> = live
        .into_iter()
        .map(|(process, _)| {
            let report: Option<AppliedReport> =
                applied.get(&process).and_then(|report| serde_json::from_str(report).ok());
            Applied {
                process,
                revision: report.as_ref().map(|report| report.revision),
                applied_at: report.map(|report| report.applied_at),
            }
        })
        .collect();
    status.sort_by(|a, b| a.process.cmp(&b.process));
    Ok(status)
}
