//! Limits that three API processes share through Redis, and enforce without it as well.

#![expect(clippy::print_stdout, reason = "how many were admitted is worth reading")]

use std::time::{Duration, Instant};

use atrium_harness::{Atrium, client::Client, guest::Guest};
use futures_util::future::join_all;
use serde_json::json;

use crate::{CheckedSend as _, metric, until, until_processes_counted};

const LIMIT: usize = 100;
/// The share of one process in the limit, rounded up.
const SHARE: usize = LIMIT.div_ceil(3);

/// Starts three API processes that share their limits.
async fn start_three() -> Atrium {
    let atrium = Atrium::builder().default_limits().private_redis().apis(3).start().await;
    until_processes_counted(&atrium, 3).await;
    atrium
}

/// Sends `requests` requests of one user, spread over these processes, and returns the number that was admitted.
async fn admitted(atrium: &Atrium, guest: &Guest, apis: &[usize], requests: usize) -> usize {
    const CONCURRENCY: usize = 10;
    let senders = (0..CONCURRENCY).map(|sender| async move {
        let mut admitted = 0;
        for request in 0..requests / CONCURRENCY {
            let api = atrium.api(apis[(sender + request) % apis.len()]).url();
            let reply = guest.client.at(api).get("/v1/auth/me").send().await.unwrap();
            match reply.code() {
                200 => admitted += 1,
                _ => assert_headers_agree(&reply.must_be(429, "rate_limited")),
            }
        }
        admitted
    });
    join_all(senders).await.into_iter().sum()
}

/// Asserts that the headers of a rejection agree, whether Redis or the process decided.
fn assert_headers_agree(refused: &atrium_contract::Reply) {
    let wait = refused.header("retry-after").unwrap();
    assert_eq!(refused.header("ratelimit"), Some(format!("\"requests\";r=0;t={wait}").as_str()));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"requests\";q=100;w=60"));
}

/// The number of requests by which a bucket refills in this time, rounded up.
fn refill(started_at: Instant) -> usize {
    started_at.elapsed().as_secs() as usize * LIMIT / 60 + 2
}

async fn unshared_decisions(atrium: &Atrium) -> f64 {
    let mut sum = 0.0;
    for api in 0..3 {
        sum += metric(atrium, api, "atrium_unshared_limits_total{policy=\"requests\"}").await;
    }
    sum
}

#[tokio::test]
async fn three_processes_together_admit_one_limit() {
    let atrium = start_three().await;
    for _ in 0..5 {
        let guest = atrium.guest().await;
        let (started_at, before) = (Instant::now(), unshared_decisions(&atrium).await);
        let admitted = admitted(&atrium, &guest, &[0, 1, 2], 1_000).await;
        let unshared_decisions = unshared_decisions(&atrium).await - before;
        println!(
            "{admitted} of 1,000 admitted in {:?}, {unshared_decisions} of them without Redis",
            started_at.elapsed()
        );
        let [sum, count] =
            ["sum", "count"].map(|part| format!("atrium_shared_limit_duration_seconds_{part}"));
        let waited = metric(&atrium, 0, &sum).await / metric(&atrium, 0, &count).await;
        println!("a request that queried Redis waited for {:?} on average", Duration::from_secs_f64(waited));
        assert!(
            admitted <= LIMIT + refill(started_at) + if unshared_decisions > 0.0 { SHARE } else { 0 },
            "{admitted}"
        );
        // If Redis' replies were too late on a busy machine, processes used their own shares: try again.
        if unshared_decisions == 0.0 {
            assert!(admitted >= LIMIT - 2, "{admitted} admitted");
            return;
        }
    }
}

#[tokio::test]
async fn a_redis_outage_admits_at_most_one_extra_share() {
    let mut atrium = start_three().await;
    let (spender, other) = (atrium.guest().await, atrium.guest().await);
    let started_at = Instant::now();
    // All requests go to one process, so the others have no state of this user.
    let mut total = admitted(&atrium, &spender, &[0], 150).await;
    assert!(total >= LIMIT - SHARE, "{total} admitted");
    atrium.redis().sigkill().await;
    total += admitted(&atrium, &spender, &[0, 1, 2], 600).await;
    println!("{total} of 750 admitted, without Redis after the first 150; {:?}", started_at.elapsed());
    assert!(total <= LIMIT + SHARE + refill(started_at), "{total} admitted");
    // Other users are still admitted, and no request waits for a stopped Redis.
    let (other_started_at, mut other_admitted) = (Instant::now(), 0);
    for _ in 0..2 {
        other_admitted += admitted(&atrium, &other, &[0, 1, 2], 300).await;
    }
    println!(
        "{other_admitted} of 600 admitted of another user without Redis; {:?}",
        other_started_at.elapsed()
    );
    assert!(
        (3..=LIMIT + SHARE + refill(other_started_at)).contains(&other_admitted),
        "{other_admitted} admitted"
    );
    assert!(unshared_decisions(&atrium).await > 0.0);

    atrium.redis().respawn().await.unwrap();
    for api in 0..3 {
        until("the process shares its limits again", async || {
            metric(&atrium, api, "atrium_limits_shared").await == 1.0
        })
        .await;
    }
    total += admitted(&atrium, &spender, &[0, 1, 2], 300).await;
    assert!(total <= LIMIT + SHARE + refill(started_at), "{total} admitted");
    // A new process has no state except Redis'.
    let url = atrium.add_api().await.url();
    let at_new_process = Guest { client: spender.client.at(url), ..spender.clone() };
    let mut admitted_by_new = 0;
    for _ in 0..50 {
        admitted_by_new +=
            usize::from(at_new_process.client.get("/v1/auth/me").send().await.unwrap().code() == 200);
    }
    assert!(
        total + admitted_by_new <= LIMIT + SHARE + refill(started_at),
        "{total} + {admitted_by_new} admitted"
    );
    let newcomer = Guest::sign_in(&atrium.client_of(1)).await.unwrap();
    newcomer.client.get("/v1/auth/me").answers(200).await;
}

