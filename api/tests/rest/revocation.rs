//! Signing out takes effect in every process and on every stream, despite other failures.

use atrium_harness::{
    Atrium,
    client::{Client, EventStream},
};
use atrium_servers::postgres::Durability;
use serde_json::json;

use crate::{Ask as _, PATIENCE, until, until_refused};

const APIS: usize = 3;

/// Sends requests to every process until it rejects the token.
async fn all_refuse(atrium: &Atrium, token: &str) {
    for api in 0..APIS {
        let client = atrium.client_of(api).bearer(token);
        until_refused(&client).await;
        client.get("/v1/orgs").refused(401, "unauthenticated").await;
    }
}

/// Every process rejects the token immediately.
async fn all_know(atrium: &Atrium, token: &str) {
    for api in 0..APIS {
        atrium.client_of(api).bearer(token).get("/v1/auth/me").refused(401, "unauthenticated").await;
    }
}

#[tokio::test]
async fn a_sign_out_holds_everywhere_despite_later_failures() {
    let mut atrium =
        Atrium::builder().apis(APIS).private_redis().private_postgres(Durability::Durable).start().await;
    let guest = atrium.guest().await;
    let org = guest.organization("Northwind").await.unwrap();
    let project = guest.project(&org, "Harbor").await.unwrap();
    let window = guest.open_chat(&org, &project).await.unwrap();
    let bystander = guest.invite_guest(&org, "admin").await.unwrap();
    // An operation that stays pending, because no worker runs.
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
    let mut others =
        atrium.client_of(1).bearer(bystander.client.token().unwrap()).events(&paths[2], None).await.unwrap();

    atrium.client_of(0).bearer(&token).post("/v1/auth/logout").answers(204).await;
    for (name, mut stream) in streams {
        let end = tokio::time::timeout(PATIENCE, async { while stream.next().await.is_some() {} });
        assert!(end.await.is_ok(), "still open: {name}");
    }
    all_refuse(&atrium, &token).await;
    atrium.worker(0).resume();
    // No other user was signed out.
    bystander.configure(&org, "chat.max_active_sessions", json!(2), "still here").await.unwrap();
    others.must_see("config.changed", PATIENCE).await;

    atrium.redis().flush_all().await.unwrap();
    all_know(&atrium, &token).await;
    // A process that was down reads it from PostgreSQL before it accepts any token.
    let newcomer = Client::new(atrium.add_api().await.url());
    newcomer.bearer(&token).get("/v1/auth/me").refused(401, "unauthenticated").await;

    atrium.redis().stop().await;
    let [second, third] = [atrium.guest().await, atrium.guest().await];
    second.client.post("/v1/auth/logout").answers(204).await;
    let second = second.client.token().unwrap();
    all_refuse(&atrium, second).await;

    atrium.postgres().sigkill().await;
    all_know(&atrium, &token).await;
    all_know(&atrium, second).await;
    // A user whose sign-out failed stays signed in, and the response reports the failure.
    third.client.get("/v1/auth/me").answers(200).await;
    third.client.post("/v1/auth/logout").refused(503, "unavailable").await;
    third.client.get("/v1/auth/me").answers(200).await;

    atrium.postgres().respawn().await.unwrap();
    until("PostgreSQL is back", async || {
        third.client.post("/v1/auth/logout").send().await.unwrap().code() == 204
    })
    .await;
    all_refuse(&atrium, third.client.token().unwrap()).await;
    all_know(&atrium, &token).await;
    all_know(&atrium, second).await;
}
