//! PostgreSQL or Redis is unavailable: responses report it, and the API recovers afterwards.

use std::time::{Duration, Instant};

use atrium_harness::Atrium;
use atrium_servers::{postgres::Durability, proxy::Link};
use serde_json::json;
use sqlx::Connection as _;

use crate::{CheckedSend as _, final_status, until};

#[tokio::test]
async fn requests_fail_without_postgresql_and_recover_with_it() {
    let atrium = Atrium::builder().private_postgres(Durability::Durable).start().await;
    let guest = atrium.guest().await;
    let org = guest.organization("Before").await.unwrap();
    atrium.postgres().sigkill().await;
    let refused = guest.client.get(format!("/v1/orgs/{org}")).refused(503, "unavailable").await;
    assert!(refused.header("retry-after").is_some());
    guest.client.post("/v1/orgs").json(json!({ "name": "During" })).refused(503, "unavailable").await;
    atrium.client().post("/v1/auth/guest").refused(503, "unavailable").await;
    // The response contains no internal details of the outage.
    assert!(!refused.text().contains("127.0.0.1") && !refused.text().to_lowercase().contains("postgres"));
    // Requests that need no database still work, including the verification of tokens.
    guest.client.get("/v1/auth/me").answers(200).await;
    atrium.client().get("/").answers(200).await;
    let admin = atrium_harness::client::Client::new(atrium.api(0).admin_url());
    admin.get("/healthz").answers(200).await;

    atrium.postgres().respawn().await.unwrap();
    until("the API has reconnected", async || {
        guest.client.get(format!("/v1/orgs/{org}")).send().await.unwrap().code() == 200
    })
    .await;
    guest.organization("After").await.unwrap();
}

// The proxy needs a thread of its own while the end of the test blocks until the database is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_over_dead_connections_return_them_to_the_pool() {
    let builder = Atrium::builder().database_by_proxy();
    let atrium = builder.setting("ATRIUM_DATABASE_CONNECTIONS", "2").start().await;
    let guest = atrium.guest().await;
    let org = guest.organization("Before").await.unwrap();
    let mut superuser = atrium.superuser().await;
    let mut lock = superuser.begin().await.unwrap();
    sqlx::query("SELECT FROM orgs FOR UPDATE").execute(&mut *lock).await.unwrap();
    let write = || guest.client.post(format!("/v1/orgs/{org}/projects")).json(json!({ "name": "Harbor" }));
    let writes = [tokio::spawn(write().send()), tokio::spawn(write().send())];
    let waiting = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND usename = 'atrium_app' AND wait_event_type = 'Lock'";
    let mut observer = atrium.superuser().await;
    until("both writes wait for the lock", async || {
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut observer).await.unwrap() == 2
    })
    .await;
    atrium.database_proxy().set(Link::ClientUnaware);
    lock.rollback().await.unwrap();
    // Both connections of the pool are still in use, because a client's disconnect does not end a write.
    for write in writes {
        write.abort();
    }
    let started_at = Instant::now();
    while write().send().await.unwrap().code() != 201 {
        assert!(started_at.elapsed() < Duration::from_secs(90), "the pool never gets its connections back");
    }
}

#[tokio::test]
async fn durable_writes_are_accepted_without_redis() {
    let atrium = Atrium::builder().private_redis().start().await;
    let guest = atrium.guest().await;
    let org = guest.organization("Before").await.unwrap();
    atrium.redis().sigkill().await;
    guest.client.get(format!("/v1/orgs/{org}/configs/status")).refused(503, "unavailable").await;
    guest.project(&org, "During").await.unwrap();
    guest.configure(&org, "chat.max_active_sessions", json!(2), "an outage").await.unwrap();
    let created = guest.create_organization("During").await.unwrap();
    atrium.redis().respawn().await.unwrap();
    let operation = format!("/v1/operations/{}", created.operation);
    assert_eq!(
        final_status(&guest.client, &operation).await,
        "COMMITTED",
        "an accepted creation is committed"
    );
}
