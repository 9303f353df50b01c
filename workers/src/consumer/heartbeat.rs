//! Heartbeats: while a message is handled, the idle time of its entry is reset in short intervals, so that nobody
//! claims it.
//!
//! An entry is held as long as its [`Hold`] lives, hence no longer than the task that handles it, however that ends. A
//! process that stops or dies sends no heartbeats.

use std::{collections::BTreeSet, convert::Infallible, sync::Arc};

use atrium_shared::streams::{Acknowledger, StreamId};
use parking_lot::{Mutex, MutexGuard};

use crate::timings::ENTRY_HEARTBEAT_INTERVAL;

/// The entries that this consumer works on. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct InHand(Arc<Mutex<BTreeSet<StreamId>>>);

/// An entry is worked on while this lives.
pub(super) struct Hold {
    in_hand: InHand,
    id: StreamId,
}

impl InHand {
    /// None when it is in hand already.
    pub(super) fn hold(&self, id: StreamId) -> Option<Hold> {
        self.locked().insert(id).then(|| Hold { in_hand: self.clone(), id })
    }

    /// Sends heartbeats, three in the time after which an entry is claimed.
    pub(super) async fn beat(&self, acknowledger: &Acknowledger) -> Infallible {
        let mut ticks = tokio::time::interval(ENTRY_HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let ids: Vec<StreamId> = self.locked().iter().copied().collect();
            if ids.is_empty() {
                continue;
            }
            match acknowledger.keep(&ids).await {
                Ok(kept) if kept == ids.len() => {}
                // Some may have been ended just now. Of those that went to others nothing can be committed here.
                Ok(kept) => tracing::debug!(kept, of = ids.len(), "not every entry in hand is ours"),
                Err(error) => {
                    tracing::debug!(%error, "a heartbeat was not sent; others may claim our entries");
                }
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeSet<StreamId>> {
        self.0.lock()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.in_hand.locked().remove(&self.id);
    }
}
