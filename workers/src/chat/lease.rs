//! The lease of a chat shard: the right to publish its actions, for a few seconds at a time.
//!
//! The lease is kept in Redis together with the stream that it guards, so that both are lost together. Its value is a
//! random token for this owner and this lease, the fencing token that the publishing script compares.
//!
//! Redis also keeps the shard's epoch, of two parts with eight hexadecimal digits each. The first, the *history*, is
//! made when there is none (at the first start, or after a flush). The second changes when a restart of Redis may have
//! lost events, for example because it loaded an older dump. Nothing was lost if the stream still ends with the event
//! that the owner published last, the *tip*. Clients that resume compare the whole epoch, because there must be no gap
//! after their position. Counting compares the history alone: an entry that survived a restart keeps the id under which
//! it was counted.

use std::time::Duration;

use atrium_shared::streams::{Live, Redis, chat_epoch_key, chat_lease_key, chat_run_key, lua};
use redis::RedisResult;
use tokio::time::Instant;

use crate::timings::{CHAT_LEASE, CHAT_LEASE_RENEWAL};

pub(super) struct Lease {
    redis: Redis,
    shard: u16,
    pub(super) token: String,
    pub(super) epoch: String,
    /// The live stream's last event; empty while there is none.
    pub(super) tip: String,
    renewed_at: Instant,
}

impl Lease {
    /// Takes the lease if it is free, or if it is still the one that this owner `left` before it expired. Begins a new
    /// epoch if events may have been lost.
    ///
    /// Redis stores the expiry as wall-clock time. If its clock is set back, the lease of a dead owner would last longer
    /// by that much; so a lease that expires later than a new one would counts as expired.
    pub(super) async fn acquire(
        redis: &Redis,
        shard: u16,
        owner: &str,
        left: Option<&Left>,
    ) -> RedisResult<Option<Self>> {
        let left = left.filter(|left| Instant::now() < left.until);
        let (former, tip) = left.map_or(("", "unknown"), |left| (&left.token, &left.tip));
        let token = format!("{owner}/{:016x}", rand::random::<u64>());
        let eight_digits = || format!("{:08x}", rand::random::<u32>());
        let taken: Option<(String, String)> = lua::CHAT_ACQUIRE
            .key(chat_lease_key(shard))
            .key(chat_epoch_key(shard))
            .key(chat_run_key(shard))
            .key(Live::Chat(shard).to_string())
            .arg(&token)
            .arg(milliseconds(CHAT_LEASE))
            .arg(run(redis).await?)
            .arg(tip)
            .arg(eight_digits())
            .arg(eight_digits())
            .arg(former)
            .invoke_async(&mut redis.shared())
            .await?;
        let redis = redis.clone();
        Ok(taken.map(|(epoch, tip)| Self { redis, shard, token, epoch, tip, renewed_at: Instant::now() }))
    }

    /// The part of the epoch that stays the same over restarts of Redis.
    pub(super) fn history(&self) -> &str {
        self.epoch.get(..8).unwrap_or(&self.epoch)
    }

    /// Extends the lease if that is due. Returns false if another owner has it.
    pub(super) async fn renew(&mut self) -> RedisResult<bool> {
        if self.renewed_at.elapsed() < CHAT_LEASE_RENEWAL {
            return Ok(true);
        }
        let held: bool = lua::CHAT_RENEW
            .key(chat_lease_key(self.shard))
            .arg(&self.token)
            .arg(milliseconds(CHAT_LEASE))
            .invoke_async(&mut self.redis.shared())
            .await?;
        if held {
            self.renewed_at = Instant::now();
        }
        Ok(held)
    }

    /// Releases the lease, so that another worker does not have to wait until it expires. If this fails, it expires.
    pub(super) async fn release(self) -> RedisResult<()> {
        lua::CHAT_RELEASE
            .key(chat_lease_key(self.shard))
            .arg(&self.token)
            .invoke_async(&mut self.redis.shared())
            .await
    }

    /// What the owner needs to take the lease again, after Redis became unavailable before it expired.
    pub(super) fn leave(self) -> Left {
        Left { token: self.token, tip: self.tip, until: self.renewed_at + CHAT_LEASE }
    }
}

/// A lease whose owner lost its connection to Redis. Until it expires, nobody else can have taken it.
pub(super) struct Left {
    token: String,
    tip: String,
    until: Instant,
}

/// The id of this run of Redis: it changes with every restart.
async fn run(redis: &Redis) -> RedisResult<String> {
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut redis.shared()).await?;
    Ok(info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().to_owned())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
