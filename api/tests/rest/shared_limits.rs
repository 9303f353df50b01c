//! Limits over three API processes: one number, in every state of Redis.

#![expect(clippy::print_stdout, reason = "how many were admitted is worth reading")]

use std::time::{Duration, Instant};

use atrium_harness::{Atrium, client::Client, guest::Guest};
use futures_util::future::join_all;
use serde_json::json;

use crate::{Ask as _, every_process_counts, metric, until};

const LIMIT: usize = 100;
/// A process's part of the limit, rounded up.
const SHARE: usize = LIMIT.div_ceil(3);

/// Three processes that share their limits.
async fn three() -> Atrium {
    let atrium = Atrium::builder().default_limits().private_redis().apis(3).start().await;
    every_process_counts(&atrium, 3).await;
    atrium
}

/// Sends `requests` requests of one person, spread over these processes, and returns how many were admitted.
async fn admitted(atrium: &Atrium, guest: &Guest, apis: &[usize], requests: usize) -> usize {
    const AT_ONCE: usize = 10;
    let senders = (0..AT_ONCE).map(|sender| async move {
        let mut admitted = 0;
        for request in 0..requests / AT_ONCE {
            let api = atrium.api(apis[(sender + request) % apis.len()]).url();
            let reply = guest.client.at(api).get("/v1/auth/me").send().await.unwrap();
            match reply.code() {
                200 => admitted += 1,
                _ => agrees(&reply.must_be(429, "rate_limited")),
            }
        }
        admitted
    });
    join_all(senders).await.into_iter().sum()
}

/// All processes send the same headers with a rejection.
fn agrees(refused: &atrium_contract::Reply) {
    let wait = refused.header("retry-after").unwrap();
    assert_eq!(refused.header("ratelimit"), Some(format!("\"requests\";r=0;t={wait}").as_str()));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"requests\";q=100;w=60"));
}

/// What flows back into a bucket in this time, rounded up.
fn refill(begun: Instant) -> usize {
    begun.elapsed().as_secs() as usize * LIMIT / 60 + 2
}

async fn unshared(atrium: &Atrium) -> f64 {
    let mut sum = 0.0;
    for api in 0..3 {
        sum += metric(atrium, api, "atrium_unshared_limits_total{policy=\"requests\"}").await;
    }
    sum
}

#[tokio::test]
async fn three_processes_share_one_limit() {
    let atrium = three().await;
    for _ in 0..5 {
        let guest = atrium.guest().await;
        let (begun, before) = (Instant::now(), unshared(&atrium).await);
        let admitted = admitted(&atrium, &guest, &[0, 1, 2], 1_000).await;
        let unshared = unshared(&atrium).await - before;
        println!("{admitted} of 1,000 admitted in {:?}, {unshared} of them without Redis", begun.elapsed());
        let [sum, count] =
            ["sum", "count"].map(|part| format!("atrium_shared_limit_duration_seconds_{part}"));
        let waited = metric(&atrium, 0, &sum).await / metric(&atrium, 0, &count).await;
        println!("a request that asked waited for {:?} on average", Duration::from_secs_f64(waited));
        assert!(admitted <= LIMIT + refill(begun) + if unshared > 0.0 { SHARE } else { 0 }, "{admitted}");
        // On a machine so busy that Redis' answers come too late, shares were given: once more.
        if unshared == 0.0 {
            assert!(admitted >= LIMIT - 2, "{admitted} admitted");
            return;
        }
    }
}

#[tokio::test]
async fn an_outage_of_redis_grants_at_most_one_extra_share() {
    let mut atrium = three().await;
    let (spender, other) = (atrium.guest().await, atrium.guest().await);
    let begun = Instant::now();
    // All requests at one process: the others have never seen this user.
    let mut total = admitted(&atrium, &spender, &[0], 150).await;
    assert!(total >= LIMIT - SHARE, "{total} admitted");
    atrium.redis().sigkill().await;
    total += admitted(&atrium, &spender, &[0, 1, 2], 600).await;
    println!("{total} of 750 admitted, Redis away after the first 150; {:?}", begun.elapsed());
    assert!(total <= LIMIT + SHARE + refill(begun), "{total} admitted");
    // The others are not locked out, and no request waits for a dead Redis.
    let (asked, mut given) = (Instant::now(), 0);
    for _ in 0..2 {
        given += admitted(&atrium, &other, &[0, 1, 2], 300).await;
    }
    println!("{given} of 600 admitted of another person without Redis; {:?}", asked.elapsed());
    assert!((3..=LIMIT + SHARE + refill(asked)).contains(&given), "{given} admitted");
    assert!(unshared(&atrium).await > 0.0);

    atrium.redis().respawn().await.unwrap();
    for api in 0..3 {
        until("it finds back to Redis", async || metric(&atrium, api, "atrium_limits_shared").await == 1.0)
            .await;
    }
    total += admitted(&atrium, &spender, &[0, 1, 2], 300).await;
    assert!(total <= LIMIT + SHARE + refill(begun), "{total} admitted");
    // A new process has only the state in Redis.
    let url = atrium.add_api().await.url();
    let fresh = Guest { client: spender.client.at(url), ..spender.clone() };
    let mut more = 0;
    for _ in 0..50 {
        more += usize::from(fresh.client.get("/v1/auth/me").send().await.unwrap().code() == 200);
    }
    assert!(total + more <= LIMIT + SHARE + refill(begun), "{total} + {more} admitted");
    let newcomer = Guest::sign_in(&atrium.client_of(1)).await.unwrap();
    newcomer.client.get("/v1/auth/me").answers(200).await;
}

