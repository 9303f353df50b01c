//! The processes of a role: a sorted set in Redis, in which every process regularly records that it is alive. The times
//! are those of Redis, so the clocks of the processes do not matter. A flush empties the set; the next heartbeats fill
//! it.

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

    /// Says that this process lives. Returns everybody who does, in no order.
    pub(super) async fn beat(&self, silent_after: Duration) -> RedisResult<Vec<String>> {
        let silent_after = u64::try_from(silent_after.as_millis()).unwrap_or(u64::MAX);
        lua::MEMBERS_BEAT
            .key(&self.key)
            .arg(&self.owner)
            .arg(silent_after)
            .invoke_async(&mut self.redis.shared())
            .await
    }

    /// Says that this process is about to end.
    pub(super) async fn leave(&self) -> RedisResult<()> {
        self.redis.shared().zrem(&self.key, &self.owner).await
    }
}
