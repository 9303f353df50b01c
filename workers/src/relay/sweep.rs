//! The sweeper publishes a message again if it was published, is not consumed, and is no longer in Redis. Because of
//! it, Redis may lose data: by a flush, an older dump, a trimmed stream, or a group that was created too late. A
//! message that only waits for a slow or absent consumer is left alone, for any length of time.
//!
//! Only the owner of a shard sweeps it. A sweeper that was paused in between changes nothing late: it names the entry
//! that it found missing, and a message that has another entry by then is left alone.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use atrium_shared::{
    db::in_time,
    ids::{MessageId, OrgId},
    messages::Topic,
    streams::{Inbound, Redis},
    telemetry::metrics::{OUTBOX_BACKLOG, OUTBOX_REPUBLISHED},
};
use metrics::{Counter, Gauge, counter, gauge};
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

use super::{lease::number, liveness::not_live};
use crate::timings::SWEEP_AFTER;

const SWEEP_INTERVAL: Duration = Duration::from_secs(2);
/// The pause after a sweep is at least this many times as long as the sweep took.
const PAUSE_FACTOR: u32 = 10;
/// The number of messages checked by one script, which blocks Redis while it runs.
const PAGE: i64 = 500;
/// A sweep stops when it has found this many lost messages; the next sweep finds the rest.
const MAX_LOST: usize = 10_000;
/// Chat notices are acknowledged just before they are marked as consumed. A notice that is still unmarked after this
/// time is lost.
const SETTLE_TIME: Duration = Duration::from_secs(1);

pub(super) struct Sweeper {
    shard: u16,
    pool: PgPool,
    redis: Redis,
    /// Notified when there is something to publish.
    wake_up: Arc<Notify>,
    backlog: Gauge,
    /// Registered at start: an increase is invisible in a series whose first value is 1.
    republished: Counter,
}

/// The reason that a sweep failed. Lost messages wait for the next sweep.
#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error("PostgreSQL: {0}")]
    Database(#[from] sqlx::Error),
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
}

/// A message that is published and not consumed.
struct Published {
    org_id: OrgId,
    id: i64,
    message_id: MessageId,
    topic: Topic,
    aggregate_id: Uuid,
    entry_id: Option<String>,
    published_at: OffsetDateTime,
}

impl Sweeper {
    pub(super) fn new(shard: u16, pool: &PgPool, redis: &Redis, wake_up: &Arc<Notify>) -> Self {
        Self {
            shard,
            pool: pool.clone(),
            redis: redis.clone(),
            wake_up: Arc::clone(wake_up),
            backlog: gauge!(OUTBOX_BACKLOG, "shard" => shard.to_string()),
            republished: counter!(OUTBOX_REPUBLISHED),
        }
    }

    pub(super) async fn run(self) -> Infallible {
        loop {
            let started_at = Instant::now();
            match self.sweep().await {
                Ok(0) => {}
                Ok(republished) => {
                    self.republished.increment(republished);
                    tracing::warn!(
                        shard = self.shard,
                        messages = republished,
                        "Redis lost messages; publishing them again"
                    );
                    self.wake_up.notify_one();
                }
                Err(error) => {
                    tracing::debug!(shard = self.shard, %error, "lost messages cannot be looked for; trying again");
                }
            }
            tokio::time::sleep(SWEEP_INTERVAL.max(started_at.elapsed() * PAUSE_FACTOR)).await;
        }
    }

    async fn sweep(&self) -> Result<u64, SweepError> {
        self.backlog.set(in_time(self.count_backlog()).await? as f64);
        let lost = self.find_lost().await?;
        if lost.is_empty() {
            return Ok(0);
        }
        tokio::time::sleep(SETTLE_TIME).await;
        Ok(in_time(self.publish_again(&lost)).await?)
    }

