//! Keeps the list of the live processes of a role: a sorted set in Redis, to which every process regularly adds the
//! time of its last heartbeat. All times come from Redis, so the clocks of the processes do not matter. After a flush,
//! the next heartbeats fill the set again.

use std::time::Duration;

use atrium_shared::streams::{Redis, lua, shard_processes_key};
use redis::{AsyncCommands as _, RedisResult};

pub(super) struct Members {
    redis: Redis,
    key: String,
    owner: String,
}

impl Members {
    pub(super) fn new(redis: Redis, role: &str, owner: &str) -> Self {
        Self { redis, key: shard_processes_key(role), owner: owner.to_owned() }
    }

    /// Records that this process is alive. Returns all live processes in arbitrary order.
    pub(super) async fn heartbeat(&self, timeout: Duration) -> RedisResult<Vec<String>> {
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        lua::MEMBERS_HEARTBEAT
            .key(&self.key)
            .arg(&self.owner)
            .arg(timeout)
            .invoke_async(&mut self.redis.shared())
            .await
    }

    /// Removes this process from the set, because it is about to end.
    pub(super) async fn leave(&self) -> RedisResult<()> {
        self.redis.shared().zrem(&self.key, &self.owner).await
    }
}
