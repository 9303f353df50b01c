//! The streams of dead letters, as an operator looks at them.

use std::collections::HashMap;

use redis::{AsyncCommands as _, RedisResult, streams::StreamRangeReply};

use super::{Inbound, Redis, StreamId, lua, tail::text_fields};
use crate::{
    ids::{MessageId, OrgId},
    messages::{OutboxEntry, StreamEntry as _},
};

const PAGE: usize = 500;

/// An entry that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The stream that it was in.
    pub stream: Inbound,
    /// Its id in the stream of dead letters: when it was given up.
    pub id: StreamId,
    /// Its fields, and with them `dead_reason`, and `dead_entry`, the id that it had before; one that is not UTF-8 is
    /// left out.
    pub fields: HashMap<String, String>,
}

impl DeadLetter {
    /// Whose message it is, and which, if it is one.
    #[must_use]
    pub fn message(&self) -> Option<(OrgId, MessageId)> {
        let entry = OutboxEntry::from_fields(&self.fields).ok()?;
        Some((entry.org, entry.message))
    }

    /// Why it was given up. `dead_letter.lua` adds the field.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.fields.get("dead_reason").map(String::as_str)
    }

    /// All of a stream's, the oldest first.
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

    /// Puts the entry back into its stream, byte for byte, in one step, so that it is in exactly one of the two after
    /// any crash. False: it no longer exists.
    ///
    /// # Errors
    /// When Redis is unavailable, or has no memory left.
    pub async fn replay(redis: &Redis, stream: Inbound, id: StreamId) -> RedisResult<bool> {
        lua::REPLAY
            .key(stream.to_string())
            .key(stream.dead_letters())
            .arg(id.to_string())
            .invoke_async(&mut redis.shared())
            .await
    }

    /// Removes an entry for good. False: it no longer exists.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn remove(redis: &Redis, stream: Inbound, id: StreamId) -> RedisResult<bool> {
        redis.shared().xdel(stream.dead_letters(), &[id.to_string()]).await
    }
}
