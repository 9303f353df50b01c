//! The consumer loop: every message has its effect once and is not lost, even if workers or connections are slow,
//! stopped or lost.

use std::time::Duration;

use atrium_harness::Atrium;
use atrium_servers::{postgres::Durability, proxy::Link};
use atrium_shared::{
    ids::SagaId,
    streams::{GROUP, Inbound},
};
use redis::{AsyncCommands as _, streams::StreamPendingCountReply};
use sqlx::{Connection as _, PgConnection};

use crate::platform::{TestPlatform, until};

/// Returns the pending entries of the sagas' stream: the consumer of each, and the number of its deliveries.
async fn pending(platform: &TestPlatform) -> Vec<(String, usize)> {
    // Without a group, no entry is pending.
    let reply: redis::RedisResult<StreamPendingCountReply> =
        platform.redis.clone().xpending_count(Inbound::Saga.to_string(), GROUP, "-", "+", 10).await;
    reply.unwrap_or_default().ids.into_iter().map(|entry| (entry.consumer, entry.times_delivered)).collect()
}

/// Opens a transaction that locks the row of the saga, so that every worker waits for it.
async fn lock_saga(platform: &TestPlatform, saga: SagaId) -> PgConnection {
    let mut connection = platform.atrium.superuser().await;
    for statement in ["BEGIN", "SET LOCAL idle_in_transaction_session_timeout = 0"] {
        sqlx::query(statement).execute(&mut connection).await.expect("a transaction");
    }
    sqlx::query("SELECT FROM sagas WHERE id = $1 FOR UPDATE")
        .bind(saga)
        .execute(&mut connection)
        .await
        .expect("a lock");
    connection
}

#[tokio::test]
async fn a_long_step_is_not_claimed_by_another_worker() {
    let mut platform = TestPlatform::start(Atrium::builder().workers(["relay"])).await;
    let (_, saga) = platform.request_organization().await;
    let lock = lock_saga(&platform, saga).await;
    platform.atrium.add_worker(Some("saga")).await;
    until("the message is being handled", async || !pending(&platform).await.is_empty()).await;
    let owner = pending(&platform).await;
    platform.atrium.add_worker(Some("saga")).await;
    // This is longer than the time after which entries are claimed, and shorter than the timeout of a statement.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(pending(&platform).await, owner, "the owner is the same, and the entry was delivered once");
    let renewed = "SELECT count(*) FROM outbox
                    WHERE topic = 'saga' AND published_at > created_at + interval '6 seconds' AND available_at IS NULL";
    assert_eq!(
        platform.query_i64(renewed).await,
        1,
        "the message is renewed, so the sweeper does not treat it as lost"
    );
    lock.close().await.expect("out of the way");
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    platform.until_all_is_consumed().await;
    assert_eq!(platform.query_i64("SELECT count(*) FROM saga_events").await, 5);
}

// The proxy needs its own thread while the end of the test waits until the database is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_silently_block_no_message() {
    let builder = Atrium::builder().workers(["relay", "saga"]).database_by_proxy();
    let platform = TestPlatform::start(builder.setting("ATRIUM_DATABASE_CONNECTIONS", "2")).await;
    platform.atrium.worker(0).suspend();
    // This is one more than there are connections, so that none is free.
    let (mut sagas, mut locks) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (_, saga) = platform.request_organization().await;
        locks.push(lock_saga(&platform, saga).await);
        sagas.push(saga);
    }
    platform.atrium.worker(0).resume();
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND usename = 'atrium_app' AND wait_event_type = 'Lock'";
    until("all connections wait for locks", async || platform.query_i64(waiting).await == 2).await;
    platform.atrium.database_proxy().set(Link::ClientUnaware);
    for lock in locks {
        lock.close().await.expect("out of the way");
    }
    for saga in sagas {
        until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    }
    platform.until_all_is_consumed().await;
    until("nothing is pending", async || pending(&platform).await.is_empty()).await;
    assert_eq!(
        platform.query_i64("SELECT count(*) FROM saga_events").await,
        3 * 5,
        "every step is recorded once"
    );
}

