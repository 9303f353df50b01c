//! Outages of PostgreSQL or Redis: reported clearly, and over when the server is back.

use std::time::{Duration, Instant};

use atrium_harness::Atrium;
use atrium_servers::{postgres::Durability, proxy::Link};
use serde_json::json;
use sqlx::Connection as _;

use crate::{Ask as _, end_of, until};

#[tokio::test]
async fn the_api_reports_an_unavailable_postgresql_and_recovers() {
    let atrium = Atrium::builder().private_postgres(Durability::Durable).start().await;
    let guest = atrium.guest().await;
    let org = guest.organization("Before").await.unwrap();
    atrium.postgres().sigkill().await;
    let refused = guest.client.get(format!("/v1/orgs/{org}")).refused(503, "unavailable").await;
    assert!(refused.header("retry-after").is_some());
    guest.client.post("/v1/orgs").json(json!({ "name": "During" })).refused(503, "unavailable").await;
    atrium.client().post("/v1/auth/guest").refused(503, "unavailable").await;
    // The response reveals no internals of the outage.
    assert!(!refused.text().contains("127.0.0.1") && !refused.text().to_lowercase().contains("postgres"));
    // Operations without the database continue; a token is accepted as before.
    guest.client.get("/v1/auth/me").answers(200).await;
    atrium.client().get("/").answers(200).await;
    let admin = atrium_harness::client::Client::new(atrium.api(0).admin_url());
    admin.get("/healthz").answers(200).await;

    atrium.postgres().respawn().await.unwrap();
    until("the API finds back", async || {
        guest.client.get(format!("/v1/orgs/{org}")).send().await.unwrap().code() == 200
    })
    .await;
    guest.organization("After").await.unwrap();
}

// The proxy needs a thread while the test's end waits for the database to be dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_on_silently_dead_connections_free_the_pool() {
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
    let mut looker = atrium.superuser().await;
    until("both wait", async || {
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut looker).await.unwrap() == 2
    })
    .await;
    atrium.database_proxy().set(Link::ClientUnaware);
    lock.rollback().await.unwrap();
    // Both connections of the pool are waited on, in tasks that no client's leaving ends.
    for write in writes {
        write.abort();
    }
    let back = Instant::now();
    while write().send().await.unwrap().code() != 201 {
        assert!(back.elapsed() < Duration::from_secs(90), "the pool never gets its connections back");
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
    assert_eq!(end_of(&guest.client, &operation).await, "COMMITTED", "what was accepted happens");
}
