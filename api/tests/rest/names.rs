//! The host name of PostgreSQL and Redis does not resolve for a while, after all connections were closed.

use atrium_harness::{Atrium, client::Client, guest::patiently};
use atrium_servers::postgres::Durability;
use serde_json::json;

use crate::{CheckedSend as _, PATIENCE, watched_chat};

/// Closes every connection of Atrium's processes. Without the host name they cannot reconnect.
async fn close_connections(atrium: &Atrium) {
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'atrium_%'")
        .execute(&mut atrium.superuser().await)
        .await
        .unwrap();
    let mut redis = atrium.redis().connection(0).await.unwrap();
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("SKIPME").arg("yes").query_async::<i64>(&mut redis).await.unwrap();
}

#[tokio::test]
async fn requests_fail_without_dns_and_recover_with_it() {
    let servers = Atrium::builder().private_postgres(Durability::Volatile).private_redis();
    let atrium = servers.own_names().full_workers(2).start().await;
    let guest = atrium.guest().await;
    let org = guest.organization("Before").await.unwrap();
    let (window, mut events) = watched_chat(&guest, &org).await;
    // Accepted, and in progress while no worker runs.
    atrium.worker(1).sigkill().await;
    atrium.worker(0).suspend();
    let accepted = guest.create_organization("On its way").await.unwrap();

    atrium.names().take_away().unwrap();
    close_connections(&atrium).await;
    atrium.worker(0).resume();
    let create = || guest.client.post("/v1/orgs").idempotency_key("during").json(json!({ "name": "During" }));
    let status = format!("/v1/orgs/{org}/configs/status");
    for request in [guest.client.get(format!("/v1/orgs/{org}")), guest.client.get(&status), create()] {
        let refused = request.refused(503, "unavailable").await;
        assert!(refused.header("retry-after").is_some(), "{}", refused.describe());
        assert!(!refused.text().contains("atrium.test"), "a response does not contain internal host names");
    }
    guest.pressing(&window, "ready").refused(503, "unavailable").await;
    // The processes stay ready: restarting them or routing requests elsewhere would not help.
    for service in atrium.services().filter(|service| service.name() != "workers-1") {
        Client::new(service.admin_url()).get("/readyz").answers(200).await;
    }
    // A process that is started now exits with the reason, and is left to its supervisor.
    let error = atrium.worker(1).respawn().await.unwrap_err().to_string();
    assert!(error.contains("cannot connect with ATRIUM_DATABASE_URL") && error.contains("lookup"), "{error}");

    atrium.names().put_back().unwrap();
    guest.committed(&accepted.operation).await.unwrap();
    let created = patiently(create).await.unwrap().must(202);
    guest.committed(&created.at("/operation_id")).await.unwrap();
    let pressed = guest.press(&window, "ready").await.unwrap();
    assert_eq!(events.see("chat.action", PATIENCE).await.unwrap().json()["id"], *pressed);
    patiently(|| guest.client.get(&status)).await.unwrap().expect_status(200).unwrap();
    atrium.worker(1).respawn().await.unwrap();
    atrium.worker(1).ready().await.unwrap();
}
