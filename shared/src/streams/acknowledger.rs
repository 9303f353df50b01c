//! What a consumer does with an entry that it was given, other than its work.
//!
//! Redis has no fencing: a consumer that was stopped for a while, and whose entry was claimed by another meanwhile,
//! could still acknowledge, claim or delete it. So everything that requires the entry to be ours is one script that
//! first checks in whose name it is pending. Acknowledging is not: a consumer that has committed the effect, or found
//! it done, may end the entry, whoever has it.

use std::time::Duration;

use redis::{
    AsyncCommands as _, RedisResult,
    streams::{StreamPendingCountReply, StreamPendingId},
};

use super::{GROUP, Inbound, Redis, StreamId, lua};

/// The minimum number of dead letters that a stream keeps. Older ones remain in PostgreSQL, if they came from the
/// outbox.
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

    /// How often an entry was delivered; none when it is not pending in this consumer's name .
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn deliveries(&self, id: StreamId) -> RedisResult<Option<usize>> {
        let (stream, id) = (self.stream.to_string(), id.to_string());
        let reply: StreamPendingCountReply =
            self.redis.shared().xpending_consumer_count(stream, GROUP, &id, &id, 1, &self.consumer).await?;
        Ok(reply.ids.first().map(|StreamPendingId { times_delivered, .. }| *times_delivered))
    }

    /// Resets the idle time of entries in progress, so that no consumer claims them. Returns how many are pending in
    /// this consumer's name; the others belong to other consumers.
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

    /// Hands an unfinished entry over: consumers that claim entries idle for `idle` can claim it immediately, and this
    /// delivery does not count.
    ///
    /// # Errors
    /// When Redis is unavailable: the entry is claimed later, as a dead consumer's is.
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

    /// Takes an entry off the pending list, and out of the stream: acknowledging alone would free no memory.
    ///
    /// # Errors
    /// When Redis is unavailable: the entry will be delivered again, and found in the inbox.
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

    /// Moves an entry to the stream of dead letters, byte for byte, with the reason. False: it is not pending in this
    /// consumer's name, and nothing was done.
    ///
    /// A script is not taken back when a command in it fails, as `XADD` does when Redis is out of memory: so it adds
    /// first, and what could not be added stays pending.
    ///
    /// # Errors
    /// When Redis is unavailable, or has no memory left.
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
