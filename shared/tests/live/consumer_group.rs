//! A consumer of a group sees every entry that it can take, and does nothing to what went to another.

use std::time::{Duration, Instant};

use atrium_harness::TestRedis;
use atrium_shared::{
    settings::Secret,
    streams::{ConsumerGroup, GROUP, Inbound, Redis, StreamId},
};
use redis::{
    AsyncCommands as _,
    aio::MultiplexedConnection,
    streams::{StreamInfoConsumersReply, StreamPendingCountReply, StreamRangeReply},
};

const STREAM: Inbound = Inbound::Saga;

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

    fn consumer(&self, name: &str) -> ConsumerGroup {
        ConsumerGroup::new(self.redis.clone(), STREAM, name)
    }

    async fn add(&mut self, count: usize) {
        let mut pipe = redis::pipe();
        for n in 0..count {
            pipe.xadd(STREAM.to_string(), "*", &[("n", n)]).ignore();
        }
        let () = pipe.query_async(&mut self.connection).await.expect("entries");
    }

    /// Whose an entry is, and how often it was delivered.
    async fn pending(&mut self, id: StreamId) -> Option<(String, usize, usize)> {
        let id = id.to_string();
        let reply: StreamPendingCountReply =
            self.connection.xpending_count(STREAM.to_string(), GROUP, &id, &id, 1).await.expect("a group");
        reply
            .ids
            .into_iter()
            .next()
            .map(|entry| (entry.consumer, entry.times_delivered, entry.last_delivered_ms))
    }

    async fn consumers(&mut self) -> Vec<String> {
        let reply: StreamInfoConsumersReply =
            self.connection.xinfo_consumers(STREAM.to_string(), GROUP).await.expect("a group");
        reply.consumers.into_iter().map(|consumer| consumer.name).collect()
    }
}

#[tokio::test]
async fn an_old_entry_behind_many_new_ones_is_claimed() {
    let mut stage = Stage::set().await;
    stage.add(2_501).await;
    let entries = stage.consumer("busy").read(3_000).await.expect("entries");
    let old = entries.last().expect("2501 of them").id;
    let () = redis::cmd("XCLAIM")
        .arg(STREAM.to_string())
        .arg(&[GROUP, "busy", "0", &old.to_string(), "IDLE", "60000", "JUSTID"])
        .query_async(&mut stage.connection)
        .await
        .expect("it has been idle for a minute");
    let mut other = stage.consumer("other");
    let mut claimed = Vec::new();
    // With one permit, XAUTOCLAIM looks at ten entries at a time.
    for _ in 0..3 {
        claimed.extend(other.claim(Duration::from_secs(30), 1).await.expect("a group"));
    }
    assert_eq!(claimed.iter().map(|entry| entry.id).collect::<Vec<_>>(), [old]);
}

#[tokio::test]
async fn a_binary_entry_does_not_hide_its_neighbors() {
    let mut stage = Stage::set().await;
    stage.add(1).await;
    for (name, value) in [(&b"\xff"[..], &b"1"[..]), (b"n", b"\xff")] {
        let fields = [(name, value), (b"m", b"2")];
        let _: String = stage.connection.xadd(STREAM.to_string(), "*", &fields).await.expect("an entry");
    }
    stage.add(1).await;
    let read = stage.consumer("one").read(10).await.expect("entries");
    let claimed = stage.consumer("two").claim(Duration::ZERO, 10).await.expect("entries");
    for entries in [read, claimed] {
        let fields: Vec<Vec<String>> =
            entries.iter().map(|entry| entry.fields.keys().cloned().collect()).collect();
        assert_eq!(fields, [["n"], ["m"], ["m"], ["n"]]);
    }
}

