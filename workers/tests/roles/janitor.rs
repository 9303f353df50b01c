//! The janitor deletes rows and consumers that are no longer needed, even if their user or process never returns.

use atrium_harness::Atrium;
use atrium_shared::streams::{GROUP, Inbound};
use redis::{
    AsyncCommands as _,
    streams::{StreamInfoConsumersReply, StreamPendingReply},
};

use crate::platform::{TestPlatform, until};

#[tokio::test]
async fn the_janitor_deletes_expired_rows_of_users_who_never_return() {
    let mut platform = TestPlatform::start(Atrium::builder().workers([])).await;
    let (tenant, _) = platform.request_organization().await;
    for statement in [
        "INSERT INTO idempotency_keys (caller_id, route, key, fingerprint, status, headers, body, created_at)
         VALUES ($1, 'POST /v1/orgs', 'old', '', 202, '{}', '\"\"', now() - interval '25 hours'),
                ($1, 'POST /v1/orgs', 'new', '', 202, '{}', '\"\"', now() - interval '1 hour')",
        "INSERT INTO auth_sessions (user_id, id, started_at, expires_at)
         VALUES ($1, gen_random_uuid(), now() - interval '31 days', now() - interval '1 day'),
                ($1, gen_random_uuid(), now(), now() + interval '30 days')",
    ] {
        sqlx::query(statement).bind(tenant.user).execute(&mut platform.superuser).await.expect("old rows");
    }
    platform.atrium.add_worker(Some("janitor")).await;
    let remaining = "SELECT (SELECT count(*) FROM idempotency_keys) + (SELECT count(*) FROM auth_sessions)";
    until("the expired rows are deleted", async || platform.query_i64(remaining).await == 2).await;
    let new = "SELECT count(*) FROM idempotency_keys, auth_sessions WHERE key = 'new' AND expires_at > now()";
    assert_eq!(platform.query_i64(new).await, 1);
}

#[tokio::test]
async fn a_thousand_abandoned_consumers_are_removed_and_no_entry_is_lost() {
    let mut platform = TestPlatform::start(Atrium::builder().workers([])).await;
    let stream = Inbound::Saga.to_string();
    let () = platform.redis.xgroup_create_mkstream(&stream, GROUP, "0").await.expect("a group");
    let mut pipe = redis::pipe();
    for n in 0..1_000 {
        pipe.cmd("XGROUP").arg(&["CREATECONSUMER", &stream, GROUP, &format!("workers-{n}")]).ignore();
    }
    let () = pipe.query_async(&mut platform.redis).await.expect("consumers");
    let _: String = platform.redis.xadd(&stream, "*", &[("n", 1)]).await.expect("an entry");
    let mut read = redis::cmd("XREADGROUP");
    read.arg(&["GROUP", GROUP, "workers-7", "STREAMS", &stream, ">"]);
    let _: redis::Value = read.query_async(&mut platform.redis).await.expect("an entry");

    platform.atrium.add_worker(Some("janitor")).await;
    let redis = platform.redis.clone();
    let names = async || {
        let reply: StreamInfoConsumersReply =
            redis.clone().xinfo_consumers(&stream, GROUP).await.expect("a group");
        reply.consumers.into_iter().map(|consumer| consumer.name).collect::<Vec<_>>()
    };
    until("only the consumer with a pending entry remains", async || names().await == ["workers-7"]).await;
    let pending: StreamPendingReply = platform.redis.clone().xpending(&stream, GROUP).await.expect("a group");
    assert_eq!(pending.count(), 1);
    // Once its entry is claimed, the consumer is removed as well.
    platform.atrium.add_worker(Some("saga")).await;
    until("the consumer is removed", async || !names().await.contains(&"workers-7".to_owned())).await;
    let dead: usize = platform.redis.xlen(Inbound::Saga.dead_letters()).await.expect("a stream");
    assert_eq!(dead, 1, "its entry was not a message");
}
