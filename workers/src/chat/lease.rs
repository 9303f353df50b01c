//! The right to work on a shard, for a few seconds at a time.
//!
//! The lease lives in Redis, beside the stream it guards: whatever loses one loses the other. Its value is a token
//! of this owner and this term, the *fence* that the publishing script compares.
//!
//! Beside it stands the shard's epoch: eight digits for the *history*, made when there was none (a first start, a
//! flush), and eight that change when a restart of Redis may have lost events, as one with an older dump does. Nothing
//! was lost if the stream's last event, its *tip*, is the one that the owner left there. Readers compare the
//! whole epoch: what they resume from must not have a hole behind it. Counting compares the history alone: an entry
//! that survived a restart has the id that it was counted under.

use std::time::Duration;

use atrium_shared::streams::{Live, Redis, chat_epoch_key, chat_lease_key, chat_run_key, lua};
use redis::RedisResult;
use tokio::time::Instant;

use crate::timings::{CHAT_LEASE, CHAT_RENEWED_AFTER};

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
    /// Takes the lease if nobody has it, or if it is still the one that was `left` in the middle of its term, and
    /// begins a new epoch where that is needed.
    ///
    /// Redis keeps the end of a term as a time of day. After its clock was set back, the lease of somebody who is gone
    /// would hold for as long; so one with more than a term to go counts as ended.
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

    /// The part of the epoch that stays when Redis restarts, whatever it lost.
    pub(super) fn history(&self) -> &str {
        self.epoch.get(..8).unwrap_or(&self.epoch)
    }

    /// Extends the lease when it is time to. False: it is no longer ours.
    pub(super) async fn renew(&mut self) -> RedisResult<bool> {
        if self.renewed_at.elapsed() < CHAT_RENEWED_AFTER {
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

    /// Gives the lease back, so that another worker need not wait for its end. If this fails, it ends by itself.
    pub(super) async fn release(self) -> RedisResult<()> {
        lua::CHAT_RELEASE
            .key(chat_lease_key(self.shard))
            .arg(&self.token)
            .invoke_async(&mut self.redis.shared())
            .await
    }

    /// What to come back with after Redis went away in the middle of the term.
    pub(super) fn leave(self) -> Left {
        Left { token: self.token, tip: self.tip, until: self.renewed_at + CHAT_LEASE }
    }
}

/// Where an owner was when Redis went away under it. Until the term is over nobody else can have been the owner.
pub(super) struct Left {
    token: String,
    tip: String,
    until: Instant,
}

/// What Redis calls itself until it restarts.
async fn run(redis: &Redis) -> RedisResult<String> {
    let info: String = redis::cmd("INFO").arg("server").query_async(&mut redis.shared()).await?;
    Ok(info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().to_owned())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
