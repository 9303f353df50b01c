//! Each Lua script does in a real Redis what its header says. The use of the results by consumers, relays and limits is
//! tested there.

use atrium_harness::TestRedis;
use atrium_shared::streams::lua;
use redis::{AsyncCommands as _, FromRedisValue, Script, ToRedisArgs, aio::MultiplexedConnection};

const STREAM: &str = "{s}:in";
const DEAD: &str = "{s}:dead";
const GROUP: &str = "workers";

async fn redis() -> MultiplexedConnection {
    TestRedis::database().await.connection().await
}

async fn call<T: FromRedisValue>(
    redis: &mut MultiplexedConnection,
    script: &Script,
    keys: &[&str],
    arguments: &[&str],
) -> T {
    let mut call = script.prepare_invoke();
    for key in keys {
        call.key(*key);
    }
    for argument in arguments {
        call.arg(*argument);
    }
    call.invoke_async(redis).await.expect("the script runs")
}

async fn ask<T: FromRedisValue>(redis: &mut MultiplexedConnection, command: &[impl ToRedisArgs]) -> T {
    let mut call = redis::Cmd::new();
    for part in command {
        call.arg(part);
    }
    call.query_async(redis).await.expect("an answer")
}

/// A stream with these entries and a group; the first `given` of them are in `a`'s hands.
async fn stream(redis: &mut MultiplexedConnection, ids: &[&str], given: usize) {
    let _: () = ask(redis, &["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"]).await;
    for id in ids {
        let _: String = ask(redis, &["XADD", STREAM, id, "message", id]).await;
    }
    if given > 0 {
        let count = given.to_string();
        let _: redis::Value =
            ask(redis, &["XREADGROUP", "GROUP", GROUP, "a", "COUNT", &count, "STREAMS", STREAM, ">"]).await;
    }
}

/// How many entries are pending for a consumer.
async fn pending(redis: &mut MultiplexedConnection, consumer: &str) -> usize {
    let entries: Vec<redis::Value> = ask(redis, &["XPENDING", STREAM, GROUP, "-", "+", "10", consumer]).await;
    entries.len()
}

