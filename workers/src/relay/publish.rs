//! One batch: hold the lease, read, add to the streams, mark, commit, in this order. Killed before the commit, the batch
//! is published again, and the inbox knows it. A message is marked only after Redis took it.
//!
//! Each stream is a lane of its own: one that takes nothing keeps only its own messages waiting.

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

/// Messages of a topic read at once; and the same number of delayed messages that are due.
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

/// What became of a batch whose lease was held.
#[derive(Default)]
pub(super) struct BatchOutcome {
    /// There is more to publish than a batch holds.
    pub(super) more: bool,
    /// The error of a stream that took nothing; its messages wait.
    pub(super) failed: Option<RedisError>,
    /// A stream has seen this token, which is higher than the lease's.
    pub(super) outdated_by: Option<i64>,
}

impl BatchOutcome {
    /// Whether Redis may still run the script: it did not answer with an error.
    pub(super) fn may_be_late(&self) -> bool {
        self.failed.as_ref().is_some_and(|error| !matches!(error.kind(), ErrorKind::Server(_)))
    }
}

/// Publishes what is due, as far as it fits into a batch, and renews the lease. None: the lease is no longer ours.
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

    let lanes = by_stream(due);
    batch.more = lanes.iter().any(|(_, messages)| messages.len() >= usize::try_from(BATCH).unwrap_or(0));
    reached(CrashPoint::RelayBatchRead).await;
    let calls = lanes.iter().map(|(stream, messages)| {
        fenced::add(redis, *stream, lease.shard, lease.token, messages.iter().map(Due::entry))
    });
    let mut published: Vec<(&Due, String)> = Vec::new();
    let answers = join_all(calls).await;
    for ((_, messages), answer) in lanes.iter().zip(answers) {
        match answer {
            Ok(Added::Entries(ids)) => published.extend(messages.iter().zip(ids)),
            Ok(Added::Refused(token)) => batch.outdated_by = batch.outdated_by.max(Some(token)),
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

/// First the messages without a delay by id, which is the order of commits within an aggregate; then the delayed ones
/// that are due. Never "all after id n": a lower id may commit later.
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

/// The messages of each stream, in the order in which they were read.
fn by_stream(due: Vec<Due>) -> Vec<(Inbound, Vec<Due>)> {
    let mut lanes: Vec<(Inbound, Vec<Due>)> = Vec::new();
    for due in due {
        let stream = Inbound::of(due.topic, due.aggregate_id);
        match lanes.iter_mut().find(|(lane, _)| *lane == stream) {
            Some((_, messages)) => messages.push(due),
            None => lanes.push((stream, vec![due])),
        }
    }
    lanes
}
