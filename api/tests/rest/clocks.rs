//! Clocks that jump an hour ahead or back. PostgreSQL's clock decides when stored state expires. A process with a wrong
//! clock may reject valid tokens, but it loses nothing, and it recovers when its clock is right again.

use atrium_harness::{Atrium, client::Client, guest::Guest};
use atrium_shared::timings::TOKEN_LIFETIME;
use serde_json::json;

use crate::{
    CheckedSend as _, PATIENCE, by_cookie,
    configs::until_applied,
    refresh::{refresh, refresh_token},
    until_token_rejected, watched_chat,
};

const HOUR: i64 = 3600;

#[tokio::test]
async fn a_worker_whose_clock_jumps_handles_each_message_once_and_expires_nothing_early() {
    let atrium = Atrium::builder().own_clocks().start().await;
    let (worker, guest) = (atrium.worker(0), atrium.guest().await);
    let org = guest.organization("Clocks").await.unwrap();
    let (window, mut events) = watched_chat(&guest, &org).await;
    let mut pressed = Vec::new();
    // Between the two jumps, and after them, the clock returns to the right time.
    for (jump, sessions) in [HOUR, 0, -HOUR, 0].into_iter().zip(2..) {
        // This creation is in progress while the clock jumps. Its deadline of one minute must not pass with the jump.
        worker.suspend();
        let created = guest.create_organization("On its way").await.unwrap();
        pressed.push(guest.press(&window, "ready").await.unwrap());
        worker.clock().set(jump).unwrap();
        worker.resume();
        guest.committed(&created.operation).await.unwrap();
        guest.organization("Afterwards").await.unwrap();
        pressed.push(guest.press(&window, "ready").await.unwrap());
        let change =
            guest.configure(&org, "chat.max_active_sessions", json!(sessions), "a test").await.unwrap();
        until_applied(&guest.client, &org, &change.json()["revision"], 2).await;
    }
    for id in &pressed {
        let event = events.see("chat.action", PATIENCE).await.unwrap();
        assert_eq!(event.json()["id"], **id, "each action arrives once, in order");
    }
    let (counted, committed, dead): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT sum(count)::bigint FROM chat_counters),
                (SELECT count(*) FROM saga_events WHERE step IS NULL AND status = 'COMMITTED'),
                (SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL)",
    )
    .fetch_one(&mut atrium.superuser().await)
    .await
    .unwrap();
    assert_eq!((counted, committed, dead), (8, 9, 0));
}

