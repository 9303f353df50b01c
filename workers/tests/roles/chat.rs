//! Chat actions are published once, in order, and counted once, even if workers or Redis crash.

use std::time::Duration;

use atrium_harness::Atrium;
use atrium_shared::{
    ids::ProjectId,
    messages::{ChatAction, OutboxMessage, Topic},
    streams::{GROUP, Inbound, Live, chat_lease_key, chat_shard},
};
use redis::AsyncCommands as _;
use serde::{Deserialize, Serialize};

use crate::platform::{SYSTEM, Tenant, TestPlatform, until};

async fn total(platform: &TestPlatform, tenant: Tenant) -> i64 {
    let query = format!(
        "SELECT COALESCE(sum(count), 0)::bigint FROM chat_counters WHERE project_id = '{}'",
        tenant.project
    );
    platform.query_i64(&query).await
}

async fn press_many(platform: &TestPlatform, tenant: Tenant, count: usize) -> Vec<String> {
    let mut pressed = Vec::new();
    for _ in 0..count {
        pressed.push(platform.press(tenant, ChatAction::Ready).await.to_string());
    }
    pressed
}

/// Asserts that each pressed action is published once, in order, and counted once.
async fn assert_all_once(platform: &TestPlatform, tenant: Tenant, pressed: &[String]) {
    until("all are published", async || platform.published(tenant).await.len() >= pressed.len()).await;
    assert_eq!(platform.published(tenant).await, pressed);
    assert_eq!(total(platform, tenant).await, i64::try_from(pressed.len()).expect("a small number"));
}

#[tokio::test]
async fn actions_are_published_in_order_and_counted_and_the_stream_ends_empty() {
    let mut platform = TestPlatform::start(Atrium::builder()).await;
    let tenant = platform.tenant().await;
    let pressed = press_many(&platform, tenant, 300).await;
    assert_all_once(&platform, tenant, &pressed).await;
    let remaining: usize =
        platform.redis.xlen(Inbound::Chat(chat_shard(tenant.project)).to_string()).await.expect("a stream");
    assert_eq!(remaining, 0);
}

