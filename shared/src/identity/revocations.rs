//! Sign-in sessions that ended before their access tokens expired. A token carries its session's id as `sid`.
//!
//! PostgreSQL stores them; every API process caches those that still matter and polls for new ones twice a second, with
//! an overlap, since a row becomes visible only some time after its timestamp was taken. Redis is not involved, so
//! losing it accepts no revoked token. A revocation expires some time after the longest token that it concerns, which
//! bounds the memory.
//!
//! Since when, and until when, is the database's time: its clock stamps the rows, and ours may be wrong. How long that
//! is from now is measured by the monotonic clock, so that nothing is forgotten early when ours is set.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    db::{DbError, Watcher},
    ids::AuthSessionId,
    timings::{REVOCATION_LIFETIME, REVOCATIONS_OVERLAP, REVOCATIONS_READ_INTERVAL},
};

/// The revoked sign-in sessions whose tokens may not have expired. Cheap to clone.
#[derive(Clone)]
pub struct Revocations {
    revoked: Arc<RwLock<HashMap<AuthSessionId, Instant>>>,
    changed: watch::Sender<u64>,
}

impl Revocations {
    /// Loads all revocations that matter.
    ///
    /// # Errors
    /// When the database does not answer: without them no token can be trusted.
    pub async fn load(watcher: &Watcher) -> Result<Self, DbError> {
        let revocations = Self { revoked: Arc::default(), changed: watch::Sender::new(0) };
        revocations.read(watcher, OffsetDateTime::UNIX_EPOCH).await?;
        Ok(revocations)
    }

    /// Whether this sign-in session has ended, by its user or because a copy of its token was used.
    #[must_use]
    pub fn is_revoked(&self, auth_session: AuthSessionId) -> bool {
        self.revoked.read().contains_key(&auth_session)
    }

    /// Remembers a revocation that this process has just committed, without waiting for the poll.
    pub fn insert(&self, auth_session: AuthSessionId) {
        self.remember(auth_session, REVOCATION_LIFETIME);
    }

    fn remember(&self, auth_session: AuthSessionId, left: Duration) {
        let ends_at = Instant::now() + left;
        if self.revoked.write().insert(auth_session, ends_at).is_none() {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// Changes whenever a session is revoked, so that an open stream can look whether it was its own.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Follows the database until the process stops. While the database is unavailable, tokens are still checked
    /// against the revocations that are known, and still expire.
    ///
    /// # Errors
    /// Never; the signature is that of a critical task.
    pub async fn follow(self, watcher: Watcher, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(REVOCATIONS_READ_INTERVAL);
        let mut since = OffsetDateTime::UNIX_EPOCH;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.read(&watcher, since).await {
                Ok(now) => since = now - REVOCATIONS_OVERLAP,
                Err(error) => tracing::warn!(%error, "revocations cannot be read; trying again"),
            }
            let now = Instant::now();
            self.revoked.write().retain(|_, ends_at| *ends_at > now);
        }
        Ok(())
    }

    /// Remembers what was revoked since `since`; returns the database's time.
    async fn read(&self, watcher: &Watcher, since: OffsetDateTime) -> Result<OffsetDateTime, DbError> {
        let (now, revoked) = watcher.revoked_since(since).await?;
        for (auth_session, expires_at) in revoked {
            // Negative, of one that has ended.
            if let Ok(left) = Duration::try_from(expires_at - now) {
                self.remember(auth_session, left);
            }
        }
        Ok(now)
    }
}
