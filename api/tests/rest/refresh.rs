//! Refresh tokens: which are accepted, how often, and how a copied one is detected.

use std::time::Duration;

use atrium_contract::Reply;
use atrium_harness::{
    Atrium,
    client::{Client, Request},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{CheckedSend as _, PATIENCE, assert_identical_problems, final_status, until_token_rejected};

/// A refresh with this token, as Atrium's own page sends it.
pub(crate) fn refresh(atrium: &Atrium, api: usize, token: &str) -> Request {
    let request = atrium.client_of(api).post("/v1/auth/refresh");
    request.header("origin", atrium.public_url()).header("cookie", format!("atrium_refresh={token}"))
}

/// The value and the attributes that a response sets for a cookie.
fn cookie(reply: &Reply, name: &str) -> String {
    let cookies = reply.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let found: Vec<_> = cookies.filter_map(|cookie| cookie.strip_prefix(&format!("{name}="))).collect();
    assert_eq!(found.len(), 1, "{name}: {}", reply.describe());
    found[0].to_owned()
}

pub(crate) fn refresh_token(reply: &Reply) -> String {
    cookie(reply, "atrium_refresh").split(';').next().unwrap().to_owned()
}

async fn sign_in(atrium: &Atrium) -> (Reply, String) {
    let reply = atrium.client().post("/v1/auth/guest").answers(201).await;
    let token = refresh_token(&reply);
    (reply, token)
}

async fn assert_accepted(client: &Client, reply: &Reply) {
    let me = client.bearer(reply.at("/access_token")).get("/v1/auth/me").answers(200).await;
    assert_eq!(me.at("/user/id"), reply.at("/user/id"));
}

/// Moves times in the database into the past, as if time had passed.
async fn shift_times(atrium: &Atrium, statement: &'static str) {
    let done = sqlx::query(statement).execute(&mut atrium.superuser().await).await.unwrap();
    assert!(done.rows_affected() > 0, "{statement}");
}

const END_GRACE_PERIOD: &str =
    "UPDATE refresh_tokens SET used_at = used_at - interval '31 seconds' WHERE used_at IS NOT NULL";

#[tokio::test]
async fn a_refresh_returns_new_tokens_and_keeps_the_old_access_token_valid() {
    let atrium = Atrium::start().await;
    let (signed_in, first) = sign_in(&atrium).await;
    let attributes = "; HttpOnly; SameSite=Strict; Path=/v1/auth; Max-Age=2592000";
    assert_eq!(cookie(&signed_in, "atrium_refresh"), format!("{first}{attributes}"));
    assert!(
        !signed_in.text().contains(&first),
        "a body contains the refresh token, where a script could read it"
    );

    let refreshed = refresh(&atrium, 0, &first).answers(200).await;
    let second = refresh_token(&refreshed);
    assert_ne!(second, first);
    assert_eq!(refreshed.json()["user"], signed_in.json()["user"]);
    assert_eq!(refreshed.json()["expires_in"], 900);
    assert_ne!(refreshed.at("/access_token"), signed_in.at("/access_token"));
    assert!(!refreshed.text().contains(&second));
    assert_eq!(refreshed.header("cache-control"), Some("no-store"));
    let session = cookie(&refreshed, "atrium_session");
    assert!(session.starts_with(&refreshed.at("/access_token")), "the cookie contains another access token");
    assert_accepted(&atrium.client(), &signed_in).await;
    assert_accepted(&atrium.client(), &refreshed).await;

    // Repeated refreshes with a browser's cookies.
    let browser = atrium.client().with_cookies();
    browser.post("/v1/auth/guest").answers(201).await;
    for _ in 0..5 {
        browser.post("/v1/auth/refresh").header("sec-fetch-site", "same-origin").answers(200).await;
        browser.get("/v1/auth/me").answers(200).await;
    }

    // The database stores hashes only.
    let (hashes, users): (Vec<Vec<u8>>, i64) =
        sqlx::query_as("SELECT array_agg(hash), count(DISTINCT user_id) FROM refresh_tokens")
            .fetch_one(&mut atrium.superuser().await)
            .await
            .unwrap();
    assert_eq!((hashes.len(), users), (8, 2));
    for token in [&first, &second] {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
        assert!(!hashes.contains(&bytes) && !hashes.contains(&bytes[32..].to_vec()));
    }
}

#[tokio::test]
async fn concurrent_refreshes_return_one_successor_and_keep_the_session() {
    let atrium = Atrium::builder().apis(3).start().await;
    let (_, first) = sign_in(&atrium).await;
    let requests = (0..20).map(|at| tokio::spawn(refresh(&atrium, at % 3, &first).answers(200)));
    let mut successors = Vec::new();
    for request in requests.collect::<Vec<_>>() {
        let reply = request.await.unwrap();
        assert_accepted(&atrium.client(), &reply).await;
        successors.push(refresh_token(&reply));
    }
    successors.dedup();
    assert_eq!(successors.len(), 1);
    let second = &successors[0];

    // A window that missed the response gets the newest token, which another window already has.
    let third = refresh_token(&refresh(&atrium, 1, second).answers(200).await);
    for predecessor in [&first, second] {
        assert_eq!(refresh_token(&refresh(&atrium, 0, predecessor).answers(200).await), third);
    }
    shift_times(&atrium, END_GRACE_PERIOD).await;
    let fourth = refresh_token(&refresh(&atrium, 0, &third).answers(200).await);
    assert_ne!(fourth, third);
    let kept: i64 = sqlx::query_scalar("SELECT count(successor_salt) FROM refresh_tokens")
        .fetch_one(&mut atrium.superuser().await)
        .await
        .unwrap();
    assert_eq!(kept, 1, "only one salt is kept, for the grace period");
}

#[tokio::test]
async fn reuse_of_a_refresh_token_ends_the_session_everywhere() {
    let atrium = Atrium::builder().apis(2).start().await;
    let (signed_in, first) = sign_in(&atrium).await;
    let (bystander, bystander_token) = sign_in(&atrium).await;
    let refreshed = refresh(&atrium, 0, &first).answers(200).await;
    let second = refresh_token(&refreshed);
    assert_accepted(&atrium.client_of(1), &refreshed).await;
    shift_times(&atrium, END_GRACE_PERIOD).await;

    let reused = refresh(&atrium, 0, &first).refused(401, "refresh_token_reused").await;
    assert!(reused.header("set-cookie").is_none());
    for reply in [&signed_in, &refreshed] {
        let client = atrium.client().bearer(reply.at("/access_token"));
        client.get("/v1/auth/me").refused(401, "unauthenticated").await;
    }
    let other = atrium.client_of(1).bearer(refreshed.at("/access_token"));
    until_token_rejected(&other).await;
    // Every token of the sign-in session is rejected in every process, for thief and owner alike.
    for (api, token) in [(0, &second), (1, &second), (1, &first)] {
        refresh(&atrium, api, token).refused(401, "refresh_token_reused").await;
    }
    let (auth_sessions, revocations): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM auth_sessions WHERE reused_at IS NOT NULL),
                (SELECT count(*) FROM revoked_auth_sessions)",
    )
    .fetch_one(&mut atrium.superuser().await)
    .await
    .unwrap();
    assert_eq!((auth_sessions, revocations), (1, 1), "the reuse is recorded once");
    let log = atrium.api(0).logs();
    assert_eq!(
        log.matches("a used refresh token was sent again; its sign-in session has ended").count(),
        1,
        "the reuse is logged once"
    );
    assert!(!log.contains(&first) && !log.contains(&second), "the log contains a token");
    let admin = Client::new(atrium.api(0).admin_url());
    let metrics = admin.get("/metrics").answers(200).await.text();
    let reused = "atrium_refreshes_total{outcome=\"reused\"} 2";
    assert!(metrics.contains(reused), "{metrics}");

    assert_accepted(&atrium.client(), &bystander).await;
    refresh(&atrium, 1, &bystander_token).answers(200).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_sign_in_session() {
    let atrium = Atrium::builder().apis(2).start().await;
    let (signed_in, first) = sign_in(&atrium).await;
    let client = atrium.client_of(1).bearer(signed_in.at("/access_token"));
    let created = client.post("/v1/orgs").json(json!({ "name": "Northwind" })).answers(202).await;
    assert_eq!(final_status(&client, created.header("operation-location").unwrap()).await, "COMMITTED");
    let path = format!("/v1/orgs/{}/configs/events", created.at("/id"));
    let mut stream = client.events(&path, None).await.unwrap();
    // The logout uses another access token of the same sign-in session.
    let refreshed = refresh(&atrium, 0, &first).answers(200).await;
    atrium.client().bearer(refreshed.at("/access_token")).post("/v1/auth/logout").answers(204).await;
    let end = tokio::time::timeout(PATIENCE, async { while stream.next().await.is_some() {} });
    assert!(end.await.is_ok(), "the stream is still open");
}