#[tokio::test]
async fn an_action_that_cannot_be_published_stays_pending_and_is_published_later() {
    let mut platform = TestPlatform::start(Atrium::builder()).await;
    let tenant = platform.tenant().await;
    let live = Live::chat_of(tenant.project).to_string();
    // A key of the wrong type makes XADD fail, as running out of memory would.
    let _: () = platform.redis.set(&live, "no stream").await.expect("a key");
    let pressed = vec![platform.press(tenant, ChatAction::Ready).await.to_string()];
    until("the action is counted", async || total(&platform, tenant).await == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let inbound = Inbound::Chat(chat_shard(tenant.project)).to_string();
    let pending: redis::streams::StreamPendingReply =
        platform.redis.xpending(&inbound, GROUP).await.expect("a group");
    assert_eq!(pending.count(), 1, "the action stays pending because it was not published");
    let _: () = platform.redis.del(&live).await.expect("the key is removed");
    assert_all_once(&platform, tenant, &pressed).await;
}

#[tokio::test]
async fn owners_killed_repeatedly_publish_and_count_once() {
    let mut platform = TestPlatform::start(Atrium::builder().full_workers(2)).await;
    let tenant = platform.tenant().await;
    let mut pressed = Vec::new();
    for round in 0..6_usize {
        pressed.extend(press_many(&platform, tenant, 50).await);
        platform.atrium.worker(round % 2).restart().await.expect("the worker starts again");
        pressed.extend(press_many(&platform, tenant, 50).await);
    }
    assert_all_once(&platform, tenant, &pressed).await;
}

#[tokio::test]
async fn an_owner_paused_past_its_lease_changes_nothing_when_it_resumes() {
    let mut platform = TestPlatform::start(Atrium::builder().full_workers(2)).await;
    let tenant = platform.tenant().await;
    let mut pressed = press_many(&platform, tenant, 20).await;
    assert_all_once(&platform, tenant, &pressed).await;

    let owner = owner(&platform, tenant).await;
    platform.atrium.worker(owner).suspend();
    pressed.extend(press_many(&platform, tenant, 20).await);
    // The other worker takes the shard when the lease has expired.
    assert_all_once(&platform, tenant, &pressed).await;
    platform.atrium.worker(owner).resume();
    pressed.extend(press_many(&platform, tenant, 20).await);
    assert_all_once(&platform, tenant, &pressed).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_all_once(&platform, tenant, &pressed).await;
}

/// Returns the worker that owns the lease of the shard of a tenant.
async fn owner(platform: &TestPlatform, tenant: Tenant) -> usize {
    let token: String =
        platform.redis.clone().get(chat_lease_key(chat_shard(tenant.project))).await.expect("a lease");
    // The name of a process contains its process id.
    let process_name_prefix = |worker: usize| format!("workers-{}-", platform.atrium.worker(worker).pid());
    (0..2).find(|worker| token.starts_with(&process_name_prefix(*worker))).expect("one of the two holds it")
}

#[tokio::test]
async fn after_a_flush_the_chat_continues_in_a_new_epoch() {
    let mut platform = TestPlatform::start(Atrium::builder().private_redis()).await;
    let tenant = platform.tenant().await;
    let before = press_many(&platform, tenant, 10).await;
    assert_all_once(&platform, tenant, &before).await;
    let epoch = newest_epoch(&platform, tenant).await;
    platform.atrium.redis().flush_all().await.expect("a flush");
    let after = press_many(&platform, tenant, 10).await;
    until("the actions pressed after the flush are published", async || {
        platform.published(tenant).await == after
    })
    .await;
    assert_eq!(total(&platform, tenant).await, 20, "counting continued");
    assert_ne!(newest_epoch(&platform, tenant).await, epoch);
}

/// A message that no release can decode.
#[derive(Serialize, Deserialize)]
struct Poison {
    nonsense: u8,
}

impl OutboxMessage for Poison {
    const TOPIC: Topic = Topic::Chat;
    type Aggregate = ProjectId;
}

#[tokio::test]
async fn an_unreadable_message_does_not_delay_the_others() {
    let mut platform = TestPlatform::start(Atrium::builder()).await;
    let tenant = platform.tenant().await;
    let inbound = Inbound::Chat(chat_shard(tenant.project));
    let _: String =
        platform.redis.xadd(inbound.to_string(), "*", &[("action", "ready")]).await.expect("an entry");
    let mut tx = platform.db.org_tx(&SYSTEM, tenant.org).await.expect("a transaction");
    tx.enqueue(tenant.project, &Poison { nonsense: 1 }).await.expect("a message");
    tx.commit().await.expect("a commit");
    let marked_dead = "SELECT count(*) FROM outbox WHERE topic = 'chat' AND dead_at IS NOT NULL";
    until("the message is marked dead", async || platform.query_i64(marked_dead).await == 1).await;
    let pressed = press_many(&platform, tenant, 3).await;
    assert_all_once(&platform, tenant, &pressed).await;
    let dead: usize = platform.redis.xlen(inbound.dead_letters()).await.expect("a stream");
    assert_eq!(dead, 2);
}

#[tokio::test]
async fn a_redis_restart_never_double_counts_and_may_change_the_epoch() {
    let mut platform = TestPlatform::start(Atrium::builder().private_redis()).await;
    let tenant = platform.tenant().await;
    let live = Live::chat_of(tenant.project).to_string();
    // When Redis stops, the first action is counted but not published. After the restart it is delivered again with the
    // same id.
    let _: () = platform.redis.set(&live, "no stream").await.expect("a key");
    let mut pressed = press_many(&platform, tenant, 5).await;
    until("the action is counted", async || total(&platform, tenant).await >= 1).await;
    platform.atrium.redis().restart().await.expect("Redis starts again");
    platform.redis = platform.atrium.redis_connection().await;
    let _: () = platform.redis.del(&live).await.expect("the key is removed");
    pressed.extend(press_many(&platform, tenant, 5).await);
    assert_all_once(&platform, tenant, &pressed).await;

    let before = newest_epoch(&platform, tenant).await;
    platform.atrium.redis().restart().await.expect("Redis starts again");
    platform.redis = platform.atrium.redis_connection().await;
    pressed.extend(press_many(&platform, tenant, 1).await);
    assert_all_once(&platform, tenant, &pressed).await;
    assert_eq!(newest_epoch(&platform, tenant).await, before, "the owner found that no event was lost");

    platform.atrium.worker(0).sigkill().await;
    platform.atrium.redis().restart().await.expect("Redis starts again");
    platform.redis = platform.atrium.redis_connection().await;
    platform.atrium.worker(0).respawn().await.expect("the worker starts again");
    pressed.extend(press_many(&platform, tenant, 1).await);
    assert_all_once(&platform, tenant, &pressed).await;
    let after = newest_epoch(&platform, tenant).await;
    assert_eq!(before[..8], after[..8], "the history did not change");
    assert_ne!(before[8..], after[8..], "the second half changed because events may have been lost");
}

async fn newest_epoch(platform: &TestPlatform, tenant: Tenant) -> String {
    let live = Live::chat_of(tenant.project).to_string();
    let last: redis::streams::StreamRangeReply =
        platform.redis.clone().xrevrange_count(live, "+", "-", 1).await.expect("a stream");
    last.ids[0].get("e").expect("an epoch")
}
