//! Every message of the outbox is published and consumed, even if Redis loses it. No message is marked as published or
//! consumed too early.

use std::time::Duration;

use atrium_harness::Atrium;
use atrium_shared::{
    ids::{MessageId, SagaId},
    messages::{OutboxMessage, RevisionNotice, Topic},
    saga::SagaKind,
    streams::{GROUP, Inbound},
};
use redis::AsyncCommands as _;
use serde::{Deserialize, Serialize};

use crate::platform::{SYSTEM, TestPlatform, until};

const PUBLISHED: &str =
    "SELECT count(*) FROM outbox WHERE topic = 'saga' AND published_at IS NOT NULL AND available_at IS NULL";

#[tokio::test]
async fn a_message_is_marked_published_only_after_redis_accepted_it() {
    let mut platform = TestPlatform::start(Atrium::builder().private_redis().workers(["relay"])).await;
    platform.atrium.redis().sigkill().await;
    let (_, saga) = platform.request_organization().await;
    // This is long enough for two polls and every wake-up that the commit causes.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(platform.query_i64(PUBLISHED).await, 0, "Redis is down, so nothing can have been published");

    platform.atrium.redis().respawn().await.expect("Redis starts again");
    until("the relay publishes", async || platform.query_i64(PUBLISHED).await == 1).await;
    platform.redis = platform.atrium.redis_connection().await;
    let length: usize = platform.redis.xlen(Inbound::Saga.to_string()).await.expect("a stream");
    assert_eq!(length, 1, "the message that is marked as published is in the stream");
    platform.atrium.add_worker(Some("saga")).await;
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
}

#[tokio::test]
async fn messages_flushed_from_redis_are_published_again() {
    let mut platform = TestPlatform::start(Atrium::builder().private_redis().workers(["relay"])).await;
    let mut sagas = Vec::new();
    for _ in 0..10 {
        sagas.push(platform.request_organization().await.1);
    }
    until("all are published", async || platform.query_i64(PUBLISHED).await == 10).await;
    platform.atrium.redis().flush_all().await.expect("a flush");
    platform.atrium.add_worker(Some("saga")).await;
    for saga in sagas {
        until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    }
}

#[tokio::test]
async fn a_blocked_reader_recovers_from_a_flush() {
    let platform = TestPlatform::start(Atrium::builder().private_redis()).await;
    for _ in 0..3 {
        platform.atrium.redis().flush_all().await.expect("a flush");
        let (_, saga) = platform.request_organization().await;
        until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    }
}

#[tokio::test]
async fn a_message_published_twice_has_its_effect_once() {
    let mut platform = TestPlatform::start(Atrium::builder().workers(["relay"])).await;
    let (tenant, saga) = platform.request_organization().await;
    until("the message is published", async || platform.query_i64(PUBLISHED).await == 1).await;
    let stream = Inbound::Saga.to_string();
    let reply: redis::streams::StreamRangeReply = platform.redis.xrange_all(&stream).await.expect("a stream");
    let fields: Vec<(String, redis::Value)> = reply.ids[0].map.clone().into_iter().collect();
    for _ in 0..5 {
        let mut copy = redis::cmd("XADD");
        copy.arg(&stream).arg("*");
        for (name, value) in &fields {
            copy.arg(name).arg(redis::from_redis_value::<String>(value.clone()).expect("text"));
        }
        let _: String = copy.query_async(&mut platform.redis).await.expect("a copy");
    }
    platform.atrium.add_worker(Some("saga")).await;
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    until("the stream is empty", async || {
        let length: usize = platform.redis.clone().xlen(&stream).await.expect("a stream");
        length == 0
    })
    .await;
    let steps =
        format!("SELECT count(*) FROM saga_events WHERE org_id = '{}' AND step IS NOT NULL", tenant.org);
    assert_eq!(platform.query_i64(&steps).await, 4, "every step is recorded once");
}

#[tokio::test]
async fn a_lower_id_that_commits_later_is_not_skipped() {
    let mut platform = TestPlatform::start(Atrium::builder()).await;
    let tenant = platform.tenant().await;
    let notice = RevisionNotice { revision: 1 };
    let mut late = platform.db.org_tx(&SYSTEM, tenant.org).await.expect("a transaction");
    let lower = late.enqueue(tenant.org, &notice).await.expect("a message");
    let mut early = platform.db.org_tx(&SYSTEM, tenant.org).await.expect("a transaction");
    let higher = early.enqueue(tenant.org, &notice).await.expect("a message");
    early.commit().await.expect("a commit");
    until("the higher id is consumed", async || is_consumed(&platform, higher).await).await;
    late.commit().await.expect("a commit");
    until("the lower id is consumed", async || is_consumed(&platform, lower).await).await;
}

