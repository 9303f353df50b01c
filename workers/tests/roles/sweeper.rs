//! The sweeper republishes and counts messages that Redis lost; messages that only wait are left alone.

use std::{collections::BTreeSet, time::Duration};

use atrium_harness::{Atrium, client::Client};
use atrium_shared::{
    ids::{MessageId, ProjectId},
    messages::{OutboxMessage, Topic},
    streams::{GROUP, Inbound},
};
use redis::AsyncCommands as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::platform::{SYSTEM, Tenant, TestPlatform, until};

const MESSAGES_PER_STREAM: usize = 5;

#[tokio::test]
async fn lost_messages_are_published_again_and_waiting_ones_are_not() {
    let platform = TestPlatform::start(Atrium::builder().private_redis().workers(["relay"])).await;
    let (tenant, _) = platform.request_organization().await;
    let redis = &mut platform.redis.clone();
    let stream = |number: u16| Inbound::Chat(number).to_string();
    // Each stream loses its messages in a different way, all at the same time.
    let mut sent = Vec::new();
    for number in 0..=6 {
        sent.push(send(&platform, tenant, number, MESSAGES_PER_STREAM).await);
    }
    until_published(&platform).await;
    let _: () = redis.del(stream(0)).await.expect("a deletion");
    let dump: Vec<u8> = redis::cmd("DUMP").arg(stream(1)).query_async(redis).await.expect("a dump");
    sent[1].extend(send(&platform, tenant, 1, 2).await);
    until_published(&platform).await;
    let mut restore = redis::cmd("RESTORE");
    restore.arg(stream(1)).arg(0).arg(dump).arg("REPLACE");
    let _: () = restore.query_async(redis).await.expect("an older dump");
    make_group(redis, 2, "0").await;
    let _: u64 = redis.xtrim(stream(2), redis::streams::StreamMaxlen::Equals(0)).await.expect("a trim");
    make_group(redis, 3, "$").await;
    make_group(redis, 4, "0").await;
    assert_eq!(read(redis, 4, "dies").await.len(), MESSAGES_PER_STREAM);
    let _: u64 = redis.xgroup_delconsumer(stream(4), GROUP, "dies").await.expect("a deletion");
    // The next two streams are healthy: stream 5 has no consumer yet, and stream 6 has a slow one.
    make_group(redis, 6, "0").await;
    assert_eq!(read(redis, 6, "slow").await.len(), MESSAGES_PER_STREAM);

    let lost = 4 * MESSAGES_PER_STREAM + 2;
    until("the lost messages are published again", async || republished(&platform).await == lost).await;
    until_published(&platform).await;
    make_group(redis, 0, "0").await;
    make_group(redis, 1, "0").await;
    for number in 0..=4 {
        let delivered = read(redis, number, "slow").await;
        let distinct: BTreeSet<&String> = delivered.iter().collect();
        assert_eq!(distinct, sent[usize::from(number)].iter().collect(), "stream {number}");
        assert_eq!(
            delivered.len(),
            sent[usize::from(number)].len(),
            "stream {number}: each is delivered once"
        );
        let length: usize = redis.xlen(stream(number)).await.expect("a stream");
        assert_eq!(length, delivered.len(), "stream {number}: no undelivered entry remains");
    }

    // Redis is down for longer than the sweeper waits for a message, and restarts with everything that was written.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    platform.atrium.redis().sigkill().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(platform.query_i64(UNPUBLISHED).await, 0, "no message counts as lost");
    platform.atrium.redis().respawn().await.expect("Redis starts again");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(republished(&platform).await, lost, "all messages wait, and none counts as lost");

    platform.atrium.redis().flush_all().await.expect("a flush");
    let all = platform.query_i64("SELECT count(*) FROM outbox WHERE published_at IS NOT NULL").await;
    let all = lost + usize::try_from(all).expect("a small number");
    until("all messages are published again", async || republished(&platform).await == all).await;
    until_published(&platform).await;
}

const UNPUBLISHED: &str = "SELECT count(*) FROM outbox WHERE published_at IS NULL AND available_at IS NULL";

async fn until_published(platform: &TestPlatform) {
    until("all are published", async || platform.query_i64(UNPUBLISHED).await == 0).await;
}

/// A payload that no consumer reads.
#[derive(Serialize, Deserialize)]
struct Numbered {
    number: usize,
}

impl OutboxMessage for Numbered {
    const TOPIC: Topic = Topic::Chat;
    type Aggregate = ProjectId;
}

/// Adds messages for the stream of one chat shard. No worker of these tests consumes them.
async fn send(platform: &TestPlatform, tenant: Tenant, shard: u16, count: usize) -> Vec<String> {
    let aggregate = Uuid::from_u128((Uuid::now_v7().as_u128() & !7) | u128::from(shard));
    let mut tx = platform.db.org_tx(&SYSTEM, tenant.org).await.expect("a transaction");
    let mut sent = Vec::new();
    for number in 0..count {
        let message: MessageId =
            tx.enqueue(ProjectId::from(aggregate), &Numbered { number }).await.expect("a message");
        sent.push(message.to_string());
    }
    tx.commit().await.expect("a commit");
    sent
}

async fn make_group(redis: &mut redis::aio::MultiplexedConnection, shard: u16, at: &str) {
    let _: () =
        redis.xgroup_create_mkstream(Inbound::Chat(shard).to_string(), GROUP, at).await.expect("a group");
}

/// Reads the messages that a chat shard now delivers to a consumer, where they become pending.
async fn read(redis: &mut redis::aio::MultiplexedConnection, shard: u16, consumer: &str) -> Vec<String> {
    let options = redis::streams::StreamReadOptions::default().group(GROUP, consumer);
    let reply: Option<redis::streams::StreamReadReply> =
        redis.xread_options(&[Inbound::Chat(shard).to_string()], &[">"], &options).await.expect("a reply");
    let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids);
    entries.map(|entry| entry.get("message").expect("a message")).collect()
}

/// Returns the number of messages that the sweeper has published again.
async fn republished(platform: &TestPlatform) -> usize {
    let reply =
        Client::new(platform.atrium.worker(0).admin_url()).get("/metrics").send().await.expect("metrics");
    let text = reply.must(200).text();
    let value = text.lines().find_map(|line| line.strip_prefix("atrium_outbox_republished_total "));
    value.map_or(0, |value| value.parse().expect("a whole number"))
}