    async fn count_backlog(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM outbox
              WHERE shard = $1 AND published_at IS NULL AND consumed_at IS NULL AND dead_at IS NULL
                AND (available_at IS NULL OR available_at <= clock_timestamp())"#,
            number(self.shard)
        )
        .fetch_one(&self.pool)
        .await
    }

    /// Checks every published message that is not consumed. None is left out, because an old message that is live does
    /// not prove that newer ones are.
    async fn find_lost(&self) -> Result<Vec<Published>, SweepError> {
        let mut lost = Vec::new();
        let mut after: Option<(OffsetDateTime, i64)> = None;
        loop {
            let page = in_time(self.page(after)).await?;
            let full = page.len() >= usize::try_from(PAGE).unwrap_or(0);
            after = page.last().map(|last| (last.published_at, last.id));
            lost.extend(self.not_live(page).await?);
            if !full || lost.len() >= MAX_LOST {
                return Ok(lost);
            }
        }
    }

    /// Reads the next messages in the order of their publication, without the newest, which may still be on their way.
    /// Times in the future are from before the clock was set back, so those messages are included.
    async fn page(&self, after: Option<(OffsetDateTime, i64)>) -> Result<Vec<Published>, sqlx::Error> {
        sqlx::query_as!(
            Published,
            r#"SELECT org_id, id, message_id, topic AS "topic: Topic", aggregate_id, entry_id,
                    published_at AS "published_at!"
               FROM outbox
              WHERE shard = $1 AND published_at IS NOT NULL AND consumed_at IS NULL AND dead_at IS NULL
                AND published_at NOT BETWEEN clock_timestamp() - $5::float8 * interval '1 second' AND clock_timestamp()
                AND (published_at, id) > (coalesce($2, '-infinity'::timestamptz), coalesce($3::bigint, 0))
              ORDER BY published_at, id LIMIT $4"#,
            number(self.shard),
            after.map(|(published_at, _)| published_at),
            after.map(|(_, id)| id),
            PAGE,
            SWEEP_AFTER.as_secs_f64()
        )
        .fetch_all(&self.pool)
        .await
    }

    async fn not_live(&self, page: Vec<Published>) -> Result<Vec<Published>, SweepError> {
        let mut lost: HashSet<(Inbound, String)> = HashSet::new();
        for stream in Topic::ALL.map(|topic| Inbound::of_shard(topic, self.shard)) {
            let entries: Vec<(&str, String)> = page
                .iter()
                .filter(|message| message.stream() == stream)
                .filter_map(|message| Some((message.entry_id.as_deref()?, message.message_id.to_string())))
                .collect();
            if !entries.is_empty() {
                let not_live = not_live(&self.redis, stream, &entries).await?;
                lost.extend(not_live.into_iter().map(|entry| (stream, entry)));
            }
        }
        let is_lost = |message: &Published| {
            // Without an entry id it cannot be checked. Only an earlier release stored such messages.
            let Some(entry) = &message.entry_id else { return true };
            lost.contains(&(message.stream(), entry.clone()))
        };
        Ok(page.into_iter().filter(is_lost).collect())
    }

    async fn publish_again(&self, lost: &[Published]) -> Result<u64, sqlx::Error> {
        let orgs: Vec<Uuid> = lost.iter().map(|message| message.org_id.uuid()).collect();
        let ids: Vec<i64> = lost.iter().map(|message| message.id).collect();
        let entries: Vec<Option<&str>> = lost.iter().map(|message| message.entry_id.as_deref()).collect();
        // The deletion of an organization has removed its messages, and a dead letter waits for an operator; neither is
        // published again.
        let republished = sqlx::query!(
            "UPDATE outbox SET published_at = NULL, entry_id = NULL
               FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS lost (org_id, id, entry_id)
              WHERE outbox.org_id = lost.org_id AND outbox.id = lost.id
                AND outbox.entry_id IS NOT DISTINCT FROM lost.entry_id
                AND published_at IS NOT NULL AND consumed_at IS NULL AND dead_at IS NULL",
            &orgs[..],
            &ids[..],
            &entries as &[Option<&str>]
        )
        .execute(&self.pool)
        .await?;
        Ok(republished.rows_affected())
    }
}

impl Published {
    fn stream(&self) -> Inbound {
        Inbound::of(self.topic, self.aggregate_id)
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // From now on the next owner of the shard reports the value.
        self.backlog.set(0.0);
    }
}