#[tokio::test]
async fn keep_counts_the_entries_still_owned_by_the_consumer() {
    let redis = &mut redis().await;
    stream(redis, &["1-0", "2-0"], 1).await;
    let kept: usize = call(redis, &lua::KEEP, &[STREAM], &[GROUP, "a", "1-0", "2-0"]).await;
    assert_eq!(kept, 1);
    let kept: usize = call(redis, &lua::KEEP, &[STREAM], &[GROUP, "b", "1-0"]).await;
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn handed_over_entries_can_be_claimed_immediately() {
    let redis = &mut redis().await;
    stream(redis, &["1-0"], 1).await;
    let _: () = call(redis, &lua::HAND_OVER, &[STREAM], &[GROUP, "a", "1-0", "60000"]).await;
    let entry: Vec<(String, String, u64, u64)> =
        ask(redis, &["XPENDING", STREAM, GROUP, "-", "+", "1"]).await;
    assert!(entry[0].2 >= 60_000 && entry[0].3 == 0, "{entry:?}");
}

#[tokio::test]
async fn a_dead_letter_is_moved_by_its_consumer_and_replayed_once() {
    let redis = &mut redis().await;
    stream(redis, &["1-0"], 1).await;
    let give_up = async |redis: &mut _, consumer: &str| -> bool {
        let arguments = [GROUP, consumer, "1-0", "why", "100"];
        call(redis, &lua::DEAD_LETTER, &[STREAM, DEAD], &arguments).await
    };
    assert!(!give_up(redis, "b").await);
    assert!(give_up(redis, "a").await);
    let dead: Vec<(String, Vec<String>)> = redis.xrange_all(DEAD).await.expect("a stream");
    assert_eq!(dead[0].1, ["message", "1-0", "dead_reason", "why", "dead_entry", "1-0"]);
    let length: usize = redis.xlen(STREAM).await.expect("a stream");
    assert_eq!(length, 0);

    let replayed: bool = call(redis, &lua::REPLAY, &[STREAM, DEAD], &[&dead[0].0]).await;
    assert!(replayed);
    let back: Vec<(String, Vec<String>)> = redis.xrange_all(STREAM).await.expect("a stream");
    assert_eq!(back[0].1, ["message", "1-0"]);
    let again: bool = call(redis, &lua::REPLAY, &[STREAM, DEAD], &[&dead[0].0]).await;
    assert!(!again);
}

#[tokio::test]
async fn a_consumer_is_removed_only_without_pending_entries() {
    let redis = &mut redis().await;
    stream(redis, &["1-0"], 1).await;
    for consumer in ["b", "c"] {
        let _: usize = ask(redis, &["XGROUP", "CREATECONSUMER", STREAM, GROUP, consumer]).await;
    }
    for consumer in ["a", "b"] {
        let _: Option<usize> = call(redis, &lua::LEAVE, &[STREAM], &[GROUP, consumer]).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let forgotten: usize = call(redis, &lua::FORGET_SILENT, &[STREAM], &[GROUP, "1"]).await;
    assert_eq!(forgotten, 1, "c; b has left, and a has an entry");
    assert_eq!(pending(redis, "a").await, 1);
}

#[tokio::test]
async fn a_group_is_moved_back_to_skipped_entries() {
    let redis = &mut redis().await;
    stream(redis, &["1-0", "1-1"], 2).await;
    let arguments = [GROUP, "100"];
    let skipped: bool = call(redis, &lua::GO_BACK, &[STREAM], &arguments).await;
    assert!(!skipped, "all are pending");
    let _: usize = ask(redis, &["XGROUP", "DELCONSUMER", STREAM, GROUP, "a"]).await;
    let skipped: bool = call(redis, &lua::GO_BACK, &[STREAM], &arguments).await;
    assert!(skipped);
    let read: redis::streams::StreamReadReply =
        ask(redis, &["XREADGROUP", "GROUP", GROUP, "b", "STREAMS", STREAM, ">"]).await;
    assert_eq!(read.keys[0].ids.len(), 2);
}

#[tokio::test]
async fn signals_report_backlog_and_pending_entries() {
    let redis = &mut redis().await;
    let none: Vec<u64> = call(redis, &lua::SIGNALS, &[STREAM, DEAD], &[GROUP, "10", "2"]).await;
    assert_eq!(none, [0], "there is no group");
    stream(redis, &["1-0", "2-0", "3-0"], 1).await;
    let signals: Vec<u64> = call(redis, &lua::SIGNALS, &[STREAM, DEAD], &[GROUP, "10", "2"]).await;
    assert_eq!(signals[..4], [0, 2, 1, 1]);
}

#[tokio::test]
async fn reads_under_a_lease_need_its_token() {
    let redis = &mut redis().await;
    stream(redis, &["1-0"], 0).await;
    let _: () = redis.set("{s}:lease", "mine").await.expect("a lease");
    for (token, taken) in [("theirs", 0), ("mine", 1)] {
        let _: redis::Value =
            call(redis, &lua::READ_LEASED, &[STREAM, "{s}:lease"], &[token, GROUP, "a", "10"]).await;
        assert_eq!(pending(redis, "a").await, taken, "{token}");
    }
}

#[tokio::test]
async fn a_lower_fencing_token_is_rejected() {
    let redis = &mut redis().await;
    let keys = [STREAM, "{s}:fence"];
    let two = ["7", "2", "a", "1", "4", "a", "2", "b", "3"];
    let (fence, ids): (i64, Option<Vec<String>>) = call(redis, &lua::FENCED_ADD, &keys, &two).await;
    assert_eq!((fence, ids.map(|ids| ids.len())), (0, Some(2)));
    let entries: Vec<(String, Vec<String>)> = redis.xrange_all(STREAM).await.expect("a stream");
    assert_eq!(
        (&*entries[0].1, &*entries[1].1),
        (&["a", "1"].map(String::from)[..], &["a", "2", "b", "3"].map(String::from)[..])
    );
    let late: (i64, Option<Vec<String>>) = call(redis, &lua::FENCED_ADD, &keys, &["6", "2", "a", "1"]).await;
    assert_eq!(late, (7, None));
}

#[tokio::test]
async fn an_entry_before_the_group_and_not_pending_is_not_live() {
    let redis = &mut redis().await;
    stream(redis, &["1-0", "2-0", "3-0"], 2).await;
    let asked = [GROUP, "1-0", "1-0", "2-0", "another", "3-0", "3-0", "9-0", "9-0"];
    let lost: Vec<String> = call(redis, &lua::NOT_LIVE, &[STREAM], &asked).await;
    assert_eq!(lost, ["2-0", "9-0"], "another message, and an entry that is gone");
    let _: usize = ask(redis, &["XGROUP", "DELCONSUMER", STREAM, GROUP, "a"]).await;
    let lost: Vec<String> = call(redis, &lua::NOT_LIVE, &[STREAM], &[GROUP, "1-0", "1-0"]).await;
    assert_eq!(lost, ["1-0"], "delivered, and pending for nobody");
}

#[tokio::test]
async fn a_chat_lease_has_one_owner_and_guards_its_batches() {
    let redis = &mut redis().await;
    let keys = ["{s}:lease", "{s}:epoch", "{s}:run", "{s}:live"];
    let take = async |redis: &mut _, token: &str, run: &str| -> Option<(String, String)> {
        let arguments = [token, "4000", run, "unknown", "aaaaaaaa", run, ""];
        call(redis, &lua::CHAT_ACQUIRE, &keys, &arguments).await
    };
    let first = take(redis, "one", "00000001").await;
    assert_eq!(first, Some(("aaaaaaaa00000001".to_owned(), String::new())));
    assert_eq!(take(redis, "two", "00000001").await, None);
    for (token, held) in [("two", false), ("one", true)] {
        let renewed: bool = call(redis, &lua::CHAT_RENEW, &keys[..1], &[token, "4000"]).await;
        assert_eq!(renewed, held, "{token}");
    }

    stream(redis, &["1-0", "2-0"], 2).await;
    let publish = [STREAM, "{s}:live", "{s}:lease", "{s}:epoch"];
    let batch = |token: &'static str| {
        [token, "aaaaaaaa00000001", GROUP, "100", "1-0", "4", "e", "x", "org", "y", "2-0", "0"]
    };
    let refused: Option<String> = call(redis, &lua::CHAT_PUBLISH, &publish, &batch("two")).await;
    assert_eq!(refused, None);
    for copy in [false, true] {
        let published: Option<String> = call(redis, &lua::CHAT_PUBLISH, &publish, &batch("one")).await;
        assert_eq!(published.is_some_and(|id| id.is_empty()), copy, "a copy publishes nothing");
    }
    let events: Vec<(String, Vec<String>)> = redis.xrange_all("{s}:live").await.expect("a stream");
    assert_eq!(
        events.iter().map(|event| &event.1).collect::<Vec<_>>(),
        [&["e", "x", "org", "y"].map(String::from)]
    );
    assert_eq!(pending(redis, "a").await, 0);

    let _: () = call(redis, &lua::CHAT_RELEASE, &keys[..1], &["two"]).await;
    assert_eq!(take(redis, "two", "00000001").await, None, "it is one's");
    let _: () = call(redis, &lua::CHAT_RELEASE, &keys[..1], &["one"]).await;
    let restarted = take(redis, "two", "00000002").await.expect("it is free");
    assert_eq!(restarted.0, "aaaaaaaa00000002", "the same history, in another run of Redis");
}

#[tokio::test]
async fn a_process_without_heartbeat_is_not_counted() {
    let redis = &mut redis().await;
    let _: usize = redis.zadd("processes", "silent", 1).await.expect("a member");
    let living: Vec<String> = call(redis, &lua::MEMBERS_HEARTBEAT, &["processes"], &["one", "4000"]).await;
    assert_eq!(living, ["one"]);
    let _: usize = redis.zadd("processes", "silent", 1).await.expect("a member");
    let living: usize = call(redis, &lua::LIMITS_BEAT, &["processes"], &["two", "4000"]).await;
    assert_eq!(living, 2);
}

#[tokio::test]
async fn a_bucket_grants_its_cells_and_none_after_a_loss() {
    let redis = &mut redis().await;
    let keys = ["{l}:bucket", "{l}:whole"];
    // A window of a minute, a cell for each second.
    let take = async |redis: &mut _, cells: &str, seen: &str| -> (u32, u64) {
        call(redis, &lua::LIMITS_TAKE, &keys, &["60000000", "1000000", cells, "0", seen, "1000000"]).await
    };
    assert_eq!(take(redis, "50", "0").await.0, 50);
    assert_eq!(take(redis, "50", "0").await.0, 10);
    let _: usize = redis.del(&keys).await.expect("a flush");
    assert_eq!(take(redis, "50", "1").await.0, 1, "its share only, until a window has passed");
}

#[tokio::test]
async fn streams_are_granted_up_to_the_quota() {
    let redis = &mut redis().await;
    let keys = ["{l}:streams", "{l}:whole"];
    let claim = async |redis: &mut _, process: &str, held: &str, wanted: &str| -> u32 {
        call(redis, &lua::LIMITS_CLAIM, &keys, &[process, held, wanted, "3", "0", "10000", "0"]).await
    };
    assert_eq!(claim(redis, "one", "0", "2").await, 2);
    assert_eq!(claim(redis, "two", "0", "2").await, 1, "one has the others");
    assert_eq!(claim(redis, "one", "0", "0").await, 0);
    assert_eq!(claim(redis, "two", "1", "2").await, 2, "they were given back");
}
