//! Tokens that were signed out before they expired, one by one or a whole sign-in at once: an id here is a token's
//! `jti` or its `sid`.
//!
//! PostgreSQL holds them; every API process keeps those that still matter in memory and asks for news twice a
//! second, with an overlap, since a row becomes visible only some time after its timestamp was taken. Redis plays
//! no part, so losing it opens no door. Each token lives 15 minutes, which bounds the memory.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::TOKEN_LIFETIME;
use crate::{
    db::{DbError, Watcher},
    ids::FamilyId,
};

const POLL: Duration = Duration::from_millis(500);
/// Longer than any transaction that revokes may take.
const OVERLAP: Duration = Duration::from_secs(30);

/// The revoked tokens that have not expired. Cheap to clone.
#[derive(Clone)]
pub struct Revocations {
    revoked: Arc<RwLock<HashMap<Uuid, OffsetDateTime>>>,
    changed: watch::Sender<u64>,
}

impl Revocations {
    /// Loads all revocations that matter.
    ///
    /// # Errors
    /// When the database does not answer: without them no token can be trusted.
    pub async fn load(watcher: &Watcher) -> Result<Self, DbError> {
        let revocations = Self { revoked: Arc::default(), changed: watch::Sender::new(0) };
        revocations.read(watcher, OffsetDateTime::now_utc() - TOKEN_LIFETIME - OVERLAP).await?;
        Ok(revocations)
    }

    /// Whether this token was signed out, or the sign-in that it comes from.
    #[must_use]
    pub fn is_revoked(&self, jti: Uuid, family: FamilyId) -> bool {
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        revoked.contains_key(&jti) || revoked.contains_key(&family.uuid())
    }

    /// Remembers a revocation that this process has just committed, without waiting for the poll.
    pub fn insert(&self, id: Uuid, expires_at: OffsetDateTime) {
        let new =
            self.revoked.write().unwrap_or_else(PoisonError::into_inner).insert(id, expires_at).is_none();
        if new {
            self.changed.send_modify(|version| *version += 1);
        }
    }

    /// Changes whenever a token is revoked, so that an open stream can look whether it was its own.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Follows the database until the process stops. While the database is away, tokens go on to be checked
    /// against what is known, and end by their own expiry.
    ///
    /// # Errors
    /// Never; the signature is that of a critical task.
    pub async fn follow(self, watcher: Watcher, stop: CancellationToken) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(POLL);
        let mut since = OffsetDateTime::now_utc() - OVERLAP;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let asked_at = OffsetDateTime::now_utc();
            match self.read(&watcher, since).await {
                Ok(()) => since = asked_at - OVERLAP,
                Err(error) => tracing::warn!(%error, "revocations cannot be read; trying again"),
            }
            self.revoked.write().unwrap_or_else(PoisonError::into_inner).retain(|_, expires_at| {
                // Kept a little longer than the leeway that verification grants.
                *expires_at > asked_at - OVERLAP
            });
        }
        Ok(())
    }

    async fn read(&self, watcher: &Watcher, since: OffsetDateTime) -> Result<(), DbError> {
        for (id, expires_at, _) in watcher.revoked_since(since).await? {
            self.insert(id, expires_at);
        }
        Ok(())
    }
}
