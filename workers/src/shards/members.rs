//! Who plays a role: a sorted set in Redis, where every process says again and again that it lives. By Redis' clock,
//! so that those of the processes do not matter. Lost with a flush, and whole again with the next beats.

use std::time::Duration;

use atrium_shared::streams::{Redis, shard_processes_key};
use redis::{AsyncCommands as _, RedisResult, Script};

/// KEYS: the set. ARGV: this process, milliseconds of silence after which one is gone. One that spoke later than now
/// did so before the clock was set back; if it lives, it will say so again.
const BEAT: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    redis.call('ZADD', KEYS[1], now, ARGV[1])
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
    return redis.call('ZRANGE', KEYS[1], 0, -1)";

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
        let script = Script::new(BEAT);
        let silent_after = u64::try_from(silent_after.as_millis()).unwrap_or(u64::MAX);
        script.key(&self.key).arg(&self.owner).arg(silent_after).invoke_async(&mut self.redis.shared()).await
    }

    /// Says that this process is about to end.
    pub(super) async fn leave(&self) -> RedisResult<()> {
        self.redis.shared().zrem(&self.key, &self.owner).await
    }
}
