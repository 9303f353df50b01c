//! Access that has ended: a member was removed, an organization suspended, a project deleted. Cached permissions and
//! open streams that depend on it end too.
//!
//! PostgreSQL stores the ends of access, and every API process reads new ones twice a second, as it does for revoked
//! tokens. Each is kept for longer than any cache entry is valid, and invalidates every permission that was checked
//! before this process read it. So a permission that was checked just before the end, but is cached just after it, is
//! invalid too.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use atrium_shared::{
    db::{RevokedAccess, Watcher},
    ids::{OrgId, ProjectId},
    timings::{REVOCATIONS_OVERLAP, REVOCATIONS_READ_INTERVAL, is_longer},
};
use parking_lot::RwLock;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long an end of access is kept.
pub(crate) const ENDED_ACCESS_RETENTION: Duration = Duration::from_secs(120);

// Reads overlap; an end that is read a second time must still be kept, so that it does not count as a new one.
const _: () = assert!(is_longer(ENDED_ACCESS_RETENTION, 2, REVOCATIONS_OVERLAP));

/// The access on which a stream or a cached session depends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessGrant {
    /// The organization.
    pub org: OrgId,
    /// The user or API key.
    pub principal: Uuid,
    /// The project, if the access is to one project.
    pub project: Option<ProjectId>,
}

/// The recent ends of access. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct EndedAccess(Arc<RwLock<HashMap<OrgId, Vec<End>>>>);

#[derive(Debug)]
struct End {
    id: Uuid,
    principal: Option<Uuid>,
    project: Option<ProjectId>,
    observed_at: Instant,
}

impl EndedAccess {
    /// Whether access that was checked at `checked_at` has ended since, as far as this process has read.
    #[must_use]
    pub fn has_ended(&self, access: &AccessGrant, checked_at: Instant) -> bool {
        self.find(access, checked_at, |_| true)
    }

    /// Like [`Self::has_ended`], but ignores ends that concern all principals: an operation is still shown while its
    /// organization is suspended or being deleted.
    #[must_use]
    pub fn has_ended_for_principal(&self, access: &AccessGrant, checked_at: Instant) -> bool {
        self.find(access, checked_at, |end| end.principal.is_some())
    }

    fn find(&self, access: &AccessGrant, checked_at: Instant, applies: impl Fn(&End) -> bool) -> bool {
        let ends = self.0.read();
        let ends = ends.get(&access.org).into_iter().flatten();
        ends.filter(|end| end.observed_at >= checked_at && applies(end)).any(|end| {
            end.principal.is_none_or(|principal| principal == access.principal)
                && end.project.is_none_or(|project| Some(project) == access.project)
        })
    }

    /// Reads new ends of access until the process stops. While PostgreSQL is unavailable, none are read. No request is
    /// served on outdated access either, because every request reads PostgreSQL.
    ///
    /// # Errors
    /// Never; the signature is that of a critical task.
    pub async fn follow(self, watcher: Watcher, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(REVOCATIONS_READ_INTERVAL);
        let mut since = OffsetDateTime::UNIX_EPOCH;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match watcher.access_revoked_since(since).await {
                Ok((now, ends)) => {
                    since = now - REVOCATIONS_OVERLAP;
                    self.record(ends);
                }
                Err(error) => tracing::warn!(%error, "ends of access cannot be read; trying again"),
            }
        }
        Ok(())
    }

    fn record(&self, revoked: Vec<RevokedAccess>) {
        let observed_at = Instant::now();
        let mut by_org = self.0.write();
        by_org.retain(|_, ends| {
            ends.retain(|end| end.observed_at.elapsed() < ENDED_ACCESS_RETENTION);
            !ends.is_empty()
        });
        let known: HashSet<Uuid> = by_org.values().flatten().map(|end| end.id).collect();
        for RevokedAccess { org, id, principal, project } in revoked {
            if !known.contains(&id) {
                by_org.entry(org).or_default().push(End { id, principal, project, observed_at });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> AccessGrant {
        AccessGrant { org: OrgId::new(), principal: Uuid::now_v7(), project: Some(ProjectId::new()) }
    }

    fn end(access: AccessGrant, principal: Option<Uuid>, project: Option<ProjectId>) -> RevokedAccess {
        RevokedAccess { org: access.org, id: Uuid::now_v7(), principal, project }
    }

    #[test]
    fn an_end_applies_to_its_principal_and_project_and_to_earlier_checks() {
        let (mine, before) = (access(), Instant::now());
        let colleague = AccessGrant { principal: Uuid::now_v7(), ..mine };
        let other_project = AccessGrant { project: Some(ProjectId::new()), ..mine };
        for (principal, project, ended) in [
            (Some(mine.principal), None, [true, false, true]),
            (None, None, [true, true, true]),
            (None, mine.project, [true, true, false]),
            (Some(Uuid::now_v7()), None, [false, false, false]),
        ] {
            let ends = EndedAccess::default();
            ends.record(vec![end(mine, principal, project)]);
            assert_eq!([mine, colleague, other_project].map(|access| ends.has_ended(&access, before)), ended);
            assert!(!ends.has_ended(&access(), before), "another organization's");
            assert!(!ends.has_ended(&mine, Instant::now() + Duration::from_millis(1)), "checked afterwards");
        }
    }

    #[test]
    fn an_end_that_is_read_twice_counts_once() {
        let mine = access();
        let (ends, new_end) = (EndedAccess::default(), || end(mine, None, None));
        let first = new_end();
        let copy = RevokedAccess { id: first.id, ..new_end() };
        ends.record(vec![first]);
        let checked_at = Instant::now() + Duration::from_millis(1);
        std::thread::sleep(Duration::from_millis(2));
        ends.record(vec![copy]);
        assert!(!ends.has_ended(&mine, checked_at));
        ends.record(vec![new_end()]);
        assert!(ends.has_ended(&mine, checked_at));
    }

    #[test]
    fn an_end_for_all_principals_does_not_hide_operations() {
        let (mine, before) = (access(), Instant::now());
        let ends = EndedAccess::default();
        ends.record(vec![end(mine, None, None)]);
        assert!(ends.has_ended(&mine, before) && !ends.has_ended_for_principal(&mine, before));
    }
}
