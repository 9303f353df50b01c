//! The lease of a chat shard: the right to publish its actions, for a few seconds at a time.
//!
//! The lease is kept in Redis together with the stream that it guards, so that both are lost together. Its value is a
//! random token for this owner and this lease: the fencing token that the publishing script compares.
//!
//! Redis also keeps the shard's epoch, which has two halves of eight hexadecimal digits each. The first half, the
//! *history*, is created when Redis has no epoch: at the first start, or after a flush. The second half changes when a
//! restart of Redis may have lost events, for example because it loaded an older dump. No event was lost if the stream
//! still ends with the event that the owner published last. Clients that resume compare the whole epoch, because no
//! event may be missing after their position. Counting compares only the history (`chat_cursors.history`), because an
//! entry that survived a restart keeps the id under which it was counted.

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
    /// The id of the newest event in the live stream; empty if there is none.
    pub(super) last_event: String,
    renewed_at: Instant,
}

impl Lease {
    /// Takes the lease if it is free, or if its value is still that of `former`, the lease that this owner had before
    /// it lost its connection. Starts a new epoch if events may have been lost.
    ///
    /// Redis stores the expiry as wall-clock time. If its clock is set back, the lease of a dead owner would last
    /// longer by that much, so a lease that expires later than a new one would counts as expired.
    pub(super) async fn acquire(
        redis: &Redis,
        shard: u16,
        owner: &str,
        former: Option<&FormerLease>,
    ) -> RedisResult<Option<Self>> {
        let former = former.filter(|former| Instant::now() < former.expires_at);
        let (former_token, last_event) =
            former.map_or(("", "unknown"), |former| (&former.token, &former.last_event));
        let token = format!("{owner}/{:016x}", rand::random::<u64>());
        let eight_digits = || format!("{:08x}", rand::random::<u32>());
        let acquired: Option<(String, String)> = lua::CHAT_ACQUIRE
            .key(chat_lease_key(shard))
            .key(chat_epoch_key(shard))
            .key(chat_run_key(shard))
            .key(Live::Chat(shard).to_string())
            .arg(&token)
            .arg(milliseconds(CHAT_LEASE))
            .arg(redis_run_id(redis).await?)
            .arg(last_event)
            .arg(eight_digits())
            .arg(eight_digits())
            .arg(former_token)
            .invoke_async(&mut redis.shared())
            .await?;
        let redis = redis.clone();
        Ok(acquired.map(|(epoch, last_event)| Self {
            redis,
            shard,
            token,
            epoch,
            last_event,
            renewed_at: Instant::now(),
        }))
    }

    /// The half of the epoch that stays the same when Redis restarts.
    pub(super) fn history(&self) -> &str {
        self.epoch.get(..8).unwrap_or(&self.epoch)
    }

    /// Renews the lease if that is due. Returns false if another process owns it.
    pub(super) async fn renew(&mut self) -> RedisResult<bool> {
        if self.renewed_at.elapsed() < CHAT_LEASE_RENEWAL {
            return Ok(true);
        }
        let is_owner: bool = lua::CHAT_RENEW
            .key(chat_lease_key(self.shard))
            .arg(&self.token)
            .arg(milliseconds(CHAT_LEASE))
            .invoke_async(&mut self.redis.shared())
            .await?;
        if is_owner {
            self.renewed_at = Instant::now();
        }
        Ok(is_owner)
    }

    /// Releases the lease, so that another worker can take it immediately. If this fails, the lease expires.
    pub(super) async fn release(self) -> RedisResult<()> {
        lua::CHAT_RELEASE
            .key(chat_lease_key(self.shard))
            .arg(&self.token)
            .invoke_async(&mut self.redis.shared())
            .await
    }

    /// Returns what the owner needs to take the lease again after a loss of its connection to Redis.
    pub(super) fn into_former(self) -> FormerLease {
        FormerLease {
            token: self.token,
            last_event: self.last_event,
            expires_at: self.renewed_at + CHAT_LEASE,
        }
    }
}

/// A lease whose owner lost its connection to Redis. No other process can take it before it expires.
pub(super) struct FormerLease {
    token: String,
    last_event: String,
    expires_at: Instant,
}

/// The id of the running Redis process, which changes with every restart.
async fn redis_run_id(redis: &Redis) -> RedisResult<String> {
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut redis.shared()).await?;
    Ok(info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().to_owned())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
