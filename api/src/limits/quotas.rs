//! The quotas that an organization's members share: requests per minute, and open event streams.
//!
//! Only requests of members are counted. A non-member with an organization's id must neither be able to use up its
//! quota nor discover, by a rejection, that the organization exists. So the membership is checked before anything is
//! counted, and a request of a non-member continues to its handler, which answers 404. The check costs a transaction,
//! so a membership is cached for a minute. For that long, requests of a former member still count against the
//! organization, within the former member's own limit. Handlers that check the membership anyway (streams, chat
//! actions) count by themselves.
//!
//! The caller's own limit is checked first, so that a caller over it uses up nothing of the shared quota.

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

/// How long a membership is cached.
const MAX_AGE: Duration = Duration::from_secs(60);
/// Maximum number of cached memberships.
const CAPACITY: u64 = 100_000;
/// Initial capacity of the cache.
const ESTIMATED: usize = 256;
/// When to retry if too many streams are open, seconds.
const STREAM_RETRY: u16 = 5;

/// The quotas of organizations.
pub struct Quotas {
    configuration: ConfigurationStore,
    database: Database,
    rate_limits: Arc<RateLimits>,
    streams: StreamQuotas,
    /// Memberships of users and API keys, and when this process read them.
    members: Cache<(OrgId, Uuid), Instant>,
}

impl Quotas {
    /// Quotas with the values of the configuration, counted by these limits.
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

    /// Counts a request to a resource of an organization, if the caller is a member.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`]; [`Code::Unavailable`] if the membership cannot be read.
    pub async fn count(&self, request: &Request) -> Result<(), Problem> {
        // A malformed id belongs to no organization.
        let Ok(org) = request.path::<OrgId>("org") else { return Ok(()) };
        let key = (org, request.caller()?.id());
        if self.members.get(&key).is_none_or(|read_at| read_at.elapsed() > MAX_AGE) {
            match self.database.org_tx(&request.principal()?, org).await {
                Ok(_) => self.members.insert(key, Instant::now()),
                Err(DbError::NotFound) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.count_member(org).await
    }

    /// Counts a request of a caller that was verified to be a member.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`]; [`Code::Unavailable`] if the quota cannot be read.
    pub async fn count_member(&self, org: OrgId) -> Result<(), Problem> {
        let snapshot = self.configuration.org(org).await?;
        self.rate_limits.organization(&snapshot, org).await.map(|_| ())
    }

    /// Counts a stream of a caller that was verified to be a member: as a request, and as an open stream until the
    /// permit is dropped.
    ///
    /// # Errors
    /// [`Code::QuotaExceeded`]; [`Code::Unavailable`] if the quota cannot be read.
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