#[tokio::test]
async fn a_consumer_that_lost_an_entry_cannot_keep_or_hand_over_it() {
    let mut stage = Stage::set().await;
    let fields = [(&b"n"[..], &b"\xff"[..])];
    let _: String = stage.connection.xadd(STREAM.to_string(), "*", &fields).await.expect("an entry");
    let (mut late, mut owner) = (stage.consumer("late"), stage.consumer("owner"));
    let id = late.read(1).await.expect("an entry")[0].id;
    assert_eq!(late.acknowledger().deliveries(id).await.expect("an answer"), Some(1));
    owner.claim(Duration::ZERO, 1).await.expect("an entry");

    let late = late.acknowledger();
    assert_eq!(late.deliveries(id).await.expect("an answer"), None);
    assert_eq!(late.keep(&[id]).await.expect("an answer"), 0);
    late.hand_over(id, Duration::from_secs(60)).await.expect("an answer");
    assert!(!late.dead_letter(id, "it took too long").await.expect("an answer"));
    let (consumer, deliveries, idle) = stage.pending(id).await.expect("it is pending");
    assert_eq!((consumer.as_str(), deliveries), ("owner", 2));
    assert!(idle < 60_000);

    assert!(owner.acknowledger().dead_letter(id, "it cannot be done").await.expect("an answer"));
    assert_eq!(stage.pending(id).await, None);
    let left: usize = stage.connection.xlen(STREAM.to_string()).await.expect("a stream");
    assert_eq!(left, 0);
    let dead: StreamRangeReply = stage.connection.xrange_all(STREAM.dead_letters()).await.expect("a stream");
    assert_eq!(dead.ids[0].get::<String>("dead_reason").as_deref(), Some("it cannot be done"));
    assert_eq!(dead.ids[0].get::<String>("dead_entry"), Some(id.to_string()));
    assert_eq!(dead.ids[0].get::<Vec<u8>>("n").as_deref(), Some(&b"\xff"[..]), "byte for byte");
}

#[tokio::test]
async fn heartbeats_and_handovers_do_not_count_as_deliveries() {
    let mut stage = Stage::set().await;
    stage.add(1).await;
    let mut owner = stage.consumer("owner");
    let id = owner.read(1).await.expect("an entry")[0].id;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let kept = Instant::now();
    assert_eq!(owner.acknowledger().keep(&[id]).await.expect("an answer"), 1);
    let (_, deliveries, idle) = stage.pending(id).await.expect("it is pending");
    let since = kept.elapsed();
    assert!(
        deliveries == 1 && idle as u128 <= since.as_millis(),
        "{deliveries} deliveries, {idle} ms in {since:?}"
    );

    owner.acknowledger().hand_over(id, Duration::from_secs(60)).await.expect("an answer");
    let claimed = stage.consumer("other").claim(Duration::from_secs(60), 1).await.expect("an answer");
    assert_eq!(claimed[0].id, id);
    assert_eq!(
        stage.pending(id).await.map(|(consumer, deliveries, _)| (consumer, deliveries)),
        Some(("other".to_owned(), 1))
    );
}

#[tokio::test]
async fn the_number_of_dead_letters_is_bounded() {
    let mut stage = Stage::set().await;
    let () = redis::cmd("EVAL")
        .arg("for i = 1, 11000 do redis.call('XADD', KEYS[1], '*', 'n', i) end")
        .arg(1)
        .arg(STREAM.dead_letters())
        .query_async(&mut stage.connection)
        .await
        .expect("many dead letters");
    stage.add(1).await;
    let mut owner = stage.consumer("owner");
    let id = owner.read(1).await.expect("an entry")[0].id;
    assert!(owner.acknowledger().dead_letter(id, "one more").await.expect("an answer"));
    let kept: usize = stage.connection.xlen(STREAM.dead_letters()).await.expect("a stream");
    assert!((10_000..10_200).contains(&kept), "{kept}");
    let last: StreamRangeReply =
        stage.connection.xrevrange_count(STREAM.dead_letters(), "+", "-", 1).await.expect("a stream");
    assert_eq!(last.ids[0].get::<String>("dead_reason").as_deref(), Some("one more"), "the oldest go");
}

#[tokio::test]
async fn a_consumer_with_pending_entries_is_not_removed() {
    let mut stage = Stage::set().await;
    stage.add(2).await;
    let (mut idle, mut busy) = (stage.consumer("idle"), stage.consumer("busy"));
    let first = idle.read(1).await.expect("an entry")[0].id;
    idle.acknowledger().acknowledge(first).await.expect("an answer");
    let second = busy.read(1).await.expect("an entry")[0].id;
    for consumer in [&mut idle, &mut busy] {
        consumer.leave().await.expect("an answer");
    }
    assert_eq!(stage.consumers().await, ["busy"]);
    assert_eq!(busy.remove_silent_consumers(Duration::ZERO).await.expect("an answer"), 0);
    busy.acknowledger().acknowledge(second).await.expect("an answer");
    busy.leave().await.expect("an answer");
    assert_eq!(stage.consumers().await, [""; 0]);
}
