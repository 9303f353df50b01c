//! Sends heartbeats: while a message is handled, the idle time of its entry is reset in short intervals, so that no
//! other consumer claims it.
//!
//! An entry gets heartbeats as long as its [`ActiveEntry`] exists, so no longer than the task that handles it, even if
//! that task panics. A process that stops or dies sends no heartbeats.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use atrium_shared::streams::{Acknowledger, StreamId};
use parking_lot::{Mutex, MutexGuard};

use crate::timings::ENTRY_HEARTBEAT_INTERVAL;

/// The entries that this consumer is handling. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct ActiveEntries(Arc<Mutex<BTreeSet<StreamId>>>);

/// An entry that is being handled. Dropping it ends its heartbeats.
pub(super) struct ActiveEntry {
    active: ActiveEntries,
    id: StreamId,
}

impl ActiveEntries {
    /// Adds an entry. Returns `None` if this consumer is already handling it.
    pub(super) fn insert(&self, id: StreamId) -> Option<ActiveEntry> {
        self.lock().insert(id).then(|| ActiveEntry { active: self.clone(), id })
    }

    /// Sends heartbeats, three within the time after which an entry may be claimed.
    pub(super) async fn send_heartbeats(&self, acknowledger: &Acknowledger) -> Infallible {
        let mut ticks = tokio::time::interval(ENTRY_HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let ids: Vec<StreamId> = self.lock().iter().copied().collect();
            if ids.is_empty() {
                continue;
            }
            match acknowledger.keep(&ids).await {
                Ok(kept) if kept == ids.len() => {}
                // Some entries may just have been acknowledged. For entries that another consumer has claimed, nothing
                // can be committed here.
                Ok(kept) => tracing::debug!(kept, of = ids.len(), "not every entry in hand is ours"),
                Err(error) => {
                    tracing::debug!(%error, "a heartbeat was not sent; others may claim our entries");
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<StreamId>> {
        self.0.lock()
    }
}

impl Drop for ActiveEntry {
    fn drop(&mut self) {
        self.active.lock().remove(&self.id);
    }
}
