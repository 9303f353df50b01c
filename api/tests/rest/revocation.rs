//! Logout: it takes effect in every process and on every stream, and stays effective during failures.

use atrium_harness::{
    Atrium,
    client::{Client, EventStream},
};
use atrium_servers::postgres::Durability;
use serde_json::json;

use crate::{CheckedSend as _, PATIENCE, until, until_token_rejected};

const APIS: usize = 3;

/// Waits until every process rejects the token.
async fn until_all_reject(atrium: &Atrium, token: &str) {
    for api in 0..APIS {
        let client = atrium.client_of(api).bearer(token);
        until_token_rejected(&client).await;
        client.get("/v1/orgs").refused(401, "unauthenticated").await;
    }
}

/// Asserts that every process rejects the token immediately.
async fn assert_all_reject(atrium: &Atrium, token: &str) {
    for api in 0..APIS {
        atrium.client_of(api).bearer(token).get("/v1/auth/me").refused(401, "unauthenticated").await;
    }
}

#[tokio::test]
async fn a_logout_takes_effect_in_every_process_and_survives_failures() {
    let mut atrium =
        Atrium::builder().apis(APIS).private_redis().private_postgres(Durability::Durable).start().await;
    let guest = atrium.guest().await;
    let org = guest.organization("Northwind").await.unwrap();
    let project = guest.project(&org, "Harbor").await.unwrap();
    let window = guest.open_chat(&org, &project).await.unwrap();
    let bystander = guest.invite_guest(&org, "admin").await.unwrap();
    // An operation that stays in progress, because no worker runs.
    atrium.worker(0).suspend();
    let operation = guest.create_organization("Southwind").await.unwrap().operation;

    let paths = [
        window.events(),
        format!("/v1/operations/{operation}/events"),
        format!("/v1/orgs/{org}/configs/events"),
    ];
    let token = guest.client.token().unwrap().to_owned();
    let mut streams: Vec<(String, EventStream)> = Vec::new();
    for api in 0..APIS {
        for path in &paths {
            let stream = atrium.client_of(api).bearer(&token).events(path, None).await.unwrap();
            streams.push((format!("{path} of process {api}"), stream));
        }
    }
    let mut bystander_events =
        atrium.client_of(1).bearer(bystander.client.token().unwrap()).events(&paths[2], None).await.unwrap();

    atrium.client_of(0).bearer(&token).post("/v1/auth/logout").answers(204).await;
    for (name, mut stream) in streams {
        let end = tokio::time::timeout(PATIENCE, async { while stream.next().await.is_some() {} });
        assert!(end.await.is_ok(), "still open: {name}");
    }
    until_all_reject(&atrium, &token).await;
    atrium.worker(0).resume();
    // Other users are still signed in.
    bystander.configure(&org, "chat.max_active_sessions", json!(2), "still here").await.unwrap();
    bystander_events.must_see("config.changed", PATIENCE).await;

    atrium.redis().flush_all().await.unwrap();
    assert_all_reject(&atrium, &token).await;
    // A new process reads revocations from PostgreSQL before it accepts any token.
    let newcomer = Client::new(atrium.add_api().await.url());
    newcomer.bearer(&token).get("/v1/auth/me").refused(401, "unauthenticated").await;

    atrium.redis().stop().await;
    let [second, third] = [atrium.guest().await, atrium.guest().await];
    second.client.post("/v1/auth/logout").answers(204).await;
    let second = second.client.token().unwrap();
    until_all_reject(&atrium, second).await;

    atrium.postgres().sigkill().await;
    assert_all_reject(&atrium, &token).await;
    assert_all_reject(&atrium, second).await;
    // Without PostgreSQL, a user who is signed in can still read, but a logout fails with an error.
    third.client.get("/v1/auth/me").answers(200).await;
    third.client.post("/v1/auth/logout").refused(503, "unavailable").await;
    third.client.get("/v1/auth/me").answers(200).await;

    atrium.postgres().respawn().await.unwrap();
    until("a logout succeeds again", async || {
        third.client.post("/v1/auth/logout").send().await.unwrap().code() == 204
    })
    .await;
    until_all_reject(&atrium, third.client.token().unwrap()).await;
    assert_all_reject(&atrium, &token).await;
    assert_all_reject(&atrium, second).await;
}
