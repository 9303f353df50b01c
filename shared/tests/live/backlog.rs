//! The backlog is the exact number of undelivered entries in every case in which Redis' own number is wrong, or it is
//! reported as unknown.

use std::time::Duration;

use atrium_harness::TestRedis;
use atrium_shared::{
    settings::Secret,
    streams::{Backlog, ConsumerGroup, GROUP, Inbound, Redis, StreamSignals},
};
use redis::{
    AsyncCommands as _,
    aio::MultiplexedConnection,
    streams::{StreamInfoGroupsReply, StreamMaxlen},
};

const STREAM: Inbound = Inbound::Chat(3);

struct Stage {
    redis: Redis,
    connection: MultiplexedConnection,
}

impl Stage {
    async fn set() -> Self {
        let database = TestRedis::database().await;
        let redis = Redis::new(&Secret::from(database.url().to_owned())).expect("an address");
        Self { redis, connection: database.connection().await }
    }

    async fn add(&mut self, count: usize) -> Vec<String> {
        let mut pipe = redis::pipe();
        for n in 0..count {
            pipe.xadd(STREAM.to_string(), "*", &[("n", n)]);
        }
        pipe.query_async(&mut self.connection).await.expect("entries")
    }

    async fn make_group(&mut self, at: &str) {
        let () =
            self.connection.xgroup_create_mkstream(STREAM.to_string(), GROUP, at).await.expect("a group");
    }

    async fn read(&mut self, count: usize) {
        let read = ConsumerGroup::new(self.redis.clone(), STREAM, "one").read(count).await.expect("entries");
        assert_eq!(read.len(), count);
    }

    async fn signals(&self) -> StreamSignals {
        StreamSignals::read(&self.redis, STREAM).await.expect("Redis answers")
    }

    /// Redis' own number.
    async fn lag(&mut self) -> Option<usize> {
        let groups: StreamInfoGroupsReply =
            self.connection.xinfo_groups(STREAM.to_string()).await.expect("a group");
        groups.groups[0].lag
    }

    /// What is right: everything that the group is still given, until there is no more.
    async fn deliver_all(&mut self) -> u64 {
        let mut group = ConsumerGroup::new(self.redis.clone(), STREAM, "counting");
        let mut delivered = 0;
        loop {
            match group.read(1_000).await.expect("entries").len() {
                0 => return delivered,
                some => delivered += some as u64,
            }
        }
    }

    async fn assert_exact(&mut self) {
        let said = self.signals().await.backlog;
        assert_eq!(said, Backlog::Exactly(self.deliver_all().await));
    }
}

#[tokio::test]
async fn the_backlog_of_a_plain_stream_is_counted() {
    let mut stage = Stage::set().await;
    stage.add(7).await;
    stage.make_group("0").await;
    stage.read(3).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let signals = stage.signals().await;
    assert_eq!((signals.backlog, signals.pending), (Backlog::Exactly(4), Some(3)));
    assert!(signals.oldest_ms >= Some(20), "{signals:?}");
    stage.assert_exact().await;
    assert_eq!(stage.signals().await.backlog, Backlog::Exactly(0));
}

#[tokio::test]
async fn a_deleted_entry_is_not_counted() {
    let mut stage = Stage::set().await;
    let ids = stage.add(10).await;
    stage.make_group("0").await;
    stage.read(2).await;
    let _: usize = stage.connection.xdel(STREAM.to_string(), &ids[4..7]).await.expect("they go");
    assert_eq!(stage.lag().await, None, "Redis does not know");
    assert_eq!(stage.signals().await.backlog, Backlog::Exactly(5));
    stage.assert_exact().await;
}

#[tokio::test]
async fn a_group_created_at_an_id_or_at_the_end_is_counted_from_there() {
    for at_end in [false, true] {
        let mut stage = Stage::set().await;
        let ids = stage.add(10).await;
        // Redis does not know it even for a group at the last id that is given as an id and not as `$`.
        stage.make_group(if at_end { &ids[9] } else { &ids[3] }).await;
        stage.add(2).await;
        let right = if at_end { 2 } else { 8 };
        assert_ne!(stage.lag().await, Some(right));
        assert_eq!(stage.signals().await.backlog, Backlog::Exactly(right as u64));
        stage.assert_exact().await;
    }
    let mut stage = Stage::set().await;
    stage.add(10).await;
    stage.make_group("$").await;
    assert_eq!(
        stage.signals().await,
        StreamSignals { backlog: Backlog::Exactly(0), pending: Some(0), oldest_ms: Some(0), dead_letters: 0 }
    );
    stage.add(2).await;
    stage.assert_exact().await;
}

#[tokio::test]
async fn a_stream_trimmed_past_its_group_is_counted() {
    let mut stage = Stage::set().await;
    stage.add(100).await;
    stage.make_group("0").await;
    stage.read(5).await;
    let _: usize =
        stage.connection.xtrim(STREAM.to_string(), StreamMaxlen::Equals(20)).await.expect("a trim");
    assert_ne!(stage.lag().await, Some(20), "Redis counts what is gone");
    let signals = stage.signals().await;
    assert_eq!((signals.backlog, signals.pending), (Backlog::Exactly(20), Some(5)));
    stage.assert_exact().await;
}

#[tokio::test]
async fn the_backlog_is_unknown_without_group_or_stream_and_after_a_flush() {
    let mut stage = Stage::set().await;
    let unknown =
        StreamSignals { backlog: Backlog::Unknown, pending: None, oldest_ms: None, dead_letters: 0 };
    assert_eq!(stage.signals().await, unknown, "no stream");
    stage.add(3).await;
    assert_eq!(stage.signals().await, unknown, "no group");
    let () = stage.connection.xgroup_create(STREAM.to_string(), "others", "0").await.expect("a group");
    assert_eq!(stage.signals().await, unknown, "another group");
    stage.make_group("0").await;
    stage.assert_exact().await;
    let _: String = stage.connection.xadd(STREAM.dead_letters(), "*", &[("n", 1)]).await.expect("an entry");
    assert_eq!(stage.signals().await.dead_letters, 1);
    let () = redis::cmd("FLUSHDB").query_async(&mut stage.connection).await.expect("a flush");
    assert_eq!(stage.signals().await, unknown, "a flush");
}

#[tokio::test]
async fn a_long_backlog_is_counted_from_its_shorter_end_or_bounded() {
    let mut stage = Stage::set().await;
    stage.make_group("0").await;
    stage.add(9_000).await;
    stage.read(40).await;
    assert_eq!(stage.signals().await.backlog, Backlog::Exactly(8_960), "few are in hand");
    stage.read(4_000).await;
    let Backlog::AtLeast(counted) = stage.signals().await.backlog else { panic!("too many at both ends") };
    assert!((2_000..=4_960).contains(&counted), "{counted}");
    stage.read(4_000).await;
    assert_eq!(stage.signals().await.backlog, Backlog::Exactly(960), "few are waiting");
    stage.assert_exact().await;
}