#[tokio::test]
async fn an_api_process_whose_clock_jumps_recovers_and_keeps_revocations() {
    let atrium = Atrium::builder().apis(2).own_clocks().start().await;
    let [right, wrong] = [0, 1].map(|api| atrium.client_of(api));
    let clock = atrium.api(1).clock();
    let sign_in = async |client: &Client| {
        let reply = client.post("/v1/auth/guest").answers(201).await;
        (reply.at("/access_token"), refresh_token(&reply))
    };
    let accepts = async |client: &Client, token: &str| {
        client.bearer(token).get("/v1/auth/me").answers(200).await;
    };
    let rejects = async |client: &Client, token: &str| {
        client.bearer(token).get("/v1/auth/me").refused(401, "unauthenticated").await;
    };

    let guest = atrium.guest().await;
    let org = guest.organization("Clocks").await.unwrap();
    let (token, renewal) = sign_in(&right).await;
    let (revoked_before, _) = sign_in(&right).await;
    right.bearer(&revoked_before).post("/v1/auth/logout").answers(204).await;
    until_token_rejected(&wrong.bearer(&revoked_before)).await;
    let configure = async |sessions: u32| {
        let reply =
            guest.configure(&org, "chat.max_active_sessions", json!(sessions), "a test").await.unwrap();
        reply.json()["revision"].clone()
    };
    let stream = wrong.bearer(guest.client.token().unwrap());
    let mut stream = stream.events(&format!("/v1/orgs/{org}/configs/events"), None).await.unwrap();

    // Ahead: tokens of 15 minutes look expired. A refresh is decided by PostgreSQL's clock.
    clock.set(HOUR).unwrap();
    rejects(&wrong, &token).await;
    accepts(&right, &token).await;
    // Streams use a monotonic clock.
    let revision = configure(2).await;
    stream.must_see("config.changed", PATIENCE).await;
    let refreshed = refresh(&atrium, 1, &renewal).answers(200).await;
    let (token, renewal) = (refreshed.at("/access_token"), refresh_token(&refreshed));
    accepts(&wrong, &token).await;
    accepts(&right, &token).await;
    Guest::sign_in(&wrong).await.unwrap().organization("From ahead").await.unwrap();
    until_applied(&guest.client, &org, &revision, 3).await;
    // A revocation outlasts a token that a process with a clock ahead issued.
    let (revoked_ahead, _) = sign_in(&wrong).await;
    right.bearer(&revoked_ahead).post("/v1/auth/logout").answers(204).await;
    until_token_rejected(&wrong.bearer(&revoked_ahead)).await;
    let outlasts_tokens = "SELECT max(expires_at) > now() + interval '75 minutes' FROM revoked_auth_sessions";
    assert!(
        sqlx::query_scalar::<_, bool>(outlasts_tokens)
            .fetch_one(&mut atrium.superuser().await)
            .await
            .unwrap()
    );
    // Revocations that looked expired by the clock ahead are still cached.
    clock.set(0).unwrap();
    for revoked in [&revoked_before, &revoked_ahead] {
        rejects(&wrong, revoked).await;
        rejects(&right, revoked).await;
    }

    // Behind: tokens that it issues look expired to other processes, until another process refreshes them.
    clock.set(-HOUR).unwrap();
    accepts(&wrong, &token).await;
    let behind = refresh(&atrium, 1, &renewal).answers(200).await;
    accepts(&wrong, &behind.at("/access_token")).await;
    rejects(&right, &behind.at("/access_token")).await;
    let refreshed = refresh(&atrium, 0, &refresh_token(&behind)).answers(200).await;
    let (token, renewal) = (refreshed.at("/access_token"), refresh_token(&refreshed));
    accepts(&wrong, &token).await;
    accepts(&right, &token).await;
    Guest::sign_in(&wrong).await.unwrap().organization("From behind").await.unwrap();
    let revision = configure(3).await;
    stream.must_see("config.changed", PATIENCE).await;
    until_applied(&wrong.bearer(guest.client.token().unwrap()), &org, &revision, 3).await;
    // A logout that it handles takes effect in every process.
    let (revoked_behind, _) = sign_in(&right).await;
    wrong.bearer(&revoked_behind).post("/v1/auth/logout").answers(204).await;
    until_token_rejected(&right.bearer(&revoked_behind)).await;

    // Right again: valid tokens are accepted, and revoked tokens stay rejected.
    clock.set(0).unwrap();
    for api in [&wrong, &right] {
        accepts(api, &token).await;
        accepts(api, guest.client.token().unwrap()).await;
        for revoked in [&revoked_before, &revoked_ahead, &revoked_behind] {
            rejects(api, revoked).await;
        }
    }
    refresh(&atrium, 1, &renewal).answers(200).await;
}

/// The clocks of processes differ a little, so a token is accepted for some seconds after its end. A stream that is
/// opened with such a token would end immediately, and again after each reconnect.
#[tokio::test]
async fn an_expired_token_opens_no_stream_while_other_requests_still_accept_it() {
    let atrium = Atrium::builder().own_clocks().start().await;
    let guest = atrium.guest().await;
    let creation = guest.create_organization("Clocks").await.unwrap();
    let path = format!("/v1/operations/{}/events", creation.operation);
    guest.committed(&creation.operation).await.unwrap();
    atrium.api(0).clock().set(TOKEN_LIFETIME.as_secs().cast_signed() + 2).unwrap();
    guest.client.get(format!("/v1/operations/{}", creation.operation)).answers(200).await;
    guest.client.get(&path).refused(401, "unauthenticated").await;
    by_cookie(&atrium, &guest, &path).refused(401, "unauthenticated").await;
}
