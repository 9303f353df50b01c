//! Wakes the relay after a commit.
//!
//! `NOTIFY` inside a transaction makes commits wait for each other, so it is sent as a separate statement, from a task
//! that combines a burst of commits into one notification. It is only a hint: the relay also polls.

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
            // Ends when the last handle of the database is dropped.
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

    /// Notifies the relay that there is a message to publish.
    pub(super) fn relay(&self) {
        self.0.notify_one();
    }
}

/// Sends one notification.
pub(super) async fn notify(pool: &Pool) -> Result<(), sqlx::Error> {
    pool.run("NOTIFY atrium_outbox").await
}
