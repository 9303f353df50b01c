//! The janitor: deletes what has served its purpose, a little at a time, so that no table grows forever; and sees to
//! it that groups hold no names of processes that ended, and skip nothing, and that the streams of dead letters hold
//! none that was replayed or dropped.

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

use crate::timings::CONSUMER_SILENT_AFTER;

const EVERY: Duration = Duration::from_secs(60);
/// Groups are looked at more often: a process that cannot stay up leaves a name in each with every start.
const GROUPS_EVERY: Duration = Duration::from_secs(10);
/// Rows a statement deletes at most: short locks, short transactions.
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
            if let Err(error) = forget_stale_copies(&outbox, &letters).await {
                tracing::warn!(%error, "copies of former dead letters cannot be removed; trying again later");
            }
            if stop.run_until_cancelled(tokio::time::sleep(EVERY.mul_f64(jitter))).await.is_none() {
                return Ok(());
            }
        }
    });
    let (redis, process, stop) = (redis.clone(), process.to_owned(), shutdown.draining().clone());
    shutdown.spawn_critical("janitor of groups", async move {
        let mut ticks = tokio::time::interval(GROUPS_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = tidy_groups(&redis, &process).await {
                tracing::warn!(%error, "groups cannot be tidied; trying again");
            }
        }
        Ok(())
    });
}

async fn tidy_database(outbox: &PgPool, watcher: &Watcher) -> anyhow::Result<()> {
    for statement in [
        // A consumed message is of interest to whoever looks into what just happened, for an hour.
        "DELETE FROM outbox WHERE (org_id, id) IN
             (SELECT org_id, id FROM outbox WHERE consumed_at < now() - interval '1 hour' LIMIT $1)",
        // Much longer than any copy of a message can come late.
        "DELETE FROM inbox WHERE (org_id, consumer, message_id) IN
             (SELECT org_id, consumer, message_id FROM inbox WHERE consumed_at < now() - interval '7 days' LIMIT $1)",
    ] {
        let delete = || sqlx::query(statement).bind(BATCH).execute(outbox);
        while in_time(delete()).await?.rows_affected() == BATCH.unsigned_abs() {}
    }
    watcher.forget_expired_revocations().await?;
    watcher.forget_ended_access().await?;
    watcher.forget_the_absent().await?;
    Ok(())
}

/// Who replays or drops a dead letter removes its copy in Redis. But it may come later than that, from whoever was just
/// giving the message up, or have been out of reach; and what stays would raise an alarm that names nothing.
async fn forget_stale_copies(outbox: &PgPool, redis: &Redis) -> anyhow::Result<()> {
    for stream in Inbound::all() {
        let letters = DeadLetter::all_of(redis, stream).await?;
        let messages = letters.iter().filter_map(DeadLetter::message);
        let (orgs, ids): (Vec<_>, Vec<_>) = messages.map(|(org, id)| (org.uuid(), id.uuid())).unzip();
        if ids.is_empty() {
            continue;
        }
        let stale = sqlx::query_scalar(
            "SELECT message_id
               FROM outbox JOIN unnest($1::uuid[], $2::uuid[]) AS copies (org_id, message_id) USING (org_id, message_id)
              WHERE dead_at IS NULL OR consumed_at IS NOT NULL",
        );
        let stale: HashSet<MessageId> =
            in_time(stale.bind(orgs).bind(ids).fetch_all(outbox)).await?.into_iter().collect();
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
        group.forget_silent_consumers(CONSUMER_SILENT_AFTER).await?;
        // There from the first look on: of a series that begins with a one, nobody sees an increase.
        let skips = counter!(STREAM_SKIPS, "stream" => stream.name());
        if group.go_back_to_skipped().await? {
            skips.increment(1);
            tracing::warn!(%stream, "entries were skipped by their group; it delivers them now");
        }
    }
    Ok(())
}
