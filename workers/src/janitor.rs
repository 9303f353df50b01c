//! The janitor: deletes old rows in small batches, so that no table grows forever. It also removes the consumers of
//! ended processes from groups, moves groups back to entries that they skipped, and removes copies of replayed or
//! dropped dead letters from Redis.

use std::{collections::HashSet, time::Duration};

use atrium_shared::{
    db::{Watcher, in_time},
    ids::MessageId,
    lifecycle::Shutdown,
    streams::{ConsumerGroup, DeadLetter, Inbound, Redis},
    telemetry::metrics::STREAM_SKIPS,
};
use metrics::counter;
use sqlx::PgPool;

use crate::timings::CONSUMER_TIMEOUT;

const DATABASE_INTERVAL: Duration = Duration::from_secs(60);
/// Groups are checked more often, because a process that crashes repeatedly leaves a consumer in each group with every
/// start.
const GROUPS_INTERVAL: Duration = Duration::from_secs(10);
/// The most rows that one statement deletes, which keeps locks and transactions short.
const BATCH: i64 = 1_000;

pub(crate) fn spawn(outbox: &PgPool, watcher: &Watcher, redis: &Redis, process: &str, shutdown: &Shutdown) {
    let (outbox, watcher, letters) = (outbox.clone(), watcher.clone(), redis.clone());
    let stop = shutdown.draining().clone();
    shutdown.spawn_critical("janitor", async move {
        let jitter = rand::random_range(0.9..1.1);
        loop {
            if let Err(error) = tidy_database(&outbox, &watcher).await {
                tracing::warn!(%error, "old rows cannot be deleted; trying again later");
            }
            if let Err(error) = remove_stale_copies(&outbox, &letters).await {
                tracing::warn!(%error, "copies of former dead letters cannot be removed; trying again later");
            }
            if stop.run_until_cancelled(tokio::time::sleep(DATABASE_INTERVAL.mul_f64(jitter))).await.is_none()
            {
                return Ok(());
            }
        }
    });
    let (redis, process, stop) = (redis.clone(), process.to_owned(), shutdown.draining().clone());
    shutdown.spawn_critical("janitor of groups", async move {
        let mut ticks = tokio::time::interval(GROUPS_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = tidy_groups(&redis, &process).await {
                tracing::warn!(%error, "groups cannot be tidied; trying again");
            }
        }
        Ok(())
    });
}

async fn tidy_database(outbox: &PgPool, watcher: &Watcher) -> anyhow::Result<()> {
    // A consumed message is kept for an hour, so that recent events can be investigated.
    let delete_messages = || {
        sqlx::query!(
            "DELETE FROM outbox WHERE (org_id, id) IN
                 (SELECT org_id, id FROM outbox WHERE consumed_at < now() - interval '1 hour' LIMIT $1)",
            BATCH
        )
        .execute(outbox)
    };
    while in_time(delete_messages()).await?.rows_affected() == BATCH.unsigned_abs() {}
    // No copy of a message arrives later than this.
    let delete_inbox_rows = || {
        sqlx::query!(
            "DELETE FROM inbox WHERE (org_id, consumer, message_id) IN
                 (SELECT org_id, consumer, message_id FROM inbox WHERE consumed_at < now() - interval '7 days' LIMIT $1)",
            BATCH
        )
        .execute(outbox)
    };
    while in_time(delete_inbox_rows()).await?.rows_affected() == BATCH.unsigned_abs() {}
    watcher.delete_expired_revocations().await?;
    watcher.delete_ended_access().await?;
    watcher.delete_absent().await?;
    Ok(())
}

/// Replaying or dropping a dead letter removes its copy in Redis. But a worker that was just giving the message up may
/// add the copy after that, or Redis may have been unreachable. A remaining copy would raise an alert about a dead
/// letter that no longer exists.
async fn remove_stale_copies(outbox: &PgPool, redis: &Redis) -> anyhow::Result<()> {
    for stream in Inbound::all() {
        let letters = DeadLetter::all_of(redis, stream).await?;
        let messages = letters.iter().filter_map(DeadLetter::message);
        let (orgs, ids): (Vec<_>, Vec<_>) = messages.map(|(org, id)| (org.uuid(), id.uuid())).unzip();
        if ids.is_empty() {
            continue;
        }
        let stale = sqlx::query_scalar!(
            r#"SELECT message_id AS "message_id!: MessageId"
               FROM outbox JOIN unnest($1::uuid[], $2::uuid[]) AS copies (org_id, message_id) USING (org_id, message_id)
              WHERE dead_at IS NULL OR consumed_at IS NOT NULL"#,
            &orgs[..],
            &ids[..],
        );
        let stale: HashSet<MessageId> = in_time(stale.fetch_all(outbox)).await?.into_iter().collect();
        for letter in letters {
            if letter.message().is_some_and(|(_, id)| stale.contains(&id)) {
                DeadLetter::remove(redis, stream, letter.id).await?;
            }
        }
    }
    Ok(())
}

async fn tidy_groups(redis: &Redis, process: &str) -> redis::RedisResult<()> {
    for stream in Inbound::all() {
        let mut group = ConsumerGroup::new(redis.clone(), stream, process);
        group.remove_silent_consumers(CONSUMER_TIMEOUT).await?;
        // Registered before the first skip: an increase is invisible in a series whose first value is 1.
        let skips = counter!(STREAM_SKIPS, "stream" => stream.name());
        if group.restore_skipped().await? {
            skips.increment(1);
            tracing::warn!(%stream, "entries were skipped by their group; it delivers them now");
        }
    }
    Ok(())
}
