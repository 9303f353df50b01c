//! Quotas of organizations: all members share them, over all processes, and other users do not count.

use std::time::{Duration, Instant};

use atrium_harness::{Atrium, client::EventStream};
use futures_util::future::join_all;
use serde_json::json;

use crate::{
    CheckedSend as _, PATIENCE, assert_identical_problems, by_cookie, metric, until, until_processes_counted,
};

const QUOTA: usize = 60;

#[tokio::test]
async fn the_request_quota_counts_all_members_and_no_strangers() {
    let atrium = Atrium::builder().apis(2).start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Busy").await.unwrap();
    let member = owner.invite_guest(&org, "viewer").await.unwrap();
    let quiet = atrium.guest().await;
    let other = quiet.organization("Quiet").await.unwrap();
    atrium.set_for(&org, "quotas.requests_per_minute", json!(QUOTA)).await;
    let path = format!("/v1/orgs/{org}");
    let status_path = format!("{path}/configs/status");
    until("every process applies it", async || {
        let status = owner.client.get(&status_path).answers(200).await;
        status.at("/applied") == status.at("/total")
    })
    .await;

    // Requests of a non-member who has the organization's id do not count.
    let stranger = atrium.guest().await;
    let unknown = format!("/v1/orgs/{}", stranger.id);
    let mut replies = vec![stranger.client.get(&unknown).send().await.unwrap()];
    for _ in 0..QUOTA * 2 {
        replies.push(stranger.client.get(&path).send().await.unwrap());
    }
    assert_identical_problems(&replies, 404, "not_found");

    let started_at = Instant::now();
    let noisy = async {
        let mut admitted = 0;
        for request in 0..QUOTA * 10 {
            let caller = if request % 2 == 0 { &owner } else { &member };
            let reply = caller.client.at(atrium.api(request / 2 % 2).url()).get(&path).send().await.unwrap();
            match reply.code() {
                200 => admitted += 1,
                _ => {
                    let refused = reply.must_be(429, "quota_exceeded");
                    assert_eq!(refused.header("ratelimit-policy"), Some("\"org_requests\";q=60;w=60"));
                    let wait = refused.header("retry-after").unwrap();
                    let quota_status = format!("\"org_requests\";r=0;t={wait}");
                    assert_eq!(refused.header("ratelimit"), Some(quota_status.as_str()));
                }
            }
        }
        admitted
    };
    let steady = async {
        for _ in 0..QUOTA {
            quiet.client.get(format!("/v1/orgs/{other}")).answers(200).await;
        }
    };
    let (admitted, ()) = tokio::join!(noisy, steady);
    let refilled = started_at.elapsed().as_secs() as usize + 2;
    assert!(admitted <= QUOTA + refilled + QUOTA / 2, "{admitted} admitted");
    assert!(admitted >= QUOTA / 4, "{admitted} admitted");
    // A stranger still gets the same response, and members can use routes outside the organization.
    replies.push(stranger.client.get(&path).send().await.unwrap());
    assert_identical_problems(&replies, 404, "not_found");
    member.client.get("/v1/auth/me").answers(200).await;
    // A stream over the quota gets a retry delay, because an EventSource does not reconnect after a 429. On a slow
    // machine the quota may have refilled, so this is repeated.
    let started_at = Instant::now();
    loop {
        while owner.client.get(&path).send().await.unwrap().code() == 200 {}
        let mut stream =
            by_cookie(&atrium, &owner, &format!("{path}/configs/events")).events().await.unwrap();
        if stream.next().await.is_none() {
            assert!(stream.retry().unwrap() >= Duration::from_secs(1));
            break;
        }
        assert!(started_at.elapsed() < PATIENCE, "the stream sent an event over the quota");
    }
}

