//! Distributes the events of the live streams, which one task reads, to the open event streams of this process.
//!
//! Chat events go into the ring of their shard. Events about operations and configurations become hints. After a gap
//! in a chat shard, its ring is reset, which its readers detect; after a gap in the hints, every stream that waits for
//! them is woken.

use std::{collections::HashMap, sync::Arc};

use atrium_shared::{
    configuration::ConfigurationStore,
    ids::{OrgId, ProjectId, SagaId, SessionId},
    messages::{OperationEntry, RevisionEntry, StreamEntry as _},
    streams::{CHAT_SHARDS, Live, TailEvent, chat_shard},
};
use parking_lot::Mutex;

use super::{
    hints::Hints,
    resume,
    ring::{Limits, Published, ResetReason, Ring},
};

/// The rings and hints that open streams read.
pub struct Hub {
    rings: Vec<Arc<Ring>>,
    operations: Arc<Hints<SagaId>>,
    configurations: Arc<Hints<OrgId>>,
    /// Announced revisions that this process has not applied yet.
    announced: Mutex<HashMap<OrgId, i64>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(Limits::SHARD)
    }
}

impl Hub {
    /// A hub without events.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            rings: (0..CHAT_SHARDS).map(|_| Arc::new(Ring::new(limits))).collect(),
            operations: Arc::default(),
            configurations: Arc::default(),
            announced: Mutex::default(),
        }
    }

    /// The ring of a project's chat.
    #[must_use]
    pub fn ring(&self, project: ProjectId) -> &Arc<Ring> {
        &self.rings[usize::from(chat_shard(project))]
    }

    /// Hints about operations.
    #[must_use]
    pub fn operations(&self) -> &Arc<Hints<SagaId>> {
        &self.operations
    }

    /// Hints about organizations' configurations.
    #[must_use]
    pub fn configurations(&self) -> &Arc<Hints<OrgId>> {
        &self.configurations
    }

    /// Distributes the events of one read. Events of one shard are put into its ring in one call, so that a burst wakes
    /// a stream once. `on_closed` is called with every session that was closed.
    pub fn dispatch(&self, events: &[TailEvent], mut on_closed: impl FnMut(SessionId)) {
        let mut chat: Vec<Vec<Published>> = self.rings.iter().map(|_| Vec::new()).collect();
        for event in events {
            match event {
                TailEvent::Entry { stream: Live::Chat(shard), id, fields } => {
                    let Some(published) = resume::decode(*id, fields) else {
                        tracing::warn!(stream = %Live::Chat(*shard), %id, "an event cannot be understood; it is left out");
                        continue;
                    };
                    if let Some(session) = published.frame.closes {
                        on_closed(session);
                    }
                    if let Some(shard) = chat.get_mut(usize::from(*shard)) {
                        shard.push(published);
                    }
                }
                TailEvent::Entry { stream: Live::Operation, fields, .. } => {
                    match OperationEntry::from_fields(fields) {
                        Ok(entry) => self.operations.hint(entry.operation),
                        // A malformed entry may be about any operation.
                        Err(_) => self.operations.hint_all(),
                    }
                }
                TailEvent::Entry { stream: Live::Config, fields, .. } => self.announce(fields),
                TailEvent::Gap { stream: Live::Chat(shard) } => {
                    let at = usize::from(*shard);
                    if let (Some(ring), Some(before)) = (self.rings.get(at), chat.get_mut(at)) {
                        ring.publish(before.drain(..));
                        tracing::warn!(stream = %Live::Chat(*shard), "events may have been missed; streams get a reset");
                        ring.reset(ResetReason::Gap);
                    }
                }
                TailEvent::Gap { stream: Live::Operation } => self.operations.hint_all(),
                // The store reconciles and notifies its subscribers of new snapshots.
                TailEvent::Gap { stream: Live::Config } => {}
            }
        }
        for (ring, events) in self.rings.iter().zip(chat) {
            ring.publish(events);
        }
    }

    fn announce(&self, fields: &HashMap<String, String>) {
        // After a malformed entry the store reconciles and notifies its subscribers of new snapshots.
        if let Ok(RevisionEntry { org, revision }) = RevisionEntry::from_fields(fields) {
            self.announced.lock().insert(org, revision);
        }
    }

    /// After a snapshot was swapped: sends hints about the announced revisions that are applied now. A change of the
    /// platform's default values concerns every organization.
    pub fn hint_applied(&self, configuration: &ConfigurationStore) {
        let mut applied = Vec::new();
        self.announced.lock().retain(|org, revision| {
            // If the store has no snapshot, no stream of this process uses the organization.
            let pending = configuration.held(*org).is_some_and(|snapshot| snapshot.revision() < *revision);
            if !pending {
                applied.push(*org);
            }
            pending
        });
        for org in applied {
            if org == OrgId::PLATFORM {
                self.configurations.hint_all();
            } else {
                self.configurations.hint(org);
            }
        }
    }
}