#[tokio::test]
async fn a_flush_neither_lifts_limits_nor_locks_callers_out() {
    let atrium = three().await;
    let (spread, stuck, newcomer) = (atrium.guest().await, atrium.guest().await, atrium.guest().await);
    let begun = Instant::now();
    let mut total = admitted(&atrium, &spread, &[0, 1, 2], 60).await;
    let mut at_one = admitted(&atrium, &stuck, &[0], 150).await;
    atrium.redis().flush_all().await.unwrap();
    total += admitted(&atrium, &spread, &[0, 1, 2], 900).await;
    at_one += admitted(&atrium, &stuck, &[1, 2], 200).await;
    println!("{total} of 960 admitted, flushed after 60; of who was at one process {at_one} of 350");
    assert!(total <= LIMIT + SHARE + refill(begun), "{total} admitted");
    assert!(at_one <= LIMIT + SHARE + refill(begun), "{at_one} admitted");
    for api in 0..3 {
        newcomer.client.at(atrium.api(api).url()).get("/v1/auth/me").answers(200).await;
    }
}

#[tokio::test]
async fn a_hanging_redis_does_not_slow_requests() {
    let atrium = three().await;
    let guest = atrium.guest().await;
    guest.client.get("/v1/auth/me").answers(200).await;
    atrium.redis().suspend();
    let begun = Instant::now();
    // Each would wait for two seconds, the time limit of other commands.
    for _ in 0..60 {
        guest.client.get("/v1/auth/me").send().await.unwrap();
    }
    let took = begun.elapsed();
    atrium.redis().resume();
    println!("60 requests in {took:?} while Redis hangs");
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert!(metric(&atrium, 0, "atrium_unshared_limits_total{policy=\"requests\"}").await > 0.0);
}

#[tokio::test]
async fn invalid_tokens_are_limited_by_address_without_locking_out_valid_ones() {
    let builder = Atrium::builder().default_value("limits.bad_tokens_per_minute", json!(20));
    let atrium = builder.setting("ATRIUM_TRUSTED_PROXY_HOPS", "1").start().await;
    let client = atrium.client();
    let known = Guest::sign_in(&client).await.unwrap();
    known.client.get("/v1/auth/me").answers(200).await;
    let from = |client: &Client, address: &str| client.get("/v1/auth/me").header("x-forwarded-for", address);
    let bad = client.bearer("not.a.token");
    let (begun, mut looked_at) = (Instant::now(), 0);
    for attempt in 0..200 {
        // The last address is the proxy's word, all before it the client's.
        let reply = from(&bad, &format!("9.9.9.{attempt}, 1.1.1.1")).send().await.unwrap();
        match reply.code() {
            401 => looked_at += 1,
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
    let refilled = begun.elapsed().as_secs() / 3 + 1;
    assert!((20..=20 + refilled).contains(&looked_at), "{looked_at} tokens were looked at");
    // From this address, only tokens that were valid before are accepted; from others, all valid ones.
    from(&known.client, "1.1.1.1").answers(200).await;
    from(&bad, "2.2.2.2").refused(401, "unauthenticated").await;
    let newcomer = Guest::sign_in(&client).await.unwrap();
    while from(&bad, "1.1.1.1").send().await.unwrap().code() == 401 {}
    from(&newcomer.client, "1.1.1.1").refused(429, "rate_limited").await;
    from(&newcomer.client, "3.3.3.3").answers(200).await;
    from(&newcomer.client, "1.1.1.1").answers(200).await;
}

#[tokio::test]
async fn sign_ins_of_all_addresses_share_a_limit() {
    let builder = Atrium::builder().default_value("limits.sign_ins_per_minute_total", json!(6)).apis(2);
    let atrium = builder.setting("ATRIUM_TRUSTED_PROXY_HOPS", "1").start().await;
    let (begun, mut admitted) = (Instant::now(), 0);
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
    assert!((1..=6 + 3 + begun.elapsed().as_secs() / 10 + 1).contains(&admitted), "{admitted} admitted");
}