async fn is_consumed(platform: &TestPlatform, message: MessageId) -> bool {
    let query =
        format!("SELECT count(*) FROM outbox WHERE message_id = '{message}' AND consumed_at IS NOT NULL");
    platform.query_i64(&query).await == 1
}

#[tokio::test]
async fn several_relays_and_saga_workers_lose_and_repeat_nothing() {
    let platform =
        TestPlatform::start(Atrium::builder().workers(["relay", "relay,saga", "saga", "saga"])).await;
    let mut sagas = Vec::new();
    for _ in 0..40 {
        sagas.push(platform.request_organization().await.1);
    }
    for saga in sagas {
        until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    }
    platform.until_all_is_consumed().await;
    assert_eq!(platform.query_i64("SELECT count(*) FROM saga_events").await, 40 * 5);
}

#[tokio::test]
async fn another_relay_replaces_a_paused_one_whose_late_copies_change_nothing() {
    let platform = TestPlatform::start(Atrium::builder().workers(["relay", "relay", "saga"])).await;
    platform.atrium.worker(0).suspend();
    let (_, saga) = platform.request_organization().await;
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    platform.atrium.worker(0).resume();
    let (_, saga) = platform.request_organization().await;
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    assert_eq!(platform.query_i64("SELECT count(*) FROM saga_events").await, 10);
}

#[tokio::test]
async fn a_message_to_be_retried_waits_in_the_outbox_even_when_redis_is_flushed() {
    let mut platform = TestPlatform::start(Atrium::builder().private_redis().workers(["relay"])).await;
    let (tenant, saga) = platform.request_organization().await;
    let set_kind = "UPDATE sagas SET kind = $2 WHERE id = $1";
    let later = sqlx::query(set_kind).bind(saga).bind("of.a.later.release");
    later.execute(&mut platform.superuser).await.expect("a saga that this release does not know");
    platform.atrium.add_worker(Some("saga")).await;
    let waiting = format!(
        "SELECT count(*) FROM outbox WHERE org_id = '{}' AND payload ->> 'wake' = 'advance'
            AND published_at IS NULL AND available_at > now()",
        tenant.org
    );
    // Each retry is exactly one message, even if Redis is flushed.
    for round in 1..=8 {
        until("the message waits", async || platform.query_i64(&waiting).await == 1).await;
        platform.atrium.redis().flush_all().await.expect("a flush");
        let done = format!(
            "SELECT count(*) FROM outbox WHERE org_id = '{}' AND payload ->> 'wake' = 'advance'
                AND consumed_at IS NOT NULL",
            tenant.org
        );
        assert_eq!(platform.query_i64(&done).await, round);
        sqlx::query("UPDATE outbox SET available_at = now() WHERE payload ->> 'wake' = 'advance'")
            .execute(&mut platform.superuser)
            .await
            .expect("the pause is over");
    }
    let current = sqlx::query(set_kind).bind(saga).bind(SagaKind::CreateOrganization.name());
    current.execute(&mut platform.superuser).await.expect("a saga that this release knows");
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    assert_eq!(platform.query_i64("SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL").await, 0);
}

/// A message that no release can decode.
#[derive(Serialize, Deserialize)]
struct Poison {
    saga: u8,
}

impl OutboxMessage for Poison {
    const TOPIC: Topic = Topic::Saga;
    type Aggregate = SagaId;
}

#[tokio::test]
async fn an_undecodable_message_becomes_a_dead_letter_and_others_are_handled() {
    let mut platform = TestPlatform::start(Atrium::builder()).await;
    let tenant = platform.tenant().await;
    let mut tx = platform.db.org_tx(&SYSTEM, tenant.org).await.expect("a transaction");
    tx.enqueue(SagaId::new(), &Poison { saga: 7 }).await.expect("poison");
    tx.commit().await.expect("a commit");
    // An entry that is not a message.
    let _: String =
        platform.redis.xadd(Inbound::Saga.to_string(), "*", &[("nonsense", "1")]).await.expect("an entry");

    let (_, saga) = platform.request_organization().await;
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    until("both entries are dead letters", async || {
        let dead: usize = platform.redis.clone().xlen(Inbound::Saga.dead_letters()).await.expect("a stream");
        dead == 2
    })
    .await;
    let marked =
        "SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL AND dead_reason LIKE '%cannot be understood%'";
    assert_eq!(platform.query_i64(marked).await, 1);
    until("nothing stays pending", async || {
        let pending: redis::streams::StreamPendingReply =
            platform.redis.clone().xpending(Inbound::Saga.to_string(), GROUP).await.expect("a group");
        pending.count() == 0
    })
    .await;
}
