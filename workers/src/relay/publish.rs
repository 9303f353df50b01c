//! One batch: lock, read, `XADD`, mark, commit, in this order. Killed before the commit, the batch is published
//! again, and the inbox knows it. A message is marked only after Redis took it.

use atrium_shared::{
    crash_point::{CrashPoint, reached},
    db::Topic,
    ids::{MessageId, OrgId},
    streams::{Inbound, Redis},
    telemetry::metrics::{OUTBOX_LAG_SECONDS, OUTBOX_PUBLISHED},
};
use metrics::{counter, histogram};
use sqlx::PgPool;
use uuid::Uuid;

use super::LEADER_LOCK;

const BATCH: i64 = 200;

/// Why a batch was not published. Nothing of it is marked.
#[derive(Debug, thiserror::Error)]
pub(super) enum PublishError {
    #[error("PostgreSQL: {0}")]
    Database(#[from] sqlx::Error),
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
}

#[derive(sqlx::FromRow)]
struct Due {
    org_id: OrgId,
    id: i64,
    message_id: MessageId,
    topic: Topic,
    aggregate_id: Uuid,
    payload: String,
    lag_seconds: f64,
}

/// Publishes everything that is due. Returns at once when another relay is at work.
pub(super) async fn publish_all(pool: &PgPool, redis: &Redis) -> Result<(), PublishError> {
    while publish_batch(pool, redis).await? == usize::try_from(BATCH).unwrap_or(0) {}
    Ok(())
}

async fn publish_batch(pool: &PgPool, redis: &Redis) -> Result<usize, PublishError> {
    let mut tx = pool.begin().await?;
    let leader: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(LEADER_LOCK)
        .fetch_one(&mut *tx)
        .await?;
    if !leader {
        return Ok(0);
    }
    reached(CrashPoint::RelayLeaseTaken).await;
    // By id among those that are for now, which is the order of commits within an aggregate; then those whose time
    // has come. Never "all after id n": a lower id may commit later.
    let due: Vec<Due> = sqlx::query_as(
        "(SELECT org_id, id, message_id, topic, aggregate_id, payload::text AS payload,
                 EXTRACT(EPOCH FROM clock_timestamp() - created_at)::float8 AS lag_seconds
            FROM outbox WHERE published_at IS NULL AND dead_at IS NULL AND available_at IS NULL
           ORDER BY id LIMIT $1)
         UNION ALL
         (SELECT org_id, id, message_id, topic, aggregate_id, payload::text,
                 EXTRACT(EPOCH FROM clock_timestamp() - available_at)::float8
            FROM outbox WHERE published_at IS NULL AND dead_at IS NULL AND available_at <= clock_timestamp()
           ORDER BY available_at LIMIT $1)
         LIMIT $1",
    )
    .bind(BATCH)
    .fetch_all(&mut *tx)
    .await?;
    if due.is_empty() {
        return Ok(0);
    }

    reached(CrashPoint::RelayBatchRead).await;
    add_to_streams(redis, &due).await?;
    reached(CrashPoint::RelayPublished).await;

    let (orgs, ids): (Vec<Uuid>, Vec<i64>) = due.iter().map(|due| (due.org_id.uuid(), due.id)).unzip();
    sqlx::query(
        "UPDATE outbox SET published_at = clock_timestamp()
           FROM unnest($1::uuid[], $2::bigint[]) AS batch (org_id, id)
          WHERE outbox.org_id = batch.org_id AND outbox.id = batch.id",
    )
    .bind(orgs)
    .bind(ids)
    .execute(&mut *tx)
    .await?;
    reached(CrashPoint::RelayMarked).await;
    tx.commit().await?;
    reached(CrashPoint::RelayCommitted).await;

    for due in &due {
        counter!(OUTBOX_PUBLISHED, "topic" => due.topic.name()).increment(1);
        histogram!(OUTBOX_LAG_SECONDS, "topic" => due.topic.name()).record(due.lag_seconds.max(0.0));
    }
    Ok(due.len())
}

async fn add_to_streams(redis: &Redis, due: &[Due]) -> redis::RedisResult<()> {
    let mut pipe = redis::pipe();
    for due in due {
        let stream = Inbound::of(due.topic, due.aggregate_id).to_string();
        let (message, org, outbox) = (due.message_id.to_string(), due.org_id.to_string(), due.id.to_string());
        let fields = [("message", &message), ("org", &org), ("outbox", &outbox), ("payload", &due.payload)];
        pipe.xadd(stream, "*", &fields).ignore();
    }
    pipe.query_async(&mut redis.shared()).await
}
