//! The streams of dead letters, as an operator looks at them.

use std::collections::HashMap;

use redis::{AsyncCommands as _, RedisResult, Script, streams::StreamRangeReply};

use super::{Inbound, Redis, StreamId, tail::text_fields};
use crate::ids::{MessageId, OrgId};

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
        Some((self.fields.get("org")?.parse().ok()?, self.fields.get("message")?.parse().ok()?))
    }

    /// All of a stream's, the oldest first.
    ///
    /// # Errors
    /// When Redis is away.
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

    /// Puts the entry back into its stream, byte for byte, in one step, so that it is in one of the two whoever dies.
    /// False: it is not there any more.
    ///
    /// # Errors
    /// When Redis is away, or has no memory left.
    pub async fn replay(redis: &Redis, stream: Inbound, id: StreamId) -> RedisResult<bool> {
        let script = Script::new(
            "local entry = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])[1]
             if not entry then return 0 end
             -- Without the reason and the former id, which were added at its end.
             redis.call('XADD', KEYS[1], '*', unpack(entry[2], 1, #entry[2] - 4))
             return redis.call('XDEL', KEYS[2], ARGV[1])",
        );
        script
            .key(stream.to_string())
            .key(stream.dead_letters())
            .arg(id.to_string())
            .invoke_async(&mut redis.shared())
            .await
    }

    /// Removes an entry for good. False: it is not there any more.
    ///
    /// # Errors
    /// When Redis is away.
    pub async fn remove(redis: &Redis, stream: Inbound, id: StreamId) -> RedisResult<bool> {
        redis.shared().xdel(stream.dead_letters(), &[id.to_string()]).await
    }
}