#[tokio::test]
async fn a_flush_neither_lifts_limits_nor_blocks_others() {
    let atrium = start_three().await;
    let (spread_user, pinned_user, newcomer) =
        (atrium.guest().await, atrium.guest().await, atrium.guest().await);
    let started_at = Instant::now();
    let mut total = admitted(&atrium, &spread_user, &[0, 1, 2], 60).await;
    let mut pinned_total = admitted(&atrium, &pinned_user, &[0], 150).await;
    atrium.redis().flush_all().await.unwrap();
    total += admitted(&atrium, &spread_user, &[0, 1, 2], 900).await;
    pinned_total += admitted(&atrium, &pinned_user, &[1, 2], 200).await;
    println!("{total} of 960 admitted, flushed after 60; of the user at one process {pinned_total} of 350");
    assert!(total <= LIMIT + SHARE + refill(started_at), "{total} admitted");
    assert!(pinned_total <= LIMIT + SHARE + refill(started_at), "{pinned_total} admitted");
    for api in 0..3 {
        newcomer.client.at(atrium.api(api).url()).get("/v1/auth/me").answers(200).await;
    }
}

#[tokio::test]
async fn a_hanging_redis_does_not_slow_requests() {
    let atrium = start_three().await;
    let guest = atrium.guest().await;
    guest.client.get("/v1/auth/me").answers(200).await;
    atrium.redis().suspend();
    let started_at = Instant::now();
    // The timeout of other Redis commands is two seconds, which would add up to two minutes.
    for _ in 0..60 {
        guest.client.get("/v1/auth/me").send().await.unwrap();
    }
    let elapsed = started_at.elapsed();
    atrium.redis().resume();
    println!("60 requests in {elapsed:?} while Redis hangs");
    assert!(elapsed < Duration::from_secs(60), "{elapsed:?}");
    assert!(metric(&atrium, 0, "atrium_unshared_limits_total{policy=\"requests\"}").await > 0.0);
}

#[tokio::test]
async fn invalid_tokens_are_limited_by_address_and_do_not_block_verified_ones() {
    let builder = Atrium::builder().default_value("limits.bad_tokens_per_minute", json!(20));
    let atrium = builder.setting("ATRIUM_TRUSTED_PROXY_HOPS", "1").start().await;
    let client = atrium.client();
    let known_user = Guest::sign_in(&client).await.unwrap();
    known_user.client.get("/v1/auth/me").answers(200).await;
    let from = |client: &Client, address: &str| client.get("/v1/auth/me").header("x-forwarded-for", address);
    let bad = client.bearer("not.a.token");
    let (started_at, mut verified) = (Instant::now(), 0);
    for attempt in 0..200 {
        // The proxy adds the last address. The client can forge those before it.
        let reply = from(&bad, &format!("9.9.9.{attempt}, 1.1.1.1")).send().await.unwrap();
        match reply.code() {
            401 => verified += 1,
            _ => {
                let refused = reply.must_be(429, "rate_limited");
                assert_eq!(refused.header("ratelimit-policy"), Some("\"bad_tokens\";q=20;w=60"));
                let wait = refused.header("retry-after").unwrap();
                assert_eq!(
                    refused.header("ratelimit"),
                    Some(format!("\"bad_tokens\";r=0;t={wait}").as_str())
                );
            }
        }
    }
    let refilled = started_at.elapsed().as_secs() / 3 + 1;
    assert!((20..=20 + refilled).contains(&verified), "{verified} tokens were verified");
    // From this address, only tokens that were verified before are accepted. Other addresses are not affected.
    from(&known_user.client, "1.1.1.1").answers(200).await;
    from(&bad, "2.2.2.2").refused(401, "unauthenticated").await;
    let newcomer = Guest::sign_in(&client).await.unwrap();
    while from(&bad, "1.1.1.1").send().await.unwrap().code() == 401 {}
    from(&newcomer.client, "1.1.1.1").refused(429, "rate_limited").await;
    from(&newcomer.client, "3.3.3.3").answers(200).await;
    from(&newcomer.client, "1.1.1.1").answers(200).await;
}

#[tokio::test]
async fn sign_ins_of_all_addresses_share_a_total_limit() {
    let builder = Atrium::builder().default_value("limits.sign_ins_per_minute_total", json!(6)).apis(2);
    let atrium = builder.setting("ATRIUM_TRUSTED_PROXY_HOPS", "1").start().await;
    let (started_at, mut admitted) = (Instant::now(), 0);
    for address in 0..20 {
        let client = atrium.client_of(address % 2);
        let sign_in = client.post("/v1/auth/guest").header("x-forwarded-for", format!("1.1.1.{address}"));
        let reply = sign_in.send().await.unwrap();
        match reply.code() {
            201 => admitted += 1,
            _ => {
                let refused = reply.must_be(429, "rate_limited");
                assert_eq!(refused.header("ratelimit-policy"), Some("\"all_sign_ins\";q=6;w=60"));
            }
        }
    }
    assert!((1..=6 + 3 + started_at.elapsed().as_secs() / 10 + 1).contains(&admitted), "{admitted} admitted");
}
