//! The rollout of a configuration change: which revision each process applies.

use std::sync::Arc;

use atrium_shared::{configuration::report, ids::OrgId};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    http::{
        problem::Problem,
        request::Request,
        response::{Response, json},
    },
    state::App,
};

#[derive(Serialize, JsonSchema)]
pub(super) struct Status {
    revision: i64,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    changed_at: Option<OffsetDateTime>,
    applied: usize,
    total: usize,
    processes: Vec<Process>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Process {
    process: String,
    revision: Option<i64>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    applied_at: Option<OffsetDateTime>,
    lag_ms: Option<f64>,
}

/// `GET /v1/orgs/{org}/configs/status`
///
/// # Errors
/// When the caller is not a member, or Redis, which stores the reports, is unavailable.
pub async fn status(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    let org: OrgId = request.path("org")?;
    let mut tx = app.database.org_tx(&request.principal()?, org).await?;
    let head = sqlx::query!("SELECT revision, changed_at FROM config_heads WHERE org_id = $1", org as OrgId)
        .fetch_optional(tx.conn())
        .await?;
    // No request keeps a database connection while it waits for Redis.
    drop(tx);
    let (revision, changed_at) = head.map_or((0, None), |head| (head.revision, Some(head.changed_at)));
    let reports = report::status(&app.redis, org).await.map_err(Problem::unavailable)?;
    let processes: Vec<Process> = reports
        .into_iter()
        .map(|report| {
            let current = report.revision == Some(revision);
            // Reports have whole milliseconds, so a report may appear to be earlier than its change.
            let lag =
                report.applied_at.zip(changed_at).filter(|_| current).map(|(applied_at, changed_at)| {
                    ((applied_at - changed_at).as_seconds_f64() * 1000.0).max(0.0)
                });
            Process {
                process: report.process,
                revision: report.revision,
                applied_at: report.applied_at,
                lag_ms: lag,
            }
        })
        .collect();
    let applied = processes
        .iter()
        // A process that has not loaded this configuration loads the newest at first use, so it cannot be behind.
        .filter(|process| process.revision.is_none_or(|applied| applied == revision))
        .count();
    json(StatusCode::OK, &Status { revision, changed_at, applied, total: processes.len(), processes })
}
