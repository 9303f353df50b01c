//! Access that has ended: a member was removed, an organization suspended, a project deleted. What this process
//! believes for a while, and the streams that are open, end with it.
//!
//! PostgreSQL holds the ends, and every API process asks for news twice a second, as it does for revoked tokens. An end
//! that was learned is remembered for longer than anything is believed without asking the database, and counts against whatever
//! was looked up before it was learned: so what was read just before the end, and arrives just after, is not
//! believed either.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use atrium_shared::{
    db::{RevokedAccess, Watcher},
    ids::{OrgId, ProjectId},
    timings::{REVOCATIONS_OVERLAP, REVOCATIONS_READ_EVERY, is_longer},
};
use parking_lot::RwLock;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long an end is remembered.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(120);

// An end that is read once more, since reads overlap, is still known.
const _: () = assert!(is_longer(REMEMBERED, 2, REVOCATIONS_OVERLAP));

/// What somebody has access to, as far as a stream or a cached session depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessGrant {
    /// The organization.
    pub org: OrgId,
    /// Who.
    pub principal: Uuid,
    /// The project, if it is about one.
    pub project: Option<ProjectId>,
}

/// The ends of access that were learned lately. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct EndedAccess(Arc<RwLock<HashMap<OrgId, Vec<End>>>>);

#[derive(Debug)]
struct End {
    id: Uuid,
    principal: Option<Uuid>,
    project: Option<ProjectId>,
    learned_at: Instant,
}

impl EndedAccess {
    /// Whether access that was looked up at `checked_at` has ended since, as far as this process knows.
    #[must_use]
    pub fn has_ended(&self, access: &AccessGrant, checked_at: Instant) -> bool {
        self.find(access, checked_at, |_| true)
    }

    /// The same, but for what ends everybody's access: an operation goes on to be shown while its organization is
    /// closed.
    #[must_use]
    pub fn has_ended_for_one(&self, access: &AccessGrant, checked_at: Instant) -> bool {
        self.find(access, checked_at, |end| end.principal.is_some())
    }

    fn find(&self, access: &AccessGrant, checked_at: Instant, counts: impl Fn(&End) -> bool) -> bool {
        let ends = self.0.read();
        let ends = ends.get(&access.org).into_iter().flatten();
        ends.filter(|end| end.learned_at >= checked_at && counts(end)).any(|end| {
            end.principal.is_none_or(|principal| principal == access.principal)
                && end.project.is_none_or(|project| Some(project) == access.project)
        })
    }

    /// Follows the database until the process stops. While it is unavailable, nothing new is learned; no
    /// request is served on outdated access either, because each one reads the database.
    ///
    /// # Errors
    /// Never; the signature is that of a critical task.
    pub async fn follow(self, watcher: Watcher, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(REVOCATIONS_READ_EVERY);
        let mut since = OffsetDateTime::UNIX_EPOCH;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match watcher.access_revoked_since(since).await {
                Ok((now, ends)) => {
                    since = now - REVOCATIONS_OVERLAP;
                    self.learn(ends);
                }
                Err(error) => tracing::warn!(%error, "ends of access cannot be read; trying again"),
            }
        }
        Ok(())
    }

    fn learn(&self, revoked: Vec<RevokedAccess>) {
        let learned_at = Instant::now();
        let mut by_org = self.0.write();
        by_org.retain(|_, ends| {
            ends.retain(|end| end.learned_at.elapsed() < REMEMBERED);
            !ends.is_empty()
        });
        let known: HashSet<Uuid> = by_org.values().flatten().map(|end| end.id).collect();
        for RevokedAccess { org, id, principal, project } in revoked {
            if !known.contains(&id) {
                by_org.entry(org).or_default().push(End { id, principal, project, learned_at });
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
    fn an_end_concerns_whom_it_names_and_what_was_looked_up_before() {
        let (mine, before) = (access(), Instant::now());
        let colleague = AccessGrant { principal: Uuid::now_v7(), ..mine };
        let elsewhere = AccessGrant { project: Some(ProjectId::new()), ..mine };
        for (principal, project, ended) in [
            (Some(mine.principal), None, [true, false, true]),
            (None, None, [true, true, true]),
            (None, mine.project, [true, true, false]),
            (Some(Uuid::now_v7()), None, [false, false, false]),
        ] {
            let ends = EndedAccess::default();
            ends.learn(vec![end(mine, principal, project)]);
            assert_eq!([mine, colleague, elsewhere].map(|access| ends.has_ended(&access, before)), ended);
            assert!(!ends.has_ended(&access(), before), "another organization's");
            assert!(
                !ends.has_ended(&mine, Instant::now() + Duration::from_millis(1)),
                "looked up afterwards"
            );
        }
    }

    #[test]
    fn an_end_that_comes_again_is_not_a_new_one() {
        let mine = access();
        let (ends, again) = (EndedAccess::default(), || end(mine, None, None));
        let first = again();
        let copy = RevokedAccess { id: first.id, ..again() };
        ends.learn(vec![first]);
        let checked_at = Instant::now() + Duration::from_millis(1);
        std::thread::sleep(Duration::from_millis(2));
        ends.learn(vec![copy]);
        assert!(!ends.has_ended(&mine, checked_at));
        ends.learn(vec![again()]);
        assert!(ends.has_ended(&mine, checked_at));
    }

    #[test]
    fn a_closed_organization_still_shows_its_operations() {
        let (mine, before) = (access(), Instant::now());
        let ends = EndedAccess::default();
        ends.learn(vec![end(mine, None, None)]);
        assert!(ends.has_ended(&mine, before) && !ends.has_ended_for_one(&mine, before));
    }
}