#[tokio::test]
async fn a_logout_ends_the_refresh_token() {
    let atrium = Atrium::builder().apis(2).start().await;
    let browser = atrium.client().with_cookies();
    let signed_in = browser.post("/v1/auth/guest").answers(201).await;
    let first = refresh_token(&signed_in);
    let same_origin = |path: &str| browser.post(path).header("origin", atrium.public_url());
    let refreshed = same_origin("/v1/auth/refresh").answers(200).await;
    let second = refresh_token(&refreshed);

    let signed_out = same_origin("/v1/auth/logout").answers(204).await;
    assert_eq!(
        cookie(&signed_out, "atrium_refresh"),
        "; HttpOnly; SameSite=Strict; Path=/v1/auth; Max-Age=0"
    );
    assert_eq!(cookie(&signed_out, "atrium_session"), "; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    same_origin("/v1/auth/refresh").refused(401, "unauthenticated").await;
    for (api, token) in [(0, &first), (0, &second), (1, &first), (1, &second)] {
        refresh(&atrium, api, token).refused(401, "unauthenticated").await;
    }
    // The access token from before the refresh belongs to the same sign-in session.
    let before = atrium.client().bearer(signed_in.at("/access_token"));
    before.get("/v1/auth/me").refused(401, "unauthenticated").await;
    let remaining: i64 = sqlx::query_scalar("SELECT count(*) FROM refresh_tokens")
        .fetch_one(&mut atrium.superuser().await)
        .await
        .unwrap();
    assert_eq!(remaining, 0);
}

/// Creates another sign-in session of the same user, as on another device. Returns its refresh token.
async fn another_sign_in(atrium: &Atrium, token: &str) -> String {
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
    let (user, auth_session) = (uuid::Uuid::from_slice(&bytes[..16]).unwrap(), uuid::Uuid::now_v7());
    bytes[16..32].copy_from_slice(auth_session.as_bytes());
    sqlx::query(
        "WITH sign_in AS (INSERT INTO auth_sessions (user_id, id, expires_at)
                         VALUES ($1, $2, now() + interval '1 day') RETURNING *)
         INSERT INTO refresh_tokens (user_id, auth_session_id, hash, expires_at)
         SELECT user_id, id, $3, expires_at FROM sign_in",
    )
    .bind(user)
    .bind(auth_session)
    .bind(&Sha256::digest(&bytes)[..])
    .execute(&mut atrium.superuser().await)
    .await
    .unwrap();
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

#[tokio::test]
async fn a_logout_everywhere_ends_all_sessions_of_this_user_only() {
    let atrium = Atrium::builder().apis(3).start().await;
    let (first, first_token) = sign_in(&atrium).await;
    let (bystander, bystander_token) = sign_in(&atrium).await;
    let mut sign_ins = vec![(first, first_token.clone())];
    for api in 1..3 {
        let reply = refresh(&atrium, api, &another_sign_in(&atrium, &first_token).await).answers(200).await;
        let token = refresh_token(&reply);
        sign_ins.push((reply, token));
    }
    let sign_out = |reply: &Reply| atrium.client().bearer(reply.at("/access_token")).post("/v1/auth/logout");
    // An invalid request ends no session.
    sign_out(&sign_ins[0].0).json(json!({ "everywhere": "yes" })).refused(422, "validation_failed").await;
    sign_out(&sign_ins[0].0).json(json!({ "all": true })).refused(422, "validation_failed").await;
    // A logout ends the other sessions only if `everywhere` is set.
    sign_out(&sign_ins[2].0).json(json!({ "everywhere": false })).answers(204).await;
    for (reply, _) in &sign_ins[..2] {
        assert_accepted(&atrium.client(), reply).await;
    }

    sign_out(&sign_ins[0].0).json(json!({ "everywhere": true })).answers(204).await;
    for (reply, token) in &sign_ins {
        for api in 0..3 {
            let client = atrium.client_of(api).bearer(reply.at("/access_token"));
            let refused = async {
                while client.get("/v1/auth/me").send().await.unwrap().code() != 401 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            assert!(
                tokio::time::timeout(PATIENCE, refused).await.is_ok(),
                "process {api} still accepts the token"
            );
            refresh(&atrium, api, token).refused(401, "unauthenticated").await;
        }
    }
    assert_accepted(&atrium.client(), &bystander).await;
    refresh(&atrium, 1, &bystander_token).answers(200).await;
}

#[tokio::test]
async fn invalid_refresh_tokens_get_identical_responses() {
    let atrium = Atrium::start().await;
    let (signed_in, token) = sign_in(&atrium).await;
    let (_, bystander_token) = sign_in(&atrium).await;
    let (_, expired) = sign_in(&atrium).await;
    let (mine, foreign) = (
        BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap(),
        BASE64_URL_SAFE_NO_PAD.decode(&bystander_token).unwrap(),
    );
    let text = |parts: [&[u8]; 3]| BASE64_URL_SAFE_NO_PAD.encode(parts.concat());
    let (user, auth_session, secret) = (&mine[..16], &mine[16..32], &mine[32..]);
    let statement = "UPDATE refresh_tokens SET expires_at = now() - interval '1 second' WHERE user_id = $1";
    let owner = uuid::Uuid::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(&expired).unwrap()[..16]).unwrap();
    sqlx::query(statement).bind(owner).execute(&mut atrium.superuser().await).await.unwrap();

    let mut replies = Vec::new();
    for wrong in [
        // Malformed.
        "x".to_owned(),
        "a.b.c".to_owned(),
        "../..".to_owned(),
        "A".repeat(4000),
        token[1..].to_owned(),
        format!("{token}A"),
        format!("{token}="),
        signed_in.at("/access_token"),
        // Forged: the right ids with a wrong secret.
        text([user, auth_session, &[0; 32]]),
        text([user, auth_session, &foreign[32..]]),
        // Foreign: this user's secret with another user's ids.
        text([&foreign[..16], auth_session, secret]),
        text([user, &foreign[16..32], secret]),
        text([&foreign[..16], &foreign[16..32], secret]),
        text([&[7; 16], &[7; 16], secret]),
        // Expired.
        expired,
    ] {
        replies.push(refresh(&atrium, 0, &wrong).send().await.unwrap());
    }
    let no_cookie = atrium.client().post("/v1/auth/refresh").header("origin", atrium.public_url());
    replies.push(no_cookie.send().await.unwrap());
    // Two cookies of the same name, as when another site planted one.
    let two_cookies = atrium.client().post("/v1/auth/refresh").header("origin", atrium.public_url());
    let planted = format!("atrium_refresh={bystander_token}; atrium_refresh={token}");
    replies.push(two_cookies.header("cookie", planted).send().await.unwrap());
    // A refresh token is not an access token, and is accepted from its cookie only.
    atrium.client().bearer(&token).get("/v1/auth/me").refused(401, "unauthenticated").await;
    replies.push(atrium.client().bearer(&token).post("/v1/auth/refresh").send().await.unwrap());
    assert_identical_problems(&replies, 401, "unauthenticated");

    // The session is unaffected by these attempts.
    assert_accepted(&atrium.client(), &signed_in).await;
    refresh(&atrium, 0, &token).answers(200).await;
}

#[tokio::test]
async fn another_site_cannot_refresh() {
    let atrium = Atrium::start().await;
    let (signed_in, token) = sign_in(&atrium).await;
    let refresh_request = || {
        let request = atrium.client().post("/v1/auth/refresh");
        request.header("cookie", format!("atrium_refresh={token}"))
    };
    refresh_request().refused(403, "cross_site_request").await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:8081"] {
        refresh_request().header("origin", origin).refused(403, "cross_site_request").await;
    }
    for site in ["cross-site", "same-site"] {
        refresh_request().header("sec-fetch-site", site).refused(403, "cross_site_request").await;
    }
    let simple = refresh_request().body("text/plain", "{}").header("origin", "https://evil.example");
    simple.refused(403, "cross_site_request").await;
    // From Atrium's own page, a form's body is rejected as well, because a refresh takes no input.
    let same_origin = || refresh_request().header("origin", atrium.public_url());
    same_origin().body("text/plain", "{}").refused(415, "unsupported_media_type").await;
    same_origin().json(json!({ "refresh_token": token })).refused(422, "validation_failed").await;
    // None of these requests used up the token.
    assert_accepted(&atrium.client(), &signed_in).await;
    let unused: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM refresh_tokens WHERE used_at IS NULL AND user_id = $1::uuid",
    )
    .bind(signed_in.at("/user/id"))
    .fetch_one(&mut atrium.superuser().await)
    .await
    .unwrap();
    assert_eq!(unused, 1);
    same_origin().answers(200).await;
}

