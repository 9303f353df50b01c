//! The relay's shards: leases that expire, have the wrong time or have no owner, and owners that resume too late.

use std::time::Duration;

use atrium_harness::Atrium;
use atrium_shared::{
    ids::OrgId,
    streams::{Inbound, RELAY_SHARDS},
};
use redis::AsyncCommands as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::platform::{TestPlatform, until};

/// Adds a message for a shard without a wake-up, unlike the production code.
async fn add(connection: &mut PgConnection, org: OrgId, topic: &str, shard: u16) {
    let aggregate = Uuid::from_u128((Uuid::now_v7().as_u128() & !7) | u128::from(shard));
    sqlx::query(
        "INSERT INTO outbox (org_id, message_id, topic, aggregate_id, payload) VALUES ($1, $2, $3, $4, '{}')",
    )
    .bind(org)
    .bind(Uuid::now_v7())
    .bind(topic)
    .bind(aggregate)
    .execute(connection)
    .await
    .expect("a message");
}

async fn add_to_all(connection: &mut PgConnection, org: OrgId) {
    for shard in 0..RELAY_SHARDS {
        add(connection, org, "chat", shard).await;
    }
}

/// Counts the published ones of the messages that these tests add.
async fn published(platform: &TestPlatform, topic: &str) -> i64 {
    let query = format!(
        "SELECT count(*) FROM outbox WHERE topic = '{topic}' AND payload = '{{}}' AND published_at IS NOT NULL"
    );
    platform.query_i64(&query).await
}

/// Counts the entries of all chat streams.
async fn entries(platform: &TestPlatform) -> usize {
    let mut length = 0;
    for shard in 0..RELAY_SHARDS {
        let entries: usize =
            platform.redis.clone().xlen(Inbound::Chat(shard).to_string()).await.expect("a stream");
        length += entries;
    }
    length
}

#[tokio::test]
async fn a_relay_stopped_between_reading_and_publishing_is_rejected_when_it_resumes() {
    let platform = TestPlatform::start(Atrium::builder().workers(["relay", "relay"])).await;
    let (tenant, _) = platform.request_organization().await;
    until("each relay owns half of the shards", async || shards_by_owner(&platform).await == [4, 4]).await;
    let mut superuser = platform.atrium.superuser().await;
    let mut tx = sqlx::Connection::begin(&mut superuser).await.expect("a transaction");
    // A relay that queries messages now waits for this lock, and then finds the messages.
    sqlx::query("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.expect("a lock");
    add_to_all(&mut tx, tenant.org).await;
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity JOIN pg_locks USING (pid)
          WHERE application_name LIKE 'workers-{}-%' AND query LIKE '%topics (name)%' AND NOT granted",
        platform.atrium.worker(0).pid()
    );
    until("the relay is in the middle of a batch", async || platform.query_i64(&waiting).await > 0).await;
    platform.atrium.worker(0).suspend();
    tx.commit().await.expect("a commit");

    let all = i64::from(RELAY_SHARDS);
    until("the other relay publishes", async || published(&platform, "chat").await == all).await;
    // On a busy machine a copy may already exist, because a reply of Redis may have been late.
    let before = entries(&platform).await;
    platform.atrium.worker(0).resume();
    until("the stopped relay owns its half again", async || shards_by_owner(&platform).await == [4, 4]).await;
    assert_eq!(entries(&platform).await, before, "no late entry was added");
}

