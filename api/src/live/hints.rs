//! Hints: wake-ups that make a stream read its source again. Streams that read PostgreSQL or a snapshot wait for them.
//!
//! A hint carries no data and may be lost, because every such stream also polls.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use super::{open_streams::OpenStream, slots::Slots};

/// The streams that wait for hints, by the key of what they show.
#[derive(Debug)]
pub struct Hints<K: Copy + Eq + Hash> {
    waiting: Mutex<HashMap<K, Slots<Arc<OpenStream>>>>,
}

impl<K: Copy + Eq + Hash> Default for Hints<K> {
    fn default() -> Self {
        Self { waiting: Mutex::default() }
    }
}

impl<K: Copy + Eq + Hash> Hints<K> {
    /// Sends a stream the hints about `key` until the returned guard is dropped.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, key: K, stream: Arc<OpenStream>) -> HintSubscription<K> {
        let slot = self.lock().entry(key).or_default().insert(stream);
        HintSubscription { hints: Arc::clone(self), key, slot }
    }

    /// Wakes the streams about `key`: it has changed.
    pub fn hint(&self, key: K) {
        for stream in self.lock().get(&key).into_iter().flat_map(Slots::iter) {
            stream.notify();
        }
    }

    /// Wakes all streams, because anything may have changed.
    pub fn hint_all(&self) {
        for stream in self.lock().values().flat_map(Slots::iter) {
            stream.notify();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Slots<Arc<OpenStream>>>> {
        self.waiting.lock()
    }
}

/// A stream's subscription to hints. It ends when this is dropped.
#[derive(Debug)]
pub struct HintSubscription<K: Copy + Eq + Hash> {
    hints: Arc<Hints<K>>,
    key: K,
    slot: usize,
}

impl<K: Copy + Eq + Hash> Drop for HintSubscription<K> {
    fn drop(&mut self) {
        let mut waiting = self.hints.lock();
        if let Some(slots) = waiting.get_mut(&self.key) {
            slots.remove(self.slot);
            if slots.is_empty() {
                waiting.remove(&self.key);
            }
        }
    }
}
