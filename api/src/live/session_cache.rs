//! A cache of chat sessions, so that pressing an action needs no query.
//!
//! An entry is read from PostgreSQL in a transaction of the session's own user, which checks the membership, and is
//! valid for a limited time. Ended sessions are kept in a separate set that overrides all entries, so an entry that was
//! read just before the end cannot reopen the session.

use std::time::{Duration, Instant};

use atrium_shared::{
    db::{Database, Principal},
    ids::{OrgId, ProjectId, SessionId, UserId},
    messages::CloseReason,
    organizations::OrganizationError,
    tenancy::Role,
};
use quick_cache::{UnitWeighter, sync::Cache};
use time::OffsetDateTime;

use super::access::{AccessGrant, EndedAccess};

/// Maximum number of cached sessions.
const CAPACITY: u64 = 50_000;
/// Initial capacity of the cache.
const ESTIMATED: usize = 256;

/// Identifies a session by everything it belongs to. If any of these differs, the session is not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey {
    /// The organization.
    pub org: OrgId,
    /// The project.
    pub project: ProjectId,
    /// The session.
    pub session: SessionId,
    /// The session's user.
    pub user: UserId,
}

impl SessionKey {
    fn access(&self) -> AccessGrant {
        AccessGrant { org: self.org, principal: self.user.uuid(), project: Some(self.project) }
    }
}

/// The state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// The role of the session's user in the organization.
    pub role: Role,
    /// When and why it ended, if it has ended.
    pub closed: Option<Closed>,
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// When it ended; absent if not known.
    pub at: Option<OffsetDateTime>,
    /// Why it ended.
    pub reason: CloseReason,
}

#[derive(Clone, Copy)]
struct CachedSession {
    known: SessionState,
    /// When the read began.
    read_at: Instant,
}

/// The cached sessions of this process.
pub struct SessionCache {
    entries: Cache<SessionKey, CachedSession>,
    closed: Cache<SessionId, ()>,
    ended: EndedAccess,
}

impl SessionCache {
    /// An empty cache, which returns no entry whose access has ended according to `ended`.
    #[must_use]
    pub fn new(ended: EndedAccess) -> Self {
        Self {
            entries: Cache::with_weighter(ESTIMATED, CAPACITY, UnitWeighter),
            closed: Cache::with_weighter(ESTIMATED, CAPACITY, UnitWeighter),
            ended,
        }
    }

    /// The cached session, if it is not older than `max_age`.
    #[must_use]
    pub fn get(&self, key: &SessionKey, max_age: Duration) -> Option<SessionState> {
        let entry = self.entries.get(key).filter(|entry| entry.read_at.elapsed() <= max_age)?;
        if self.ended.has_ended(&key.access(), entry.read_at) {
            return None;
        }
        // The entry was read before the session ended, so it lacks the time and the reason.
        (entry.known.closed.is_some() || !self.is_closed(key.session)).then_some(entry.known)
    }

    /// Whether this process knows that the session has ended.
    #[must_use]
    pub fn is_closed(&self, session: SessionId) -> bool {
        self.closed.get(&session).is_some()
    }

    /// Records that a session has ended.
    pub fn close(&self, session: SessionId) {
        self.closed.insert(session, ());
    }

    /// Caches a session that was opened after its user's role was read at `read_at`.
    pub fn opened(&self, key: SessionKey, role: Role, read_at: Instant) {
        self.entries.insert(key, CachedSession { known: SessionState { role, closed: None }, read_at });
    }

    /// Reads the session from PostgreSQL as its user, and caches it.
    ///
    /// # Errors
    /// [`DbError::NotFound`](atrium_shared::db::DbError::NotFound) if the user is not a member or has no such session
    /// in this project; [`OrganizationError::Suspended`] and [`OrganizationError::Deleting`] if the organization is not
    /// live.
    pub async fn read(
        &self,
        database: &Database,
        key: SessionKey,
    ) -> Result<SessionState, OrganizationError> {
        let read_at = Instant::now();
        let mut tx = database.org_tx(&Principal::User(key.user), key.org).await?;
        tx.require_live()?;
        let session = sqlx::query!(
            r#"SELECT closed_at, close_reason AS "close_reason: CloseReason" FROM chat_sessions
              WHERE org_id = $1 AND id = $2 AND project_id = $3 AND user_id = $4"#,
            key.org as OrgId,
            key.session as SessionId,
            key.project as ProjectId,
            key.user as UserId
        )
        .fetch_one(tx.conn())
        .await?;
        let known = SessionState {
            role: tx.role(),
            closed: session.close_reason.map(|reason| Closed { at: session.closed_at, reason }),
        };
        if known.closed.is_some() {
            self.close(key.session);
        }
        self.entries.insert(key, CachedSession { known, read_at });
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SessionKey {
        SessionKey {
            org: OrgId::new(),
            project: ProjectId::new(),
            session: SessionId::new(),
            user: UserId::new(),
        }
    }

    #[test]
    fn a_session_is_found_only_by_its_complete_key() {
        let (sessions, key) = (SessionCache::new(EndedAccess::default()), key());
        sessions.opened(key, Role::Member, Instant::now());
        assert_eq!(
            sessions.get(&key, Duration::from_secs(9)),
            Some(SessionState { role: Role::Member, closed: None })
        );
        for other in [
            SessionKey { org: OrgId::new(), ..key },
            SessionKey { project: ProjectId::new(), ..key },
            SessionKey { user: UserId::new(), ..key },
        ] {
            assert_eq!(sessions.get(&other, Duration::from_secs(9)), None);
        }
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(sessions.get(&key, Duration::from_millis(1)), None, "too old");
    }

    #[test]
    fn a_recorded_end_overrides_an_entry_read_before_it() {
        let (sessions, key) = (SessionCache::new(EndedAccess::default()), key());
        sessions.close(key.session);
        sessions.opened(key, Role::Member, Instant::now());
        assert!(sessions.is_closed(key.session));
        assert_eq!(sessions.get(&key, Duration::from_secs(9)), None);
    }

    #[test]
    fn the_set_of_ended_sessions_is_bounded() {
        let sessions = SessionCache::new(EndedAccess::default());
        for _ in 0..CAPACITY + CAPACITY / 2 {
            sessions.close(SessionId::new());
        }
        assert!(sessions.closed.len() as u64 <= CAPACITY);
    }
}
