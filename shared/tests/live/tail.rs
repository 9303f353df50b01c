//! A tail never passes over what it may have missed.

use std::time::Duration;

use atrium_servers::redis::PrivateRedis;
use atrium_shared::{
    settings::Secret,
    streams::{Live, Redis, Tail, TailEvent},
};
use redis::{AsyncCommands as _, aio::MultiplexedConnection};

const STREAM: Live = Live::Config;

struct Stage {
    server: PrivateRedis,
    tail: Tail,
}

impl Stage {
    /// A tail that has read one entry, and is positioned after it.
    async fn set() -> Self {
        let server = PrivateRedis::start().await.expect("Redis starts");
        let redis = Redis::new(&Secret::from(server.url(0))).expect("an address");
        let mut stage = Self { server, tail: Tail::new(redis, [STREAM]) };
        // The first read finds the end of the stream.
        assert_eq!(stage.tail.next().await, []);
        stage.add("1").await;
        assert_eq!(stage.until_something().await, ["1"]);
        stage
    }

    async fn connection(&self) -> MultiplexedConnection {
        self.server.connection(0).await.expect("Redis answers")
    }

    async fn add(&self, revision: &str) {
        let fields = [("org", "o"), ("revision", revision)];
        let _: String =
            self.connection().await.xadd(STREAM.to_string(), "*", &fields).await.expect("an entry");
    }

    async fn restart(&self) {
        self.server.restart().await.expect("Redis starts again");
    }

    /// The next events: revisions, and `gap`.
    async fn until_something(&mut self) -> Vec<String> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let events = self.tail.next().await;
            if !events.is_empty() {
                return events.iter().map(name).collect();
            }
            assert!(tokio::time::Instant::now() < deadline, "nothing came");
        }
    }
}

fn name(event: &TailEvent) -> String {
    match event {
        TailEvent::Entry { fields, .. } => fields["revision"].clone(),
        TailEvent::Gap { .. } => "gap".to_owned(),
    }
}

#[tokio::test]
async fn a_restart_without_loss_causes_no_gap() {
    let mut stage = Stage::set().await;
    stage.restart().await;
    stage.add("2").await;
    assert_eq!(stage.until_something().await, ["2"]);
}

#[tokio::test]
async fn trimming_unread_entries_causes_a_gap() {
    let mut stage = Stage::set().await;
    stage.restart().await;
    stage.add("2").await;
    stage.add("3").await;
    let trim = redis::streams::StreamMaxlen::Equals(1);
    let _: usize = stage.connection().await.xtrim(STREAM.to_string(), trim).await.expect("a trim");
    assert_eq!(stage.until_something().await, ["gap"]);
    assert_eq!(stage.until_something().await, ["3"]);
}

#[tokio::test]
async fn a_replaced_stream_causes_a_gap_with_lower_and_higher_ids() {
    for id in ["5-0", "99999999999999-0"] {
        let mut stage = Stage::set().await;
        stage.restart().await;
        let mut connection = stage.connection().await;
        let _: () = connection.del(STREAM.to_string()).await.expect("the history is lost");
        let _: String =
            connection.xadd(STREAM.to_string(), id, &[("revision", "other")]).await.expect("an entry");
        assert_eq!(stage.until_something().await, ["gap"], "{id}");
    }
}

#[tokio::test]
async fn entries_arrive_in_order() {
    let mut stage = Stage::set().await;
    for revision in 2..1200 {
        stage.add(&revision.to_string()).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 1198 {
        seen.extend(stage.until_something().await);
    }
    let expected: Vec<String> = (2..1200).map(|revision| revision.to_string()).collect();
    assert_eq!(seen, expected);
}