/// Opens `count` streams concurrently, spread over the processes, which have `already_open` streams. Returns the
/// streams that are still open when all others have ended.
async fn open_streams(
    atrium: &Atrium,
    apis: usize,
    path: &str,
    owner: &atrium_harness::guest::Guest,
    already_open: usize,
    count: usize,
) -> Vec<EventStream> {
    let opening = (0..count).map(|index| {
        let client = owner.client.at(atrium.api(index % apis).url());
        async move {
            match client.events(path, None).await {
                Ok(stream) => Some(stream),
                Err(error) => {
                    let refused = error.reply().unwrap().clone().must_be(429, "quota_exceeded");
                    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 4);
                    None
                }
            }
        }
    });
    let open: Vec<_> = join_all(opening).await.into_iter().flatten().collect();
    let started_at = Instant::now();
    loop {
        let counted = stream_count(atrium, 0..apis).await;
        if (already_open + open.len()) as f64 == counted {
            return open;
        }
        assert!(
            started_at.elapsed() < PATIENCE,
            "{} streams look open, but the processes count {counted}",
            open.len()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn stream_count(atrium: &Atrium, apis: impl Iterator<Item = usize>) -> f64 {
    let mut sum = 0.0;
    for api in apis {
        sum += metric(atrium, api, "atrium_sse_streams{kind=\"config\"}").await;
    }
    sum
}

/// The number of open streams that the processes have reported to Redis.
async fn reported_streams(atrium: &Atrium) -> u32 {
    let mut redis = atrium.redis_connection().await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("atrium:{limits.*}:streams:*").query_async(&mut redis).await.unwrap();
    let mut sum = 0;
    for key in keys {
        let reports: Vec<String> = redis::cmd("HVALS").arg(key).query_async(&mut redis).await.unwrap();
        sum += reports
            .iter()
            .map(|report| report.split_once(':').unwrap().0.parse::<u32>().unwrap())
            .sum::<u32>();
    }
    sum
}

#[tokio::test]
async fn open_streams_never_exceed_the_quota_during_races_crashes_and_flushes() {
    let atrium = Atrium::builder().apis(3).private_redis().start().await;
    until_processes_counted(&atrium, 3).await;
    let owner = atrium.guest().await;
    let org = owner.organization("Streams").await.unwrap();
    atrium.set_for(&org, "quotas.active_streams", json!(6)).await;
    let path = format!("/v1/orgs/{org}/configs/events");
    let status = format!("/v1/orgs/{org}/configs/status");
    for api in 0..3 {
        let client = owner.client.at(atrium.api(api).url());
        // The first request of an organization loads its newest configuration.
        client.get(&status).answers(200).await;
    }
    let mut open = open_streams(&atrium, 3, &path, &owner, 0, 30).await;
    assert_eq!(open.len(), 6);
    assert_eq!(stream_count(&atrium, 0..3).await, 6.0);

    // After a flush, each process reports its streams again, and the quota is still enforced.
    atrium.redis().flush_all().await.unwrap();
    assert!(open_streams(&atrium, 3, &path, &owner, 6, 15).await.is_empty());
    until("the processes have reported their streams again after the flush", async || {
        reported_streams(&atrium).await == 6
    })
    .await;
    assert!(open_streams(&atrium, 3, &path, &owner, 6, 15).await.is_empty());
    assert_eq!(stream_count(&atrium, 0..3).await, 6.0);

    // When one stream ends, another one may open.
    drop(open.pop());
    until("the freed slot is used again", async || {
        open.extend(open_streams(&atrium, 3, &path, &owner, 5, 1).await);
        open.len() == 6
    })
    .await;
    assert_eq!(stream_count(&atrium, 0..3).await, 6.0);

    // The streams of a killed process count for some seconds only.
    let freed = stream_count(&atrium, 2..3).await;
    atrium.api(2).sigkill().await;
    let mut replacements = Vec::new();
    until(&format!("the {freed} slots of a killed process are used again"), async || {
        let already_open = stream_count(&atrium, 0..2).await as usize;
        replacements.extend(open_streams(&atrium, 2, &path, &owner, already_open, 4).await);
        let counted = stream_count(&atrium, 0..2).await;
        assert!(counted <= 6.0);
        counted == 6.0
    })
    .await;
}