#[tokio::test]
async fn a_session_ends_when_unused_and_after_half_a_year() {
    let atrium = Atrium::start().await;
    let (_, token) = sign_in(&atrium).await;
    // Shortly before the session's end, a new refresh token lives as long as the session only.
    shift_times(
        &atrium,
        "UPDATE auth_sessions SET started_at = started_at - interval '4284 hours', expires_at = now() + interval '1 hour'",
    )
    .await;
    let refreshed = refresh(&atrium, 0, &token).answers(200).await;
    let cookie = cookie(&refreshed, "atrium_refresh");
    let max_age: u64 = cookie.rsplit_once("Max-Age=").unwrap().1.parse().unwrap();
    assert!((36 * 3600 - 60..=36 * 3600).contains(&max_age), "{cookie}");
    shift_times(&atrium, "UPDATE refresh_tokens SET expires_at = now() - interval '1 second'").await;
    let last = refresh_token(&refreshed);
    refresh(&atrium, 0, &last).refused(401, "unauthenticated").await;

    // A used token that has expired is deleted by the next refresh of its user.
    let (signed_in, token) = sign_in(&atrium).await;
    let second = refresh_token(&refresh(&atrium, 0, &token).answers(200).await);
    shift_times(
        &atrium,
        "UPDATE refresh_tokens SET expires_at = now() - interval '1 second' WHERE used_at IS NOT NULL",
    )
    .await;
    refresh(&atrium, 0, &second).answers(200).await;
    let remaining: i64 = sqlx::query_scalar("SELECT count(*) FROM refresh_tokens WHERE user_id = $1::uuid")
        .bind(signed_in.at("/user/id"))
        .fetch_one(&mut atrium.superuser().await)
        .await
        .unwrap();
    assert_eq!(remaining, 2);
}

#[tokio::test]
async fn refreshes_are_limited_by_address() {
    let atrium = Atrium::builder().default_limits().start().await;
    let (_, token) = sign_in(&atrium).await;
    let mut last = refresh(&atrium, 0, "x").send().await.unwrap();
    for _ in 0..110 {
        last = refresh(&atrium, 0, "x").send().await.unwrap();
    }
    last = last.must_be(429, "rate_limited");
    assert!(last.header("ratelimit-policy").unwrap().starts_with("\"refreshes\";q=100"));
    refresh(&atrium, 0, &token).refused(429, "rate_limited").await;
}
