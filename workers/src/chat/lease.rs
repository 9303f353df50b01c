//! The right to work on a shard, for a few seconds at a time.
//!
//! The lease lives in Redis, beside the stream it guards: whatever loses one loses the other. Its value is a token
//! of this owner and this term, the *fence* that the publishing script compares.
//!
//! Beside it stands the shard's epoch: eight digits for the *history*, made when there was none (a first start, a
//! flush), and eight for the run of Redis, which change when it restarts, since it may have come back with an older
//! dump. Readers compare the whole: what they resume from must be of this run. Counting compares the history alone:
//! an entry that survived a restart has the id that it was counted under.

use std::time::Duration;

use atrium_shared::streams::{Redis, chat_epoch_key, chat_lease_key};
use redis::{RedisResult, Script};
use tokio::time::Instant;

const TERM: Duration = Duration::from_secs(4);
const RENEW_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Lease {
    redis: Redis,
    shard: u16,
    pub(super) token: String,
    pub(super) epoch: String,
    renewed_at: Instant,
}

impl Lease {
    /// Takes the lease if nobody has it, and begins a new epoch where that is needed.
    pub(super) async fn acquire(redis: &Redis, shard: u16, process: &str) -> RedisResult<Option<Self>> {
        let token = format!("{process}/{:016x}", rand::random::<u64>());
        let history = format!("{:08x}", rand::random::<u32>());
        let script = Script::new(
            "if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
             local epoch = redis.call('GET', KEYS[2])
             epoch = (epoch and string.sub(epoch, 1, 8) or ARGV[3]) .. ARGV[4]
             redis.call('SET', KEYS[2], epoch)
             return epoch",
        );
        let epoch: Option<String> = script
            .key(chat_lease_key(shard))
            .key(chat_epoch_key(shard))
            .arg(&token)
            .arg(milliseconds(TERM))
            .arg(history)
            .arg(run(redis).await?)
            .invoke_async(&mut redis.shared())
            .await?;
        let redis = redis.clone();
        Ok(epoch.map(|epoch| Self {
            redis,
            shard,
            token,
            epoch,
            renewed_at: Instant::now(),
        }))
    }

    /// The part of the epoch that stays when Redis restarts.
    pub(super) fn history(&self) -> &str {
        self.epoch.get(..8).unwrap_or(&self.epoch)
    }

    /// Extends the lease when it is time to. False: it is not ours any more.
    pub(super) async fn renew(&mut self) -> RedisResult<bool> {
        if self.renewed_at.elapsed() < RENEW_AFTER {
            return Ok(true);
        }
        let script = Script::new(
            "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
             return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
        );
        let held: bool = script
            .key(chat_lease_key(self.shard))
            .arg(&self.token)
            .arg(milliseconds(TERM))
            .invoke_async(&mut self.redis.shared())
            .await?;
        if held {
            self.renewed_at = Instant::now();
        }
        Ok(held)
    }

    /// Gives the lease back, so that another worker need not wait for its end.
    pub(super) async fn release(self) -> RedisResult<()> {
        let script = Script::new(
            "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
             return true",
        );
        script
            .key(chat_lease_key(self.shard))
            .arg(&self.token)
            .invoke_async(&mut self.redis.shared())
            .await
    }
}

/// Eight digits that are others after a restart.
async fn run(redis: &Redis) -> RedisResult<String> {
    let info: String = redis::cmd("INFO")
        .arg("server")
        .query_async(&mut redis.shared())
        .await?;
    let run = info
        .lines()
        .find_map(|line| line.strip_prefix("run_id:")?.get(..8));
    Ok(run.unwrap_or("00000000").to_owned())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
