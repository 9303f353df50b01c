//! Messages of the outbox, which are stored in the transaction that causes them, and delivered at least once.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use strum::{EnumCount, IntoStaticStr, VariantArray};
use uuid::Uuid;

use super::{StreamEntry, entry::as_text};
use crate::ids::{MessageId, OrgId};

/// The kind of a message, which decides the stream that it is published to and the worker that consumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type, EnumCount, IntoStaticStr, VariantArray)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Topic {
    /// A saga has work to do.
    Saga,
    /// An organization's configuration has a new revision.
    Config,
    /// A chat event that must not be lost, such as the end of a session.
    Chat,
}

impl Topic {
    /// All topics.
    pub const ALL: [Self; Self::COUNT] = match Self::VARIANTS.first_chunk() {
        Some(all) => *all,
        None => unreachable!(),
    };

    /// The name, as in SQL, stream names and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// A message of the outbox. The type determines its topic and the type of its aggregate, so that no other combination
/// compiles.
pub trait OutboxMessage: Serialize + DeserializeOwned + Sync {
    /// Its topic.
    const TOPIC: Topic;
    /// The id of what it is about; messages about one aggregate keep their order.
    type Aggregate: Into<Uuid> + Send;
}

/// A message of the outbox as the relay adds it to a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// The message's id, which the inbox records.
    pub message: MessageId,
    /// The organization.
    pub org: OrgId,
    /// Its row in the outbox.
    #[serde(with = "as_text")]
    pub outbox: i64,
    /// The message itself, JSON of a type that belongs to the stream's topic.
    pub payload: String,
}

impl StreamEntry for OutboxEntry {}
