//! Clocks that jump an hour ahead, or back: PostgreSQL's decides what lasts for how long, and what a process with a wrong
//! one does is no worse than it has to be, and over when the clock is right again.

use atrium_harness::{Atrium, client::Client, guest::Guest};
use atrium_shared::timings::TOKEN_LIFETIME;
use serde_json::json;

use crate::{
    Ask as _, PATIENCE, by_cookie,
    configs::all_apply,
    refresh::{refresh, refresh_token},
    until_refused, watched_chat,
};

const HOUR: i64 = 3600;

#[tokio::test]
async fn a_worker_with_a_jumping_clock_does_everything_once_and_on_time() {
    let atrium = Atrium::builder().own_clocks().start().await;
    let (worker, guest) = (atrium.worker(0), atrium.guest().await);
    let org = guest.organization("Clocks").await.unwrap();
    let (window, mut events) = watched_chat(&guest, &org).await;
    let mut pressed = Vec::new();
    // The right time is what a clock comes from and goes back to.
    for (jump, sessions) in [HOUR, 0, -HOUR, 0].into_iter().zip(2..) {
        // It is on its way while the clock jumps, and has a minute, which is not over after an hour of that clock.
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
        all_apply(&guest.client, &org, &change.json()["revision"], 2).await;
    }
    for id in &pressed {
        let event = events.see("chat.action", PATIENCE).await.unwrap();
        assert_eq!(event.json()["id"], **id, "once each, in order");
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
async fn an_api_process_with_a_jumping_clock_recovers_without_locking_users_out() {
    let atrium = Atrium::builder().apis(2).own_clocks().start().await;
    let [right, wrong] = [0, 1].map(|api| atrium.client_of(api));
    let clock = atrium.api(1).clock();
    let sign_in = async |client: &Client| {
        let reply = client.post("/v1/auth/guest").answers(201).await;
        (reply.at("/access_token"), refresh_token(&reply))
    };
    let holds = async |client: &Client, token: &str| {
        client.bearer(token).get("/v1/auth/me").answers(200).await;
    };
    let refused = async |client: &Client, token: &str| {
        client.bearer(token).get("/v1/auth/me").refused(401, "unauthenticated").await;
    };

    let guest = atrium.guest().await;
    let org = guest.organization("Clocks").await.unwrap();
    let (token, renewal) = sign_in(&right).await;
    let (left_before, _) = sign_in(&right).await;
    right.bearer(&left_before).post("/v1/auth/logout").answers(204).await;
    until_refused(&wrong.bearer(&left_before)).await;
    let configure = async |sessions: u32| {
        let reply =
            guest.configure(&org, "chat.max_active_sessions", json!(sessions), "a test").await.unwrap();
        reply.json()["revision"].clone()
    };
    let stream = wrong.bearer(guest.client.token().unwrap());
    let mut stream = stream.events(&format!("/v1/orgs/{org}/configs/events"), None).await.unwrap();

    // Ahead: a token's quarter of an hour seems to be over. A refresh goes by PostgreSQL's clock.
    clock.set(HOUR).unwrap();
    refused(&wrong, &token).await;
    holds(&right, &token).await;
    // Streams go by a clock that does not jump.
    let revision = configure(2).await;
    stream.must_see("config.changed", PATIENCE).await;
    let refreshed = refresh(&atrium, 1, &renewal).answers(200).await;
    let (token, renewal) = (refreshed.at("/access_token"), refresh_token(&refreshed));
    holds(&wrong, &token).await;
    holds(&right, &token).await;
    Guest::sign_in(&wrong).await.unwrap().organization("From ahead").await.unwrap();
    all_apply(&guest.client, &org, &revision, 3).await;
    // A revocation outlives such a token, whichever process the sign-out goes to.
    let (left_ahead, _) = sign_in(&wrong).await;
    right.bearer(&left_ahead).post("/v1/auth/logout").answers(204).await;
    until_refused(&wrong.bearer(&left_ahead)).await;
    let lasts = "SELECT max(expires_at) > now() + interval '75 minutes' FROM revoked_auth_sessions";
    assert!(sqlx::query_scalar::<_, bool>(lasts).fetch_one(&mut atrium.superuser().await).await.unwrap());
    // What seemed to be over an hour ago has not been forgotten.
    clock.set(0).unwrap();
    for left in [&left_before, &left_ahead] {
        refused(&wrong, left).await;
        refused(&right, left).await;
    }

    // Behind: what it issues seems to be over to others, until it is refreshed there.
    clock.set(-HOUR).unwrap();
    holds(&wrong, &token).await;
    let behind = refresh(&atrium, 1, &renewal).answers(200).await;
    holds(&wrong, &behind.at("/access_token")).await;
    refused(&right, &behind.at("/access_token")).await;
    let refreshed = refresh(&atrium, 0, &refresh_token(&behind)).answers(200).await;
    let (token, renewal) = (refreshed.at("/access_token"), refresh_token(&refreshed));
    holds(&wrong, &token).await;
    holds(&right, &token).await;
    Guest::sign_in(&wrong).await.unwrap().organization("From behind").await.unwrap();
    let revision = configure(3).await;
    stream.must_see("config.changed", PATIENCE).await;
    all_apply(&wrong.bearer(guest.client.token().unwrap()), &org, &revision, 3).await;
    // A sign-out at this process takes effect in all processes.
    let (left_behind, _) = sign_in(&right).await;
    wrong.bearer(&left_behind).post("/v1/auth/logout").answers(204).await;
    until_refused(&right.bearer(&left_behind)).await;

    // The clock is right again: no user is locked out, and no signed-out user is accepted.
    clock.set(0).unwrap();
    for api in [&wrong, &right] {
        holds(api, &token).await;
        holds(api, guest.client.token().unwrap()).await;
        for left in [&left_before, &left_ahead, &left_behind] {
            refused(api, left).await;
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
