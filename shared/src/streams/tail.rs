//! Reads live streams completely, with one connection and one `XREAD` for all of them.
//!
//! A thousand readers blocked on one stream would make every `XADD` wait for a thousand wake-ups, so a process reads
//! each live stream once and fans out in memory. `XREAD` from an id that was trimmed silently starts at the first
//! remaining entry; a flush, or an older dump, silently starts another history. Replies show neither. So after every
//! connect, and while the streams are quiet, the tail checks that the entry at its cursor still exists, and reports a
//! gap if it does not.

use std::{collections::HashMap, fmt, str::FromStr, time::Duration};

use redis::{
    AsyncCommands as _, FromRedisValue as _, RedisResult,
    aio::MultiplexedConnection,
    streams::{StreamRangeReply, StreamReadOptions, StreamReadReply},
};
use tokio::time::Instant;

use super::{Live, Redis, client::BLOCK};

/// How often a quiet tail checks that its streams still have the history that it has read.
const VERIFY_INTERVAL: Duration = Duration::from_secs(5);
const PAGE: usize = 500;

/// An entry's id: milliseconds and a sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// Milliseconds since 1970 by Redis' clock; never decreases within a stream.
    pub ms: u64,
    /// The number within one millisecond.
    pub seq: u64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// The text is not a stream id.
#[derive(Debug, thiserror::Error)]
#[error("not a stream id: two whole numbers with a hyphen between them")]
pub struct StreamIdError;

impl FromStr for StreamId {
    type Err = StreamIdError;

    fn from_str(text: &str) -> Result<Self, StreamIdError> {
        let (ms, seq) = text.split_once('-').ok_or(StreamIdError)?;
        // `parse` alone would accept "+1".
        if !ms.bytes().chain(seq.bytes()).all(|byte| byte.is_ascii_digit()) {
            return Err(StreamIdError);
        }
        Ok(Self { ms: ms.parse().map_err(|_| StreamIdError)?, seq: seq.parse().map_err(|_| StreamIdError)? })
    }
}

/// What a tail saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailEvent {
    /// The next entry of a stream.
    Entry {
        /// Which stream.
        stream: Live,
        /// The entry's id.
        id: StreamId,
        /// Its fields, without those that are not UTF-8.
        fields: HashMap<String, String>,
    },
    /// Entries of this stream may have been missed: it was trimmed past the cursor, or its history was lost.
    Gap {
        /// Which stream.
        stream: Live,
    },
}

/// A reader with a position in each of several live streams.
pub struct Tail {
    redis: Redis,
    cursors: Vec<(Live, Option<StreamId>)>,
    connection: Option<MultiplexedConnection>,
    verified_at: Instant,
    failures: u32,
}

impl Tail {
    /// A tail that starts with the first entry added after it connects.
    #[must_use]
    pub fn new(redis: Redis, streams: impl IntoIterator<Item = Live>) -> Self {
        Self {
            redis,
            cursors: streams.into_iter().map(|stream| (stream, None)).collect(),
            connection: None,
            verified_at: Instant::now(),
            failures: 0,
        }
    }

    /// Waits for new entries. Never fails: while Redis is unavailable it retries, and then reports gaps. Regularly
    /// returns no events, so that the caller can check for cancellation.
    pub async fn next(&mut self) -> Vec<TailEvent> {
        match self.try_next().await {
            Ok(events) => {
                self.failures = 0;
                events
            }
            Err(error) => {
                if self.failures == 0 {
                    tracing::warn!(%error, "live streams cannot be read; trying again");
                }
                self.connection = None;
                self.failures = self.failures.saturating_add(1);
                tokio::time::sleep(Duration::from_millis(50 * u64::from(self.failures.min(20)))).await;
                Vec::new()
            }
        }
    }

    async fn try_next(&mut self) -> RedisResult<Vec<TailEvent>> {
        let Some(mut connection) = self.connection.take() else {
            let mut connection = self.redis.dedicated().await?;
            let gaps = self.verify(&mut connection).await?;
            self.connection = Some(connection);
            if self.failures > 0 {
                tracing::info!("live streams can be read again");
            }
            return Ok(gaps);
        };

        let names: Vec<String> = self.cursors.iter().map(|(stream, _)| stream.to_string()).collect();
        let cursors: Vec<String> =
            self.cursors.iter().map(|(_, cursor)| cursor.unwrap_or_default().to_string()).collect();
        let block = usize::try_from(BLOCK.as_millis()).unwrap_or(1000);
        let options = StreamReadOptions::default().block(block).count(PAGE);
        let reply: Option<StreamReadReply> = connection.xread_options(&names, &cursors, &options).await?;

        let mut events = Vec::new();
        for key in reply.into_iter().flat_map(|reply| reply.keys) {
            let Some(at) = names.iter().position(|name| *name == key.key) else {
                continue;
            };
            let (stream, cursor) = &mut self.cursors[at];
            for entry in key.ids {
                let Ok(id) = entry.id.parse() else { continue };
                *cursor = Some(id);
                events.push(TailEvent::Entry { stream: *stream, id, fields: text_fields(entry.map) });
            }
        }
        if events.is_empty() && self.verified_at.elapsed() > VERIFY_INTERVAL {
            events = self.verify(&mut connection).await?;
        }
        self.connection = Some(connection);
        Ok(events)
    }

    /// Checks that the entry at every cursor exists. A stream without a cursor gets the id of its newest entry: Redis
    /// evaluates `$` anew at every read, which would skip entries that were added between two reads.
    async fn verify(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<Vec<TailEvent>> {
        let mut queries = redis::pipe();
        for (stream, cursor) in &self.cursors {
            let (stream, at) = (stream.to_string(), cursor.unwrap_or_default().to_string());
            queries.xrevrange_count(&stream, "+", "-", 1).xrange_count(&stream, &at, &at, 1);
        }
        let replies: Vec<StreamRangeReply> = queries.query_async(connection).await?;

        let mut gaps = Vec::new();
        for ((stream, cursor), reply) in self.cursors.iter_mut().zip(replies.chunks_exact(2)) {
            let last = reply[0].ids.first().and_then(|entry| entry.id.parse().ok()).unwrap_or_default();
            let at = *cursor.get_or_insert(last);
            // The entry is missing when it was trimmed, possibly together with unread ones, or when Redis lost it and
            // continues with another history. The position 0-0 has no entry.
            let exists = at == StreamId::default() || !reply[1].ids.is_empty();
            if !exists {
                gaps.push(TailEvent::Gap { stream: *stream });
                *cursor = Some(at.min(last));
            }
        }
        self.verified_at = Instant::now();
        Ok(gaps)
    }
}

/// The fields of an entry that are UTF-8.
#[must_use]
pub fn text_fields(map: HashMap<String, redis::Value>) -> HashMap<String, String> {
    map.into_iter().filter_map(|(name, value)| Some((name, String::from_redis_value(value).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::StreamId;

    #[test]
    fn stream_ids_are_ordered_and_parsed_strictly() {
        let id = |text: &str| text.parse::<StreamId>().ok();
        assert!(id("9-0") < id("10-0") && id("10-1") < id("10-2"));
        assert_eq!(id("1700000000000-7").map(|id| id.to_string()).as_deref(), Some("1700000000000-7"));
        for wrong in ["", "-", "1", "1-", "-1", "+1-0", "1-+0", "1-0-0", "99999999999999999999-0", "1-0 "] {
            assert!(id(wrong).is_none(), "{wrong:?}");
        }
    }
}
