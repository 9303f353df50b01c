//! What an organization's members may use together: requests a minute, and event streams at once.
//!
//! Counted for members only. A stranger who knows an organization's id must neither be able to use up its quota nor
//! see, by being refused for it, that the organization exists. So whether the caller is a member has to be known
//! before anything is counted, and every request of a stranger goes on to its handler, which says that there is
//! nothing. The look costs a transaction; that somebody is a member is remembered for a minute. Who is none any more
//! counts for so long, within their own limit, against an organization they know. Routes whose handlers know the
//! membership without a look (streams, chat actions) count by themselves.
//!
//! The caller's own limit comes first: who is over it uses up nothing of what others share.

use std::time::{Duration, Instant};

use atrium_shared::{db::DbError, ids::OrgId};
use http::header;
use quick_cache::{UnitWeighter, sync::Cache};
use uuid::Uuid;

use super::{
    problem::{Code, Problem},
    rate_limits::streams::Place,
    request::Request,
};
use crate::{
    routes::{Limit, Route},
    state::App,
};

/// How long a membership is remembered.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The most memberships that are remembered.
const CAPACITY: u64 = 100_000;
/// Room made at start; it grows with use.
const ESTIMATED: usize = 256;
/// When to try again whether a stream has ended, seconds.
const STREAM_RETRY: u16 = 5;

/// Memberships, of users and of services, that this process has seen.
pub struct Members(Cache<(OrgId, Uuid), Instant>);

impl Default for Members {
    fn default() -> Self {
        Self(Cache::with_weighter(ESTIMATED, CAPACITY, UnitWeighter))
    }
}

/// Counts a request to something below an organization, if the caller is a member of it.
///
/// # Errors
/// [`Code::QuotaExceeded`]; [`Code::Unavailable`] when the membership cannot be looked up.
pub async fn count(app: &App, route: &Route, request: &Request) -> Result<(), Problem> {
    // What is no id names no organization.
    let Ok(org) = request.path::<OrgId>("org") else { return Ok(()) };
    if route.stream || route.limit == Limit::ChatActions {
        return Ok(());
    }
    let key = (org, request.caller()?.id());
    if app.members.0.get(&key).is_none_or(|seen| seen.elapsed() > MAX_AGE) {
        match app.database.org_tx(&request.principal()?, org).await {
            Ok(_) => app.members.0.insert(key, Instant::now()),
            Err(DbError::NotFound) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    count_member(app, org).await
}

/// Counts a request of somebody who is known to be a member.
///
/// # Errors
/// [`Code::QuotaExceeded`]; [`Code::Unavailable`] when the quota has to be looked up and cannot.
pub async fn count_member(app: &App, org: OrgId) -> Result<(), Problem> {
    let snapshot = app.configuration.org(org).await?;
    app.rate_limits.organization(&snapshot, org).await.map(|_| ())
}

/// Counts a stream of somebody who is known to be a member: as a request, and among the open streams as long as the
/// place is held.
///
/// # Errors
/// [`Code::QuotaExceeded`]; [`Code::Unavailable`] when the quota has to be looked up and cannot.
pub async fn enter(app: &App, org: OrgId) -> Result<Place, Problem> {
    let snapshot = app.configuration.org(org).await?;
    app.rate_limits.organization(&snapshot, org).await?;
    let quota = snapshot.organization().quota_active_streams;
    app.stream_quotas.enter(org, quota).await.ok_or_else(|| {
        let detail = format!("The organization has {quota} event streams open, which is as many as it may.");
        Problem::new(Code::QuotaExceeded, detail).header(header::RETRY_AFTER, STREAM_RETRY.into())
    })
}