#[tokio::test]
async fn all_shards_are_published_after_failures_of_leases_and_fencing_tokens() {
    let platform = TestPlatform::start(Atrium::builder().workers(["relay"])).await;
    let (tenant, _) = platform.request_organization().await;
    let mut superuser = platform.atrium.superuser().await;
    let mut sent = 0;
    for failure in [
        "DELETE FROM relay_leases",
        // PostgreSQL is restored to a state before all that Redis has seen, first with the present owner, then with one
        // that no longer exists.
        "UPDATE relay_leases SET token = 0",
        "UPDATE relay_leases SET token = 0, owner = 'gone', expires_at = '-infinity'",
        // The clock of PostgreSQL is set back by an hour, then forward.
        "UPDATE relay_leases SET owner = 'gone', expires_at = clock_timestamp() + interval '1 hour'",
        "UPDATE relay_leases SET expires_at = clock_timestamp() - interval '1 hour'",
    ] {
        sqlx::query(failure).execute(&mut superuser).await.expect(failure);
        add_to_all(&mut superuser, tenant.org).await;
        sent += i64::from(RELAY_SHARDS);
        until(failure, async || published(&platform, "chat").await == sent).await;
    }

    let fencing_tokens: Vec<i64> = (0..RELAY_SHARDS).map(|shard| 1_000 + i64::from(shard)).collect();
    for (shard, token) in (0..RELAY_SHARDS).zip(&fencing_tokens) {
        let key = Inbound::Chat(shard).fence(shard);
        let _: () = platform.redis.clone().set(key, token).await.expect("a fence");
    }
    add_to_all(&mut superuser, tenant.org).await;
    sent += i64::from(RELAY_SHARDS);
    until("the owners have taken higher tokens", async || published(&platform, "chat").await == sent).await;
    let tokens: Vec<i64> = sqlx::query_scalar("SELECT token FROM relay_leases ORDER BY shard")
        .fetch_all(&mut superuser)
        .await
        .expect("the leases");
    assert!(tokens.iter().zip(&fencing_tokens).all(|(token, seen)| token > seen), "{tokens:?}");
}

#[tokio::test]
async fn a_stream_that_rejects_entries_delays_no_other_stream() {
    let platform = TestPlatform::start(Atrium::builder().workers(["relay"])).await;
    let (tenant, _) = platform.request_organization().await;
    let mut superuser = platform.atrium.superuser().await;
    let config = Inbound::Config.to_string();
    // A key of the wrong type makes XADD fail, after the fencing token was stored.
    let _: () = platform.redis.clone().set(&config, "no stream").await.expect("a key");
    for shard in 0..RELAY_SHARDS {
        add(&mut superuser, tenant.org, "config", shard).await;
        add(&mut superuser, tenant.org, "chat", shard).await;
    }
    let all = i64::from(RELAY_SHARDS);
    until("the messages of the other streams are published", async || {
        published(&platform, "chat").await == all
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(published(&platform, "config").await, 0);
    let _: () = platform.redis.clone().del(&config).await.expect("the key is removed");
    until("the messages of the repaired stream are published", async || {
        published(&platform, "config").await == all
    })
    .await;
    assert_eq!(
        entries(&platform).await,
        usize::from(RELAY_SHARDS),
        "the messages of the other streams were published once"
    );
}

#[tokio::test]
async fn messages_are_published_once_after_redis_was_full_or_read_only() {
    let platform = TestPlatform::start(Atrium::builder().private_redis().workers(["relay"])).await;
    let (tenant, _) = platform.request_organization().await;
    let mut superuser = platform.atrium.superuser().await;
    let (mut sent, mut redis) = (0, platform.redis.clone());
    for (failure, repair) in [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]),
    ] {
        let mut command = async |words: [&str; 4]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            command.query_async::<()>(&mut redis).await.expect("a setting");
        };
        command(failure).await;
        add_to_all(&mut superuser, tenant.org).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(published(&platform, "chat").await, sent, "{failure:?}");
        command(repair).await;
        sent += i64::from(RELAY_SHARDS);
        until("everything is published", async || published(&platform, "chat").await == sent).await;
        assert_eq!(i64::try_from(entries(&platform).await), Ok(sent), "{failure:?}");
    }
}

/// Returns the number of shards of each relay, in ascending order.
pub(crate) async fn shards_by_owner(platform: &TestPlatform) -> Vec<i64> {
    let mut connection = platform.atrium.superuser().await;
    sqlx::query_scalar(
        "SELECT count(*) FROM relay_leases WHERE expires_at > clock_timestamp() GROUP BY owner ORDER BY count(*)",
    )
    .fetch_all(&mut connection)
    .await
    .expect("the leases")
}
