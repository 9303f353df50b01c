//! Hints: something about a thing has changed, look again. Streams that read a database or a snapshot wait here.
//!
//! A hint carries nothing and may be lost; a poll stands behind it.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use super::{open_streams::OpenStream, slots::Slots};

/// The streams that wait for hints, by what they are about.
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
    /// Lets a stream hear hints about a thing, until the answer is dropped.
    #[must_use]
    pub fn listen(self: &Arc<Self>, about: K, stream: Arc<OpenStream>) -> Listening<K> {
        let slot = self.lock().entry(about).or_default().insert(stream);
        Listening { hints: Arc::clone(self), about, slot }
    }

    /// A thing has changed.
    pub fn hint(&self, about: K) {
        for stream in self.lock().get(&about).into_iter().flat_map(Slots::iter) {
            stream.news();
        }
    }

    /// Anything may have changed.
    pub fn hint_all(&self) {
        for stream in self.lock().values().flat_map(Slots::iter) {
            stream.news();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Slots<Arc<OpenStream>>>> {
        self.waiting.lock()
    }
}

/// A stream hears hints as long as this lives.
#[derive(Debug)]
pub struct Listening<K: Copy + Eq + Hash> {
    hints: Arc<Hints<K>>,
    about: K,
    slot: usize,
}

impl<K: Copy + Eq + Hash> Drop for Listening<K> {
    fn drop(&mut self) {
        let mut waiting = self.hints.lock();
        if let Some(slots) = waiting.get_mut(&self.about) {
            slots.remove(self.slot);
            if slots.is_empty() {
                waiting.remove(&self.about);
            }
        }
    }
}
