//! Sign-in sessions that ended before their access tokens expired. A token carries its session's id as `sid`.
//!
//! PostgreSQL stores revocations; every API process caches the unexpired ones in memory and reads new ones twice a
//! second. The reads overlap, because a row becomes visible only some time after its timestamp is taken. Redis is not
//! involved, so revocations hold without it. A revocation expires some time after the last token that it revokes, which
//! bounds the cache.
//!
//! The times of a revocation come from the database's clock, because this machine's wall clock may be wrong. The
//! remaining lifetime is measured by the monotonic clock, so that setting the wall clock expires no revocation early.

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

/// The revoked sign-in sessions that may still have unexpired tokens. Cheap to clone.
#[derive(Clone)]
pub struct Revocations {
    revoked: Arc<RwLock<HashMap<AuthSessionId, Instant>>>,
    changed: watch::Sender<u64>,
}

impl Revocations {
    /// Loads all unexpired revocations.
    ///
    /// # Errors
    /// When the database does not answer. Without revocations no token can be trusted.
    pub async fn load(watcher: &Watcher) -> Result<Self, DbError> {
        let revocations = Self { revoked: Arc::default(), changed: watch::Sender::new(0) };
        revocations.read(watcher, OffsetDateTime::UNIX_EPOCH).await?;
        Ok(revocations)
    }

    /// Whether this sign-in session was ended, by its user or because a copy of its refresh token was used.
    #[must_use]
    pub fn is_revoked(&self, auth_session: AuthSessionId) -> bool {
        self.revoked.read().contains_key(&auth_session)
    }

    /// Adds a revocation that this process has just committed, without waiting for the next read.
    pub fn insert(&self, auth_session: AuthSessionId) {
        self.add(auth_session, REVOCATION_LIFETIME);
    }

    fn add(&self, auth_session: AuthSessionId, remaining: Duration) {
        let expires_at = Instant::now() + remaining;
        if self.revoked.write().insert(auth_session, expires_at).is_none() {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// Changes whenever a session is revoked, so that an open stream can check its own session.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads new revocations until the process stops. While the database is unavailable, tokens are checked against the
    /// cached revocations, and still expire.
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
            self.revoked.write().retain(|_, expires_at| *expires_at > now);
        }
        Ok(())
    }

    /// Adds the revocations since `since`. Returns the database's time.
    async fn read(&self, watcher: &Watcher, since: OffsetDateTime) -> Result<OffsetDateTime, DbError> {
        let (now, revoked) = watcher.revoked_since(since).await?;
        for (auth_session, expires_at) in revoked {
            // The difference is negative if the revocation has expired.
            if let Ok(remaining) = Duration::try_from(expires_at - now) {
                self.add(auth_session, remaining);
            }
        }
        Ok(now)
    }
}
