//! Staying signed in: which refresh tokens are taken, how often, and what becomes of one that was copied.

use std::time::Duration;

use atrium_contract::Reply;
use atrium_harness::{
    Atrium,
    client::{Client, Request},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{Ask as _, PATIENCE, alike, end_of, until_refused};

/// A refresh with this token, as our own page sends it.
pub(crate) fn refresh(atrium: &Atrium, api: usize, token: &str) -> Request {
    let request = atrium.client_of(api).post("/v1/auth/refresh");
    request.header("origin", atrium.public_url()).header("cookie", format!("atrium_refresh={token}"))
}

/// What an answer sets a cookie to, with its attributes.
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

async fn holds(client: &Client, reply: &Reply) {
    let me = client.bearer(reply.at("/access_token")).get("/v1/auth/me").answers(200).await;
    assert_eq!(me.at("/user/id"), reply.at("/user/id"));
}

/// Lets time pass for refresh tokens.
async fn later(atrium: &Atrium, statement: &'static str) {
    let done = sqlx::query(statement).execute(&mut atrium.superuser().await).await.unwrap();
    assert!(done.rows_affected() > 0, "{statement}");
}

const AFTER_THE_GRACE: &str =
    "UPDATE refresh_tokens SET used_at = used_at - interval '31 seconds' WHERE used_at IS NOT NULL";

#[tokio::test]
async fn a_refresh_issues_new_tokens_and_keeps_the_old_access_token_valid() {
    let atrium = Atrium::start().await;
    let (signed_in, first) = sign_in(&atrium).await;
    let attributes = "; HttpOnly; SameSite=Strict; Path=/v1/auth; Max-Age=2592000";
    assert_eq!(cookie(&signed_in, "atrium_refresh"), format!("{first}{attributes}"));
    assert!(!signed_in.text().contains(&first), "in no body, where a script could read it");

    let refreshed = refresh(&atrium, 0, &first).answers(200).await;
    let second = refresh_token(&refreshed);
    assert_ne!(second, first);
    assert_eq!(refreshed.json()["user"], signed_in.json()["user"]);
    assert_eq!(refreshed.json()["expires_in"], 900);
    assert_ne!(refreshed.at("/access_token"), signed_in.at("/access_token"));
    assert!(!refreshed.text().contains(&second));
    assert_eq!(refreshed.header("cache-control"), Some("no-store"));
    let session = cookie(&refreshed, "atrium_session");
    assert!(session.starts_with(&refreshed.at("/access_token")), "the same token in the cookie");
    holds(&atrium.client(), &signed_in).await;
    holds(&atrium.client(), &refreshed).await;

    // On and on, as a browser does it.
    let browser = atrium.client().with_cookies();
    browser.post("/v1/auth/guest").answers(201).await;
    for _ in 0..5 {
        browser.post("/v1/auth/refresh").header("sec-fetch-site", "same-origin").answers(200).await;
        browser.get("/v1/auth/me").answers(200).await;
    }

    // What is stored opens nothing.
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
async fn twenty_concurrent_refreshes_get_one_successor() {
    let atrium = Atrium::builder().apis(3).start().await;
    let (_, first) = sign_in(&atrium).await;
    let requests = (0..20).map(|at| tokio::spawn(refresh(&atrium, at % 3, &first).answers(200)));
    let mut successors = Vec::new();
    for request in requests.collect::<Vec<_>>() {
        let reply = request.await.unwrap();
        holds(&atrium.client(), &reply).await;
        successors.push(refresh_token(&reply));
    }
    successors.dedup();
    assert_eq!(successors.len(), 1);
    let second = &successors[0];

    // A window that lost the answer while the other one went on gets what the other one has.
    let third = refresh_token(&refresh(&atrium, 1, second).answers(200).await);
    for earlier in [&first, second] {
        assert_eq!(refresh_token(&refresh(&atrium, 0, earlier).answers(200).await), third);
    }
    later(&atrium, AFTER_THE_GRACE).await;
    let fourth = refresh_token(&refresh(&atrium, 0, &third).answers(200).await);
    assert_ne!(fourth, third);
    let kept: i64 = sqlx::query_scalar("SELECT count(successor_salt) FROM refresh_tokens")
        .fetch_one(&mut atrium.superuser().await)
        .await
        .unwrap();
    assert_eq!(kept, 1, "only what the grace needs");
}

#[tokio::test]
async fn a_reused_refresh_token_ends_the_sign_in_session_everywhere() {
    let atrium = Atrium::builder().apis(2).start().await;
    let (signed_in, first) = sign_in(&atrium).await;
    let (bystander, others) = sign_in(&atrium).await;
    let refreshed = refresh(&atrium, 0, &first).answers(200).await;
    let second = refresh_token(&refreshed);
    holds(&atrium.client_of(1), &refreshed).await;
    later(&atrium, AFTER_THE_GRACE).await;

    let reused = refresh(&atrium, 0, &first).refused(401, "refresh_token_reused").await;
    assert!(reused.header("set-cookie").is_none());
    for reply in [&signed_in, &refreshed] {
        let client = atrium.client().bearer(reply.at("/access_token"));
        client.get("/v1/auth/me").refused(401, "unauthenticated").await;
    }
    let other = atrium.client_of(1).bearer(refreshed.at("/access_token"));
    until_refused(&other).await;
    // Both the thief and the owner, with any token, at any process.
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
    assert_eq!((auth_sessions, revocations), (1, 1), "on record, once");
    let log = atrium.api(0).logs();
    assert_eq!(
        log.matches("a used refresh token came again; its sign-in is over").count(),
        1,
        "and in the log"
    );
    assert!(!log.contains(&first) && !log.contains(&second), "which holds no token");
    let admin = Client::new(atrium.api(0).admin_url());
    let metrics = admin.get("/metrics").answers(200).await.text();
    let reused = "atrium_refreshes_total{outcome=\"reused\"} 2";
    assert!(metrics.contains(reused), "{metrics}");

    holds(&atrium.client(), &bystander).await;
    refresh(&atrium, 1, &others).answers(200).await;
}

#[tokio::test]
async fn a_stream_ends_with_its_sign_in_session() {
    let atrium = Atrium::builder().apis(2).start().await;
    let (signed_in, first) = sign_in(&atrium).await;
    let client = atrium.client_of(1).bearer(signed_in.at("/access_token"));
    let created = client.post("/v1/orgs").json(json!({ "name": "Northwind" })).answers(202).await;
    assert_eq!(end_of(&client, created.header("operation-location").unwrap()).await, "COMMITTED");
    let path = format!("/v1/orgs/{}/configs/events", created.at("/id"));
    let mut stream = client.events(&path, None).await.unwrap();
    // Another token of the same sign-in is what signs out.
    let refreshed = refresh(&atrium, 0, &first).answers(200).await;
    atrium.client().bearer(refreshed.at("/access_token")).post("/v1/auth/logout").answers(204).await;
    let end = tokio::time::timeout(PATIENCE, async { while stream.next().await.is_some() {} });
    assert!(end.await.is_ok(), "the stream is still open");
}

#[tokio::test]
async fn a_sign_out_revokes_the_refresh_token() {
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
    // The access token from before the refresh is of the same sign-in.
    let before = atrium.client().bearer(signed_in.at("/access_token"));
    before.get("/v1/auth/me").refused(401, "unauthenticated").await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM refresh_tokens")
        .fetch_one(&mut atrium.superuser().await)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

/// Begins one more sign-in of the same user, as another device would have.
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
async fn signing_out_everywhere_ends_all_sessions_of_that_user_only() {
    let atrium = Atrium::builder().apis(3).start().await;
    let (first, first_token) = sign_in(&atrium).await;
    let (bystander, others) = sign_in(&atrium).await;
    let mut sign_ins = vec![(first, first_token.clone())];
    for api in 1..3 {
        let reply = refresh(&atrium, api, &another_sign_in(&atrium, &first_token).await).answers(200).await;
        let token = refresh_token(&reply);
        sign_ins.push((reply, token));
    }
    let sign_out = |reply: &Reply| atrium.client().bearer(reply.at("/access_token")).post("/v1/auth/logout");
    // A malformed token signs no user out.
    sign_out(&sign_ins[0].0).json(json!({ "everywhere": "yes" })).refused(422, "validation_failed").await;
    sign_out(&sign_ins[0].0).json(json!({ "all": true })).refused(422, "validation_failed").await;
    // One sign-in session ends the others only on request.
    sign_out(&sign_ins[2].0).json(json!({ "everywhere": false })).answers(204).await;
    for (reply, _) in &sign_ins[..2] {
        holds(&atrium.client(), reply).await;
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
            assert!(tokio::time::timeout(PATIENCE, refused).await.is_ok(), "process {api} still believes it");
            refresh(&atrium, api, token).refused(401, "unauthenticated").await;
        }
    }
    holds(&atrium.client(), &bystander).await;
    refresh(&atrium, 1, &others).answers(200).await;
}

#[tokio::test]
async fn all_invalid_refresh_tokens_get_the_same_response() {
    let atrium = Atrium::start().await;
    let (signed_in, token) = sign_in(&atrium).await;
    let (_, others) = sign_in(&atrium).await;
    let (_, expired) = sign_in(&atrium).await;
    let (mine, theirs) =
        (BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap(), BASE64_URL_SAFE_NO_PAD.decode(&others).unwrap());
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
        // Forged: knowing the ids is not enough.
        text([user, auth_session, &[0; 32]]),
        text([user, auth_session, &theirs[32..]]),
        // Foreign: a valid secret with the ids of another user.
        text([&theirs[..16], auth_session, secret]),
        text([user, &theirs[16..32], secret]),
        text([&theirs[..16], &theirs[16..32], secret]),
        text([&[7; 16], &[7; 16], secret]),
        // Too late.
        expired,
    ] {
        replies.push(refresh(&atrium, 0, &wrong).send().await.unwrap());
    }
    let none = atrium.client().post("/v1/auth/refresh").header("origin", atrium.public_url());
    replies.push(none.send().await.unwrap());
    // Two cookies of the name: one was planted.
    let two = atrium.client().post("/v1/auth/refresh").header("origin", atrium.public_url());
    let planted = format!("atrium_refresh={others}; atrium_refresh={token}");
    replies.push(two.header("cookie", planted).send().await.unwrap());
    // It is no access token either, nor is it taken from anywhere but its cookie.
    atrium.client().bearer(&token).get("/v1/auth/me").refused(401, "unauthenticated").await;
    replies.push(atrium.client().bearer(&token).post("/v1/auth/refresh").send().await.unwrap());
    alike(&replies, 401, "unauthenticated");

    // None of it did any harm.
    holds(&atrium.client(), &signed_in).await;
    refresh(&atrium, 0, &token).answers(200).await;
}

#[tokio::test]
async fn a_refresh_from_another_site_is_rejected() {
    let atrium = Atrium::start().await;
    let (signed_in, token) = sign_in(&atrium).await;
    let ask = || {
        let request = atrium.client().post("/v1/auth/refresh");
        request.header("cookie", format!("atrium_refresh={token}"))
    };
    ask().refused(403, "cross_site_request").await;
    for origin in ["https://evil.example", "null", "http://127.0.0.1:8081"] {
        ask().header("origin", origin).refused(403, "cross_site_request").await;
    }
    for site in ["cross-site", "same-site"] {
        ask().header("sec-fetch-site", site).refused(403, "cross_site_request").await;
    }
    let simple = ask().body("text/plain", "{}").header("origin", "https://evil.example");
    simple.refused(403, "cross_site_request").await;
    // Bytes of a form that a browser sends without asking, but from our own page: no input is taken.
    let same_origin = || ask().header("origin", atrium.public_url());
    same_origin().body("text/plain", "{}").refused(415, "unsupported_media_type").await;
    same_origin().json(json!({ "refresh_token": token })).refused(422, "validation_failed").await;
    // Not used up by any of these.
    holds(&atrium.client(), &signed_in).await;
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
async fn a_sign_in_session_expires_when_unused_and_after_half_a_year() {
    let atrium = Atrium::start().await;
    let (_, token) = sign_in(&atrium).await;
    // On its last day but one: what it gives now ends with the session.
    later(
        &atrium,
        "UPDATE auth_sessions SET started_at = started_at - interval '4284 hours', expires_at = now() + interval '1 hour'",
    )
    .await;
    let refreshed = refresh(&atrium, 0, &token).answers(200).await;
    let cookie = cookie(&refreshed, "atrium_refresh");
    let max_age: u64 = cookie.rsplit_once("Max-Age=").unwrap().1.parse().unwrap();
    assert!((36 * 3600 - 60..=36 * 3600).contains(&max_age), "{cookie}");
    later(&atrium, "UPDATE refresh_tokens SET expires_at = now() - interval '1 second'").await;
    let last = refresh_token(&refreshed);
    refresh(&atrium, 0, &last).refused(401, "unauthenticated").await;

    // A used token that has expired is deleted by the next refresh of its user.
    let (signed_in, token) = sign_in(&atrium).await;
    let second = refresh_token(&refresh(&atrium, 0, &token).answers(200).await);
    later(
        &atrium,
        "UPDATE refresh_tokens SET expires_at = now() - interval '1 second' WHERE used_at IS NOT NULL",
    )
    .await;
    refresh(&atrium, 0, &second).answers(200).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM refresh_tokens WHERE user_id = $1::uuid")
        .bind(signed_in.at("/user/id"))
        .fetch_one(&mut atrium.superuser().await)
        .await
        .unwrap();
    assert_eq!(left, 2);
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