#[tokio::test]
async fn a_consumer_stopped_until_its_entry_was_claimed_changes_nothing_when_it_resumes() {
    let mut platform = TestPlatform::start(Atrium::builder().workers(["relay"])).await;
    let (_, saga) = platform.request_organization().await;
    let lock = lock_saga(&platform, saga).await;
    platform.atrium.add_worker(Some("saga")).await;
    until("the message is being handled", async || !pending(&platform).await.is_empty()).await;
    let owner = pending(&platform).await;
    platform.atrium.worker(1).suspend();
    platform.atrium.add_worker(Some("saga")).await;
    until("another worker has claimed the entry", async || {
        pending(&platform).await.first().is_some_and(|(consumer, _)| *consumer != owner[0].0)
    })
    .await;
    lock.close().await.expect("out of the way");
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    platform.atrium.worker(1).resume();
    let late = platform.atrium.worker(1);
    until("the late owner has noticed", async || late.logs().contains("a message waits")).await;
    platform.until_all_is_consumed().await;
    until("nothing is pending", async || pending(&platform).await.is_empty()).await;
    assert_eq!(
        platform.query_i64("SELECT count(*) FROM saga_events").await,
        5,
        "every step is recorded once"
    );
    assert_eq!(platform.query_i64("SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL").await, 0);
}

#[tokio::test]
async fn sagas_continue_after_each_kind_of_redis_failure() {
    let mut platform = TestPlatform::start(Atrium::builder().private_redis()).await;
    let (_, saga) = platform.request_organization().await;
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    for (failure, repair) in [
        (&["CONFIG", "SET", "maxmemory", "1"][..], &["CONFIG", "SET", "maxmemory", "0"][..]),
        (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
        (&["DEL", "atrium:{saga}:in"], &["PING"]),
        (&["XGROUP", "DESTROY", "atrium:{saga}:in", GROUP], &["PING"]),
        (&["XGROUP", "SETID", "atrium:{saga}:in", GROUP, "99999999999999-0"], &["PING"]),
    ] {
        command(&platform, failure).await;
        let (_, saga) = platform.request_organization().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        command(&platform, repair).await;
        until(&format!("COMMITTED after {failure:?}"), async || {
            platform.saga_status(saga).await == "COMMITTED"
        })
        .await;
    }
    platform.atrium.redis().suspend();
    let (_, saga) = platform.request_organization().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    platform.atrium.redis().resume();
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    platform.until_all_is_consumed().await;
    platform.redis = platform.atrium.redis_connection().await;
    assert_eq!(
        platform.query_i64("SELECT count(*) FROM saga_events").await,
        5 * 7,
        "every step is recorded once"
    );
    assert_eq!(platform.query_i64("SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL").await, 0);
}

async fn command(platform: &TestPlatform, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let _: redis::Value = command.query_async(&mut platform.redis.clone()).await.expect("an answer");
}

#[tokio::test]
async fn an_outage_of_postgresql_adds_no_delivery_to_a_message() {
    let mut platform =
        TestPlatform::start(Atrium::builder().private_postgres(Durability::Durable).workers(["relay"])).await;
    let (_, saga) = platform.request_organization().await;
    let published = "SELECT count(*) FROM outbox WHERE topic = 'saga' AND published_at IS NOT NULL";
    until("the message is published", async || platform.query_i64(published).await == 1).await;
    let lock = lock_saga(&platform, saga).await;
    platform.atrium.add_worker(Some("saga")).await;
    until("the message is being handled", async || !pending(&platform).await.is_empty()).await;
    platform.atrium.postgres().sigkill().await;
    drop(lock);
    tokio::time::sleep(Duration::from_secs(8)).await;
    let deliveries: Vec<usize> =
        pending(&platform).await.into_iter().map(|(_, deliveries)| deliveries).collect();
    assert_eq!(deliveries, [1]);
    platform.atrium.postgres().respawn().await.expect("PostgreSQL starts again");
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
}
