//! Rate limits: they follow the configuration, and headers report them.

use std::time::{Duration, Instant};

use atrium_harness::{Atrium, guest::Guest};
use serde_json::json;

use crate::{CheckedSend as _, by_cookie, until};

#[tokio::test]
async fn rate_limits_are_enforced_reported_and_changed_at_run_time() {
    let atrium = Atrium::builder().default_limits().start().await;
    let client = atrium.client();
    let mut last = None;
    for attempt in 0..10 {
        // A client cannot forge its address with a header.
        let forged = format!("10.0.0.{attempt}");
        let reply = client.post("/v1/auth/guest").header("x-forwarded-for", forged).answers(201).await;
        assert_eq!(reply.header("ratelimit-policy"), Some("\"sign_ins\";q=10;w=60"));
        let quota_status = reply.header("ratelimit").unwrap().to_owned();
        assert!(quota_status.starts_with(&format!("\"sign_ins\";r={};t=", 9 - attempt)), "{quota_status}");
        last = Some(reply);
    }
    let refused = client.post("/v1/auth/guest").refused(429, "rate_limited").await;
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), Some(format!("\"sign_ins\";r=0;t={wait}").as_str()));

    let guest = client.bearer(last.unwrap().at("/access_token"));
    let mut admitted = 0_u64;
    let started_at = Instant::now();
    let refused = loop {
        let reply = guest.get("/v1/auth/me").send().await.unwrap();
        if reply.code() != 200 {
            break reply.must_be(429, "rate_limited");
        }
        admitted += 1;
        // The bucket refills while the requests run.
        let refilled = started_at.elapsed().as_secs() * 100 / 60 + 2;
        assert!(admitted <= 100 + refilled, "{admitted} admitted");
    };
    assert!(admitted >= 100, "{admitted} admitted");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"requests\";q=100;w=60"));
    // Pages and public keys are not limited.
    client.get("/").answers(200).await;

    atrium.set_default("limits.requests_per_minute", json!(1000)).await;
    until("the new limit applies", async || guest.get("/v1/auth/me").send().await.unwrap().code() == 200)
        .await;
}

#[tokio::test]
async fn behind_a_proxy_limits_use_the_forwarded_address() {
    let atrium = Atrium::builder().default_limits().setting("ATRIUM_TRUSTED_PROXY_HOPS", "1").start().await;
    let client = atrium.client();
    let sign_in = |forwarded: String| client.post("/v1/auth/guest").header("x-forwarded-for", forwarded);
    for attempt in 0..10 {
        sign_in(format!("6.6.6.{attempt}, 1.1.1.1")).answers(201).await;
    }
    sign_in("7.7.7.7, 1.1.1.1".to_owned()).refused(429, "rate_limited").await;
    sign_in("1.1.1.1, 2.2.2.2".to_owned()).answers(201).await;
    Guest::sign_in(&client).await.unwrap();
}

#[tokio::test]
async fn a_stream_over_the_limit_is_a_problem_for_programs_and_a_retry_for_browsers() {
    let builder = Atrium::builder().default_limits().default_value("limits.requests_per_minute", json!(20));
    let atrium = builder.start().await;
    let guest = atrium.guest().await;
    let creation = guest.create_organization("Northwind").await.unwrap();
    while guest.client.get("/v1/auth/me").send().await.unwrap().code() == 200 {}
    let path = format!("/v1/operations/{}/events", creation.operation);
    guest.client.get(&path).refused(429, "rate_limited").await;
    let mut stream = by_cookie(&atrium, &guest, &path).events().await.unwrap();
    assert!(stream.next().await.is_none(), "the stream sent an event over the limit");
    let retry = stream.retry().unwrap();
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&retry), "{retry:?}");
}
