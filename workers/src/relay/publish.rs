//! Publishes one batch: locks the lease, reads, adds to the streams, marks and commits, in this order. A message is
//! marked only after Redis has accepted it. A batch that is interrupted before its commit is published again, and the
//! inbox recognizes the copies.
//!
//! Streams are independent: one that accepts no entries delays only its own messages.

use atrium_shared::{
    crash_point::{CrashPoint, reached},
    ids::{MessageId, OrgId},
    messages::{OutboxEntry, Topic},
    streams::{Inbound, Redis},
    telemetry::metrics::{OUTBOX_LAG_SECONDS, OUTBOX_PUBLISHED},
};
use futures_util::future::join_all;
use metrics::{counter, histogram};
use redis::{ErrorKind, RedisError};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{
    fenced::{self, Added},
    lease::{Lease, number},
};

/// The most messages of a topic in a batch; the same limit applies to the delayed messages that are due.
const BATCH: i64 = 200;

/// A message to publish.
pub(super) struct Due {
    pub(super) org_id: OrgId,
    pub(super) id: i64,
    pub(super) message_id: MessageId,
    topic: Topic,
    aggregate_id: Uuid,
    pub(super) payload: String,
    lag_seconds: f64,
}

impl Due {
    fn entry(&self) -> OutboxEntry {
        let payload = self.payload.clone();
        OutboxEntry { message: self.message_id, org: self.org_id, outbox: self.id, payload }
    }
}

/// The result of a batch that was run while the lease was owned.
#[derive(Default)]
pub(super) struct BatchOutcome {
    /// A topic may have more messages to publish than fit into a batch.
    pub(super) is_full: bool,
    /// The error of a stream that accepted nothing; its messages wait.
    pub(super) failed: Option<RedisError>,
    /// The highest token that a stream has seen, if it exceeds that of the lease.
    pub(super) higher_token: Option<i64>,
}

impl BatchOutcome {
    /// Whether Redis may still run the script. It will not if it replied with an error.
    pub(super) fn may_still_run(&self) -> bool {
        self.failed.as_ref().is_some_and(|error| !matches!(error.kind(), ErrorKind::Server(_)))
    }
}

/// Publishes the messages that are due, up to the limit of a batch, and renews the lease. Returns `None` if this
/// process no longer owns the lease.
pub(super) async fn publish_batch(lease: &Lease, redis: &Redis) -> Result<Option<BatchOutcome>, sqlx::Error> {
    let Some(mut tx) = lease.begin().await? else {
        return Ok(None);
    };
    reached(CrashPoint::RelayLeaseTaken).await;
    let due = read(&mut tx, lease.shard).await?;
    let mut batch = BatchOutcome::default();
    if due.is_empty() {
        tx.commit().await?;
        return Ok(Some(batch));
    }

    let streams = by_stream(due);
    batch.is_full = streams.iter().any(|(_, messages)| messages.len() >= usize::try_from(BATCH).unwrap_or(0));
    reached(CrashPoint::RelayBatchRead).await;
    let calls = streams.iter().map(|(stream, messages)| {
        fenced::add(redis, *stream, lease.shard, lease.token, messages.iter().map(Due::entry))
    });
    let mut published: Vec<(&Due, String)> = Vec::new();
    let replies = join_all(calls).await;
    for ((_, messages), reply) in streams.iter().zip(replies) {
        match reply {
            Ok(Added::Entries(ids)) => published.extend(messages.iter().zip(ids)),
            Ok(Added::Rejected(token)) => batch.higher_token = batch.higher_token.max(Some(token)),
            Err(error) => batch.failed = Some(error),
        }
    }
    reached(CrashPoint::RelayPublished).await;
    mark(&mut tx, &published).await?;
    reached(CrashPoint::RelayMarked).await;
    tx.commit().await?;
    reached(CrashPoint::RelayCommitted).await;

    for (due, _) in &published {
        counter!(OUTBOX_PUBLISHED, "topic" => due.topic.name()).increment(1);
        histogram!(OUTBOX_LAG_SECONDS, "topic" => due.topic.name()).record(due.lag_seconds.max(0.0));
    }
    Ok(Some(batch))
}

/// Reads first the messages without a delay by id, which is the order of commits within an aggregate, then the delayed
/// ones that are due. It never reads from a last id on, because a lower id may commit later.
async fn read(tx: &mut Transaction<'_, Postgres>, shard: u16) -> Result<Vec<Due>, sqlx::Error> {
    sqlx::query_as!(
        Due,
        r#"SELECT due.org_id AS "org_id!", due.id AS "id!", due.message_id AS "message_id!",
                due.topic AS "topic!: Topic", due.aggregate_id AS "aggregate_id!", due.payload AS "payload!",
                due.lag_seconds AS "lag_seconds!"
           FROM unnest($2::text[]) AS topics (name) CROSS JOIN LATERAL (
             (SELECT org_id, id, message_id, topic, aggregate_id, payload::text AS payload, available_at,
                     EXTRACT(EPOCH FROM clock_timestamp() - created_at)::float8 AS lag_seconds
                FROM outbox WHERE shard = $1 AND topic = topics.name AND published_at IS NULL
                 AND consumed_at IS NULL AND dead_at IS NULL AND available_at IS NULL
               ORDER BY id LIMIT $3)
             UNION ALL
             (SELECT org_id, id, message_id, topic, aggregate_id, payload::text, available_at,
                     EXTRACT(EPOCH FROM clock_timestamp() - available_at)::float8
                FROM outbox WHERE shard = $1 AND topic = topics.name AND published_at IS NULL
                 AND consumed_at IS NULL AND dead_at IS NULL AND available_at <= clock_timestamp()
               ORDER BY available_at LIMIT $3)) AS due
          ORDER BY due.available_at NULLS FIRST, due.id"#,
        number(shard),
        &Topic::ALL.map(Topic::name) as &[&str],
        BATCH
    )
    .fetch_all(&mut **tx)
    .await
}

async fn mark(tx: &mut Transaction<'_, Postgres>, published: &[(&Due, String)]) -> Result<(), sqlx::Error> {
    let orgs: Vec<Uuid> = published.iter().map(|(due, _)| due.org_id.uuid()).collect();
    let ids: Vec<i64> = published.iter().map(|(due, _)| due.id).collect();
    let entries: Vec<&str> = published.iter().map(|(_, entry)| entry.as_str()).collect();
    sqlx::query!(
        "UPDATE outbox SET published_at = clock_timestamp(), entry_id = batch.entry_id
           FROM unnest($1::uuid[], $2::bigint[], $3::text[]) AS batch (org_id, id, entry_id)
          WHERE outbox.org_id = batch.org_id AND outbox.id = batch.id",
        &orgs[..],
        &ids[..],
        &entries as &[&str]
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Groups the messages by stream, in the order in which they were read.
fn by_stream(due: Vec<Due>) -> Vec<(Inbound, Vec<Due>)> {
    let mut streams: Vec<(Inbound, Vec<Due>)> = Vec::new();
    for due in due {
        let stream = Inbound::of(due.topic, due.aggregate_id);
        match streams.iter_mut().find(|(other, _)| *other == stream) {
            Some((_, messages)) => messages.push(due),
            None => streams.push((stream, vec![due])),
        }
    }
    streams
}
