//! What a consumer does with an entry that was delivered to it, other than its work.
//!
//! Redis checks no fencing token: a consumer that was paused for a while may acknowledge, claim or delete an entry that
//! another consumer has claimed meanwhile. So every operation that requires the entry to be pending for this consumer
//! is one script that first checks this. Acknowledging does not require it: a consumer that has committed the effect,
//! or found it committed, may end the entry even if another consumer has claimed it.

use std::time::Duration;

use redis::{
    AsyncCommands as _, RedisResult,
    streams::{StreamPendingCountReply, StreamPendingId},
};

use super::{GROUP, Inbound, Redis, StreamId, lua};

/// The minimum number of dead letters that a stream keeps. PostgreSQL still has those that are trimmed, if they came
/// from the outbox.
const DEAD_LETTERS_KEPT: usize = 10_000;

/// Ends entries of an inbound stream, over the shared connection: the consumer's own is blocked in a read. Cheap to
/// clone.
#[derive(Clone)]
pub struct Acknowledger {
    redis: Redis,
    stream: Inbound,
    consumer: String,
}

impl Acknowledger {
    pub(super) fn new(redis: Redis, stream: Inbound, consumer: &str) -> Self {
        Self { redis, stream, consumer: consumer.to_owned() }
    }

    /// How often an entry was delivered; none when it is not pending for this consumer.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn deliveries(&self, id: StreamId) -> RedisResult<Option<usize>> {
        let (stream, id) = (self.stream.to_string(), id.to_string());
        let reply: StreamPendingCountReply =
            self.redis.shared().xpending_consumer_count(stream, GROUP, &id, &id, 1, &self.consumer).await?;
        Ok(reply.ids.first().map(|StreamPendingId { times_delivered, .. }| *times_delivered))
    }

    /// Resets the idle time of entries that are still being worked on, so that no other consumer claims them. Returns
    /// how many are pending for this consumer; the others are not changed.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn keep(&self, ids: &[StreamId]) -> RedisResult<usize> {
        let mut call = lua::KEEP.prepare_invoke();
        call.key(self.stream.to_string()).arg(GROUP).arg(&self.consumer);
        for id in ids {
            call.arg(id.to_string());
        }
        call.invoke_async(&mut self.redis.shared()).await
    }

    /// Returns an unfinished entry: a consumer that claims entries idle for `idle` can claim it immediately, and this
    /// delivery is not counted.
    ///
    /// # Errors
    /// When Redis is unavailable: the entry is claimed later, like the entries of a dead consumer.
    pub async fn hand_over(&self, id: StreamId, idle: Duration) -> RedisResult<()> {
        lua::HAND_OVER
            .key(self.stream.to_string())
            .arg(GROUP)
            .arg(&self.consumer)
            .arg(id.to_string())
            .arg(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX))
            .invoke_async(&mut self.redis.shared())
            .await
    }

    /// Removes an entry from the pending list and from the stream: acknowledging alone would free no memory.
    ///
    /// # Errors
    /// When Redis is unavailable: the entry will be delivered again, and the inbox shows that it was handled.
    pub async fn acknowledge(&self, id: StreamId) -> RedisResult<()> {
        let (stream, id) = (self.stream.to_string(), id.to_string());
        redis::pipe()
            .atomic()
            .xack(&stream, GROUP, &[&id])
            .ignore()
            .xdel(&stream, &[&id])
            .ignore()
            .query_async(&mut self.redis.shared())
            .await
    }

    /// Moves an entry to the stream of dead letters, byte for byte, with the reason. Returns false, and does nothing,
    /// when the entry is not pending for this consumer.
    ///
    /// A script is not rolled back when one of its commands fails, as `XADD` does when Redis is out of memory. So it
    /// adds first, and an entry that could not be added stays pending.
    ///
    /// # Errors
    /// When Redis is unavailable or out of memory.
    pub async fn dead_letter(&self, id: StreamId, reason: &str) -> RedisResult<bool> {
        lua::DEAD_LETTER
            .key(self.stream.to_string())
            .key(self.stream.dead_letters())
            .arg(GROUP)
            .arg(&self.consumer)
            .arg(id.to_string())
            .arg(reason)
            .arg(DEAD_LETTERS_KEPT)
            .invoke_async(&mut self.redis.shared())
            .await
    }
}
