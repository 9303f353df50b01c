//! Which process applies which revision: reported to Redis by every process, read by the status resource.
//!
//! Reports are hints for people. They may be lost with Redis and return with the next report. Their times are the time
//! of Redis: by another process's clock, a live process could look dead.

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

/// The report of one process about one organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The process's name.
    pub process: String,
    /// The revision it applies; none if it has not loaded this organization's configuration, and would load the newest
    /// at first use.
    pub revision: Option<i64>,
    /// When it began to.
    pub applied_at: Option<OffsetDateTime>,
}

/// Says that this process lives, and which revisions it applies.
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

/// Says that this process ends.
///
/// # Errors
/// When Redis is unavailable.
pub async fn leave(redis: &Redis, process: &str) -> RedisResult<()> {
    redis.shared().hdel(CONFIG_PROCESSES_KEY, process).await
}

/// The reports of all live processes about an organization, by process name.
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
    let (living, silent): (Vec<_>, Vec<_>) = processes
        .into_iter()
        .partition(|(_, seen)| i128::from(now - seen) <= CONFIGURATION_REPORT_TIMEOUT.as_millis() as i128);
    if !silent.is_empty() {
        // A killed process never removed its report; a slow one reports again.
        let silent: Vec<String> = silent.into_iter().map(|(process, _)| process).collect();
        let _: () = redis::pipe()
            .hdel(CONFIG_PROCESSES_KEY, &silent)
            .ignore()
            .hdel(config_applied_key(org), &silent)
            .ignore()
            .query_async(&mut redis.shared())
            .await?;
    }
    let mut status: Vec<Applied> = living
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
