//! Worker processes report the state of the streams, the outbox and the sagas, and stay ready during outages.

use std::{collections::HashMap, time::Duration};

use atrium_harness::Atrium;
use atrium_servers::postgres::Durability;
use atrium_shared::streams::Inbound;
use redis::AsyncCommands as _;

use crate::platform::{TestPlatform, until};

/// Reads the metrics of a worker, by name and labels.
async fn metrics(platform: &TestPlatform, worker: usize) -> HashMap<String, String> {
    let text = admin(platform, worker, "/metrics").await.1;
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

async fn admin(platform: &TestPlatform, worker: usize, path: &str) -> (u16, String) {
    let url = platform.atrium.worker(worker).admin_url();
    let reply =
        atrium_harness::client::Client::new(url).get(path).send().await.expect("the admin port answers");
    (reply.code(), reply.text())
}

const BACKLOG: &str = "atrium_stream_backlog{stream=\"saga\",group=\"workers\"}";
const UNKNOWN: &str = "atrium_stream_backlog_state{stream=\"saga\",group=\"workers\",state=\"unknown\"}";

#[tokio::test]
async fn all_processes_report_the_same_values_and_nan_while_unknown() {
    let mut platform =
        TestPlatform::start(Atrium::builder().private_redis().workers(["relay", "relay"])).await;
    let all_report = async |platform: &TestPlatform, name: &str, value: &str| {
        let mut matches = true;
        for worker in 0..2 {
            matches &= metrics(platform, worker).await.get(name).is_some_and(|reported| reported == value);
        }
        matches
    };
    until("there is no group yet", async || all_report(&platform, UNKNOWN, "1").await).await;
    assert!(all_report(&platform, BACKLOG, "NaN").await);

    let (_, saga) = platform.request_organization().await;
    let stream = Inbound::Saga.to_string();
    until("the message is published", async || {
        platform.redis.clone().xlen::<_, usize>(&stream).await.expect("a length") == 1
    })
    .await;
    let () = platform.redis.xgroup_create(&stream, "workers", "0").await.expect("a group");
    until("one entry waits", async || all_report(&platform, BACKLOG, "1").await).await;
    assert!(all_report(&platform, UNKNOWN, "0").await);
    let sagas = "atrium_sagas{saga=\"organization.create\",status=\"PENDING\"}";
    until("a saga runs", async || all_report(&platform, sagas, "1").await).await;

    platform.atrium.add_worker(Some("saga")).await;
    until("COMMITTED", async || platform.saga_status(saga).await == "COMMITTED").await;
    until("no entry waits", async || {
        all_report(&platform, BACKLOG, "0").await && all_report(&platform, sagas, "0").await
    })
    .await;
    platform.atrium.worker(2).sigkill().await;
    platform.atrium.redis().flush_all().await.expect("a flush");
    until("unknown again", async || {
        all_report(&platform, UNKNOWN, "1").await && all_report(&platform, BACKLOG, "NaN").await
    })
    .await;
}

/// An alert on an increase misses the first occurrence if its series begins with that increase.
#[tokio::test]
async fn counters_of_alerts_exist_before_their_first_increase() {
    let alerts = include_str!("../../../docs/alerts.yaml").lines().filter(|line| line.contains("increase("));
    let counted: Vec<&str> = alerts
        .flat_map(|line| line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_'))
        .filter(|word| word.starts_with("atrium_"))
        .collect();
    assert!(!counted.is_empty(), "no alert uses a counter");
    let platform = TestPlatform::start(Atrium::builder()).await;
    for name in counted {
        let exists = async || {
            let metrics = metrics(&platform, 0).await;
            metrics.iter().any(|(series, value)| series.split('{').next() == Some(name) && value == "0")
        };
        until(name, exists).await;
    }
}

#[tokio::test]
async fn a_pause_of_redis_and_a_restart_of_postgresql_leave_every_process_ready() {
    let platform =
        TestPlatform::start(Atrium::builder().private_redis().private_postgres(Durability::Durable)).await;
    let ready_for = async |time: Duration| {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < end {
            assert_eq!(admin(&platform, 0, "/readyz").await, (200, "ready\n".to_owned()));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    platform.atrium.redis().suspend();
    ready_for(Duration::from_secs(5)).await;
    platform.atrium.redis().resume();
    platform.atrium.postgres().sigkill().await;
    ready_for(Duration::from_secs(1)).await;
    platform.atrium.postgres().respawn().await.expect("PostgreSQL starts again");
    ready_for(Duration::from_secs(2)).await;
    assert!(platform.atrium.worker(0).status().is_none(), "the process still runs");
}
