//! Quotas of organizations: shared by their members over all processes, and by no one else.

use std::time::{Duration, Instant};

use atrium_harness::{Atrium, client::EventStream};
use futures_util::future::join_all;
use serde_json::json;

use crate::{Ask as _, PATIENCE, alike, by_cookie, every_process_counts, metric, until};

const QUOTA: usize = 60;

#[tokio::test]
async fn the_request_quota_counts_members_and_ignores_strangers() {
    let atrium = Atrium::builder().apis(2).start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Busy").await.unwrap();
    let member = owner.invite_guest(&org, "viewer").await.unwrap();
    let quiet = atrium.guest().await;
    let other = quiet.organization("Quiet").await.unwrap();
    atrium.set_for(&org, "quotas.requests_per_minute", json!(QUOTA)).await;
    let path = format!("/v1/orgs/{org}");
    let effective = format!("{path}/configs/status");
    until("every process applies it", async || {
        let status = owner.client.get(&effective).answers(200).await;
        status.at("/applied") == status.at("/total")
    })
    .await;

    // A stranger who knows the id.
    let stranger = atrium.guest().await;
    let nowhere = format!("/v1/orgs/{}", stranger.id);
    let mut answers = vec![stranger.client.get(&nowhere).send().await.unwrap()];
    for _ in 0..QUOTA * 2 {
        answers.push(stranger.client.get(&path).send().await.unwrap());
    }
    alike(&answers, 404, "not_found");

    let begun = Instant::now();
    let noisy = async {
        let mut admitted = 0;
        for request in 0..QUOTA * 10 {
            let who = if request % 2 == 0 { &owner } else { &member };
            let reply = who.client.at(atrium.api(request / 2 % 2).url()).get(&path).send().await.unwrap();
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
    let refilled = begun.elapsed().as_secs() as usize + 2;
    assert!(admitted <= QUOTA + refilled + QUOTA / 2, "{admitted} admitted");
    assert!(admitted >= QUOTA / 4, "{admitted} admitted");
    // Still nothing to see for a stranger; and the members' own doors are open.
    answers.push(stranger.client.get(&path).send().await.unwrap());
    alike(&answers, 404, "not_found");
    member.client.get("/v1/auth/me").answers(200).await;
    // A browser's stream gets the wait before the next attempt: an EventSource never reconnects after a 429. On a slow
    // machine the quota may have capacity again.
    let begun = Instant::now();
    loop {
        while owner.client.get(&path).send().await.unwrap().code() == 200 {}
        let mut stream =
            by_cookie(&atrium, &owner, &format!("{path}/configs/events")).events().await.unwrap();
        if stream.next().await.is_none() {
            assert!(stream.retry().unwrap() >= Duration::from_secs(1));
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "an event over the quota");
    }
}

/// Opens several streams concurrently, spread over the processes, which have some open already. Returns the open ones
/// after all others were rejected.
async fn streams(
    atrium: &Atrium,
    apis: usize,
    path: &str,
    owner: &atrium_harness::guest::Guest,
    held: usize,
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
    let begun = Instant::now();
    loop {
        let counted = counted(atrium, 0..apis).await;
        if (held + open.len()) as f64 == counted {
            return open;
        }
        assert!(begun.elapsed() < PATIENCE, "{} streams look open, {counted} are", open.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn counted(atrium: &Atrium, apis: impl Iterator<Item = usize>) -> f64 {
    let mut sum = 0.0;
    for api in apis {
        sum += metric(atrium, api, "atrium_sse_streams{kind=\"config\"}").await;
    }
    sum
}

/// The number of open streams that the processes report in Redis.
async fn said(atrium: &Atrium) -> u32 {
    let mut redis = atrium.redis_connection().await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("atrium:{limits.*}:streams:*").query_async(&mut redis).await.unwrap();
    let mut sum = 0;
    for key in keys {
        let held: Vec<String> = redis::cmd("HVALS").arg(key).query_async(&mut redis).await.unwrap();
        sum += held.iter().map(|held| held.split_once(':').unwrap().0.parse::<u32>().unwrap()).sum::<u32>();
    }
    sum
}

#[tokio::test]
async fn open_streams_never_exceed_the_quota_during_races_crashes_and_flushes() {
    let atrium = Atrium::builder().apis(3).private_redis().start().await;
    every_process_counts(&atrium, 3).await;
    let owner = atrium.guest().await;
    let org = owner.organization("Streams").await.unwrap();
    atrium.set_for(&org, "quotas.active_streams", json!(6)).await;
    let path = format!("/v1/orgs/{org}/configs/events");
    let used = format!("/v1/orgs/{org}/configs/status");
    for api in 0..3 {
        let client = owner.client.at(atrium.api(api).url());
        // First use loads the newest.
        client.get(&used).answers(200).await;
    }
    let mut open = streams(&atrium, 3, &path, &owner, 0, 30).await;
    assert_eq!(open.len(), 6);
    assert_eq!(counted(&atrium, 0..3).await, 6.0);

    // Lost counts are reported again: no stream is opened above the quota.
    atrium.redis().flush_all().await.unwrap();
    assert!(streams(&atrium, 3, &path, &owner, 6, 15).await.is_empty());
    until("the numbers that a flush lost are said again", async || said(&atrium).await == 6).await;
    assert!(streams(&atrium, 3, &path, &owner, 6, 15).await.is_empty());
    assert_eq!(counted(&atrium, 0..3).await, 6.0);

    // One ends, one may come.
    drop(open.pop());
    until("the place that was given back is given again", async || {
        open.extend(streams(&atrium, 3, &path, &owner, 5, 1).await);
        open.len() == 6
    })
    .await;
    assert_eq!(counted(&atrium, 0..3).await, 6.0);

    // A process that is killed takes its places along for some seconds only.
    let lost = counted(&atrium, 2..3).await;
    atrium.api(2).sigkill().await;
    let mut more = Vec::new();
    until(&format!("the {lost} places of a dead process are given again"), async || {
        let held = counted(&atrium, 0..2).await as usize;
        more.extend(streams(&atrium, 2, &path, &owner, held, 4).await);
        let counted = counted(&atrium, 0..2).await;
        assert!(counted <= 6.0);
        counted == 6.0
    })
    .await;
}
