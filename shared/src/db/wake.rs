//! Wakes the relay after a commit.
//!
//! `NOTIFY` inside a transaction makes commits wait for each other, so it is sent as a statement of its own, from a
//! task that folds a burst of commits into one notification. It is only a hint: the relay also polls.

use std::sync::Arc;

use tokio::sync::Notify;

use super::pool::Pool;

/// The channel of `LISTEN` and `NOTIFY`. It carries no payload: payloads are visible to every role.
pub const OUTBOX_CHANNEL: &str = "atrium_outbox";

#[derive(Clone)]
pub(super) struct Wake(Arc<Notify>);

impl Wake {
    pub(super) fn new(pool: Pool) -> Self {
        let pending = Arc::new(Notify::new());
        let weak = Arc::downgrade(&pending);
        tokio::spawn(async move {
            // Ends when the database handle that made it is gone.
            while let Some(pending) = weak.upgrade() {
                let waited =
                    tokio::time::timeout(std::time::Duration::from_secs(5), pending.notified()).await;
                if waited.is_ok()
                    && let Err(error) = notify(&pool).await
                {
                    tracing::debug!(%error, "the relay was not woken; its poll will find the message");
                }
            }
        });
        Self(pending)
    }

    /// There is something to publish.
    pub(super) fn relay(&self) {
        self.0.notify_one();
    }
}

/// Announces once, now.
pub(super) async fn notify(pool: &Pool) -> Result<(), sqlx::Error> {
    pool.run("NOTIFY atrium_outbox").await
}
