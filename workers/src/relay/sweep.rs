//! The sweeper: what was published, is not consumed, and is no longer in Redis is published again. This is what makes
//! Redis expendable: a flush, an older dump, a trimmed stream, a group made too late all end here. What only waits, for a
//! consumer that is slow or away, is left alone, however long.
//!
//! The owner of a shard sweeps it, so nobody does it twice. One that was stopped in between changes nothing late: it
//! names the entry that it found missing, and if the message has another one by then, it is left alone.

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

const EVERY: Duration = Duration::from_secs(2);
/// A sweep rests this many times as long as it took.
const REST: u32 = 10;
/// Messages checked with one script, which blocks Redis while it runs.
const PAGE: i64 = 500;
/// A sweep stops after this many lost messages; the next one finds the rest.
const MOST: usize = 10_000;
/// Chat notices are acknowledged just before they are marked as consumed. One still unmarked after this time is lost.
const SETTLING: Duration = Duration::from_secs(1);

pub(super) struct Sweeper {
    shard: u16,
    pool: PgPool,
    redis: Redis,
    /// There is something to publish.
    news: Arc<Notify>,
    backlog: Gauge,
    /// Registered at start: an increase is invisible in a series whose first value is 1.
    republished: Counter,
}

/// Why a sweep failed. Lost messages wait for the next sweep.
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
    pub(super) fn new(shard: u16, pool: &PgPool, redis: &Redis, news: &Arc<Notify>) -> Self {
        Self {
            shard,
            pool: pool.clone(),
            redis: redis.clone(),
            news: Arc::clone(news),
            backlog: gauge!(OUTBOX_BACKLOG, "shard" => shard.to_string()),
            republished: counter!(OUTBOX_REPUBLISHED),
        }
    }

    pub(super) async fn run(self) -> Infallible {
        loop {
            let began_at = Instant::now();
            match self.sweep().await {
                Ok(0) => {}
                Ok(again) => {
                    self.republished.increment(again);
                    tracing::warn!(
                        shard = self.shard,
                        messages = again,
                        "Redis lost messages; publishing them again"
                    );
                    self.news.notify_one();
                }
                Err(error) => {
                    tracing::debug!(shard = self.shard, %error, "lost messages cannot be looked for; trying again");
                }
            }
            tokio::time::sleep(EVERY.max(began_at.elapsed() * REST)).await;
        }
    }

    async fn sweep(&self) -> Result<u64, SweepError> {
        self.backlog.set(in_time(self.count_backlog()).await? as f64);
        let lost = self.find_lost().await?;
        if lost.is_empty() {
            return Ok(0);
        }
        tokio::time::sleep(SETTLING).await;
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

    /// Checks every published message that is not consumed. All of them: a live old message says nothing about
    /// newer ones.
    async fn find_lost(&self) -> Result<Vec<Published>, SweepError> {
        let mut lost = Vec::new();
        let mut after: Option<(OffsetDateTime, i64)> = None;
        loop {
            let page = in_time(self.page(after)).await?;
            let full = page.len() >= usize::try_from(PAGE).unwrap_or(0);
            after = page.last().map(|last| (last.published_at, last.id));
            lost.extend(self.not_live(page).await?);
            if !full || lost.len() >= MOST {
                return Ok(lost);
            }
        }
    }

    /// The next messages in the order of their publication, without the newest, which are still on their way. Times in
    /// the future are from before the clock was set back, so those messages are included.
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
            // Without an entry id it cannot be checked. Only an earlier release left such messages.
            let Some(entry) = &message.entry_id else { return true };
            lost.contains(&(message.stream(), entry.clone()))
        };
        Ok(page.into_iter().filter(is_lost).collect())
    }

    async fn publish_again(&self, lost: &[Published]) -> Result<u64, sqlx::Error> {
        let orgs: Vec<Uuid> = lost.iter().map(|message| message.org_id.uuid()).collect();
        let ids: Vec<i64> = lost.iter().map(|message| message.id).collect();
        let entries: Vec<Option<&str>> = lost.iter().map(|message| message.entry_id.as_deref()).collect();
        // An organization that is deleted takes its messages with it; a dead letter waits for an operator.
        let again = sqlx::query!(
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
        Ok(again.rows_affected())
    }
}

impl Published {
    fn stream(&self) -> Inbound {
        Inbound::of(self.topic, self.aggregate_id)
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // From now on the next owner reports it.
        self.backlog.set(0.0);
    }
}
