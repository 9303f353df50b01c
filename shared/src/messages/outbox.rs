//! The outbox: messages that are written in the transaction of their cause, and delivered at least once.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use strum::{EnumCount, IntoStaticStr, VariantArray};
use uuid::Uuid;

use super::{StreamEntry, entry::as_text};
use crate::ids::{MessageId, OrgId};

/// What a message is for; decides which stream it goes to and which worker consumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type, EnumCount, IntoStaticStr, VariantArray)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Topic {
    /// A saga has something to do.
    Saga,
    /// An organization's configuration has a new revision.
    Config,
    /// An event for a project's chat that must not be lost, such as a session's end.
    Chat,
}

impl Topic {
    /// All of them.
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

/// A message of the outbox. The type fixes its topic and what it is about, so that no other pair compiles.
pub trait OutboxMessage: Serialize + DeserializeOwned + Sync {
    /// Where it goes.
    const TOPIC: Topic;
    /// What it is about: messages about one aggregate keep their order.
    type Aggregate: Into<Uuid> + Send;
}

/// A message of the outbox as the relay adds it to a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// The message's id, the key of its inbox row.
    pub message: MessageId,
    /// Whose it is.
    pub org: OrgId,
    /// Its row in the outbox.
    #[serde(with = "as_text")]
    pub outbox: i64,
    /// The message itself as JSON, of the type that belongs to the stream's topic.
    pub payload: String,
}

impl StreamEntry for OutboxEntry {}
