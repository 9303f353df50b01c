//! From the one reader of all live streams to everybody who waits in this process.
//!
//! Chat events go into their shard's ring. Operations and configurations are hints. A gap in a chat shard makes its
//! ring begin anew, which tells its readers; a gap in the hints wakes every stream that waits for them.

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

/// Everything that open streams wait for.
pub struct Hub {
    rings: Vec<Arc<Ring>>,
    operations: Arc<Hints<SagaId>>,
    configurations: Arc<Hints<OrgId>>,
    /// Revisions that were announced, and that this process does not apply yet.
    announced: Mutex<HashMap<OrgId, i64>>,
}

impl Default for Hub {
    fn default() -> Self {
        Self::new(Limits::SHARD)
    }
}

impl Hub {
    /// A hub that nothing has come to yet.
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

    /// Passes on what came in one read. Events of one shard are put into the ring together, so that a burst wakes
    /// a stream once. `on_closed` is called with every session whose end passes by.
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
                        tracing::warn!(stream = %Live::Chat(*shard), "events may have been missed; streams are told");
                        ring.reset(ResetReason::Gap);
                    }
                }
                TailEvent::Gap { stream: Live::Operation } => self.operations.hint_all(),
                // The store reconciles, and tells when something was swapped.
                TailEvent::Gap { stream: Live::Config } => {}
            }
        }
        for (ring, events) in self.rings.iter().zip(chat) {
            ring.publish(events);
        }
    }

    fn announce(&self, fields: &HashMap<String, String>) {
        // The store reconciles after a malformed entry, and tells when something was swapped.
        if let Ok(RevisionEntry { org, revision }) = RevisionEntry::from_fields(fields) {
            self.announced.lock().insert(org, revision);
        }
    }

    /// Some snapshot was swapped: hints about those that were announced and are applied now. The default values of
    /// the platform are everybody's.
    pub fn applied(&self, configuration: &ConfigurationStore) {
        let mut applied = Vec::new();
        self.announced.lock().retain(|org, revision| {
            // What is not held belongs to an organization nobody uses here.
            let waits = configuration.held(*org).is_some_and(|snapshot| snapshot.revision() < *revision);
            if !waits {
                applied.push(*org);
            }
            waits
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
