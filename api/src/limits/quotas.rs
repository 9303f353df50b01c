//! What an organization's members may use together: requests a minute, and event streams at once.
//!
//! Counted for members only. A stranger who knows an organization's id must neither be able to use up its quota nor
//! see, by being refused for it, that the organization exists. So whether the caller is a member has to be known
//! before anything is counted, and every request of a stranger goes on to its handler, which answers that nothing is
//! there. Finding out costs a transaction; that somebody is a member is remembered for a minute. Somebody who has left
//! still counts for that long, within their own limit, against an organization they know. Routes whose handlers know
//! the membership already (streams, chat actions) count by themselves.
//!
//! The caller's own limit comes first: who is over it uses up nothing of what others share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use atrium_shared::{
    configuration::ConfigurationStore,
    db::{Database, DbError},
    ids::OrgId,
};
use http::header;
use quick_cache::{UnitWeighter, sync::Cache};
use uuid::Uuid;

use super::{
    rate_limits::RateLimits,
    streams::{StreamPermit, StreamQuotas},
};
use crate::http::{
    problem::{Code, Problem},
    request::Request,
};

/// How long a membership is remembered.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The most memberships that are remembered.
const CAPACITY: u64 = 100_000;
/// Room made at start; it grows with use.
const ESTIMATED: usize = 256;
/// When to try again whether a stream has ended, seconds.
const STREAM_RETRY: u16 = 5;

/// The quotas of organizations.
pub struct Quotas {
    configuration: ConfigurationStore,
    database: Database,
    rate_limits: Arc<RateLimits>,
    streams: StreamQuotas,
    /// Memberships, of users and of services, that this process has seen, and when.
    members: Cache<(OrgId, Uuid), Instant>,
}

impl Quotas {
    /// Quotas as the configuration has them, counted with these limits.
    #[must_use]
    pub fn new(
        configuration: ConfigurationStore,
        database: Database,
        rate_limits: Arc<RateLimits>,
        streams: StreamQuotas,
    ) -> Self {
        let members = Cache::with_weighter(ESTIMATED, CAPACITY, UnitWeighter);
        Self { configuration, database, rate_limits, streams, members }
    }

    /// Counts a request to something below an organization, if the caller is a member of it.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`]; [`Code::Unavailable`] when the membership cannot be looked up.
    pub async fn count(&self, request: &Request) -> Result<(), Problem> {
        // What is no id names no organization.
        let Ok(org) = request.path::<OrgId>("org") else { return Ok(()) };
        let key = (org, request.caller()?.id());
        if self.members.get(&key).is_none_or(|seen| seen.elapsed() > MAX_AGE) {
            match self.database.org_tx(&request.principal()?, org).await {
                Ok(_) => self.members.insert(key, Instant::now()),
                Err(DbError::NotFound) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.count_member(org).await
    }

    /// Counts a request of somebody who is known to be a member.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`]; [`Code::Unavailable`] when the quota has to be looked up and cannot.
    pub async fn count_member(&self, org: OrgId) -> Result<(), Problem> {
        let snapshot = self.configuration.org(org).await?;
        self.rate_limits.organization(&snapshot, org).await.map(|_| ())
    }

    /// Counts a stream of somebody who is known to be a member: as a request, and among the open streams as long as
    /// the permit is held.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`]; [`Code::Unavailable`] when the quota has to be looked up and cannot.
    pub async fn enter(&self, org: OrgId) -> Result<StreamPermit, Problem> {
        let snapshot = self.configuration.org(org).await?;
        self.rate_limits.organization(&snapshot, org).await?;
        let quota = snapshot.organization().quota_active_streams;
        self.streams.enter(org, quota).await.ok_or_else(|| {
            let detail = format!("Limit reached: {quota} open event streams per organization.");
            Problem::new(Code::QuotaExceeded, detail).header(header::RETRY_AFTER, STREAM_RETRY.into())
        })
    }
}
