//! Operations on the streams of dead letters, for operators.

use std::collections::HashMap;

use redis::{AsyncCommands as _, RedisResult, streams::StreamRangeReply};

use super::{Inbound, Redis, StreamId, lua, tail::text_fields};
use crate::{
    ids::{MessageId, OrgId},
    messages::{OutboxEntry, StreamEntry as _},
};

const PAGE: usize = 500;

/// An entry that was moved to the dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The stream that it was in.
    pub stream: Inbound,
    /// Its id in the stream of dead letters, which contains the time when it was moved.
    pub id: StreamId,
    /// Its fields without those that are not UTF-8, and also `dead_reason` and `dead_entry`, the id that it had before.
    pub fields: HashMap<String, String>,
}

impl DeadLetter {
    /// The organization and the id of the message, if the entry is a message of the outbox.
    #[must_use]
    pub fn message(&self) -> Option<(OrgId, MessageId)> {
        let entry = OutboxEntry::from_fields(&self.fields).ok()?;
        Some((entry.org, entry.message))
    }

    /// Why it was dead-lettered. `dead_letter.lua` adds the field.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.fields.get("dead_reason").map(String::as_str)
    }

    /// All dead letters of a stream, oldest first.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn all_of(redis: &Redis, stream: Inbound) -> RedisResult<Vec<Self>> {
        let (mut letters, mut from) = (Vec::new(), "-".to_owned());
        loop {
            let page: StreamRangeReply =
                redis.shared().xrange_count(stream.dead_letters(), &from, "+", PAGE).await?;
            let Some(last) = page.ids.last() else {
                return Ok(letters);
            };
            from = format!("({}", last.id);
            letters.extend(page.ids.into_iter().filter_map(|entry| {
                Some(Self { stream, id: entry.id.parse().ok()?, fields: text_fields(entry.map) })
            }));
        }
    }

    /// Moves the entry back to its stream, byte for byte. It is one script, so that a crash leaves the entry in exactly
    /// one of the two streams. Returns false when there is no such entry.
    ///
    /// # Errors
    /// When Redis is unavailable or out of memory.
    pub async fn replay(redis: &Redis, stream: Inbound, id: StreamId) -> RedisResult<bool> {
        lua::REPLAY
            .key(stream.to_string())
            .key(stream.dead_letters())
            .arg(id.to_string())
            .invoke_async(&mut redis.shared())
            .await
    }

    /// Deletes an entry. Returns false when there is no such entry.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn remove(redis: &Redis, stream: Inbound, id: StreamId) -> RedisResult<bool> {
        redis.shared().xdel(stream.dead_letters(), &[id.to_string()]).await
    }
}
