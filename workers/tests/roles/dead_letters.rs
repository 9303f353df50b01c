//! An operator can list every dead letter, even if Redis lost its copy, and replays or drops it once.

use atrium_harness::{Atrium, operator};
use atrium_shared::{
    ids::{MessageId, OrgId},
    messages::{OutboxMessage, Topic},
    streams::Inbound,
};
use redis::{AsyncCommands as _, from_redis_value, streams::StreamRangeReply};
use serde::{Deserialize, Serialize};

use crate::platform::{SYSTEM, TestPlatform, until};

async fn ctl(platform: &TestPlatform, arguments: &[&str]) -> anyhow::Result<String> {
    operator::run(platform.atrium.wiring(), &[&["dead-letters"], arguments].concat()).await
}

async fn run_ctl(platform: &TestPlatform, arguments: &[&str]) -> String {
    ctl(platform, arguments).await.unwrap_or_else(|error| panic!("{error:#}"))
}

/// A message that no release can decode.
#[derive(Serialize, Deserialize)]
struct Poison {
    revision: String,
}

impl OutboxMessage for Poison {
    const TOPIC: Topic = Topic::Config;
    type Aggregate = OrgId;
}

async fn send_poison(platform: &TestPlatform, org: OrgId) -> MessageId {
    let mut tx = platform.db.org_tx(&SYSTEM, org).await.expect("a transaction");
    let poison = Poison { revision: "many".to_owned() };
    let message = tx.enqueue(org, &poison).await.expect("poison");
    tx.commit().await.expect("a commit");
    until("the message is a dead letter", async || {
        let dead =
            format!("SELECT count(*) FROM outbox WHERE message_id = '{message}' AND dead_at IS NOT NULL");
        platform.query_i64(&dead).await == 1
    })
    .await;
    message
}

async fn count_audited(platform: &TestPlatform, org: OrgId, action: &str) -> i64 {
    let query = format!("SELECT count(*) FROM audit_log WHERE org_id = '{org}' AND action = '{action}'");
    platform.query_i64(&query).await
}

#[tokio::test]
async fn a_dead_letter_is_replayed_once_after_its_cause_is_fixed_even_after_a_flush() {
    let mut platform = TestPlatform::start(Atrium::builder().private_redis()).await;
    let tenant = platform.tenant().await;
    let message = send_poison(&platform, tenant.org).await;
    let id = message.to_string();
    platform.atrium.redis().flush_all().await.expect("a flush");
    let listed = run_ctl(&platform, &["list", "--topic", "config"]).await;
    assert!(listed.starts_with(&id) && listed.contains("cannot be understood"), "{listed}");
    assert_eq!(run_ctl(&platform, &["list", "--topic", "saga"]).await, "");
    assert!(run_ctl(&platform, &["show", &id]).await.contains("\"many\""));

    let fix = "UPDATE outbox SET payload = '{\"revision\": 1}' WHERE message_id = $1";
    sqlx::query(fix).bind(message).execute(&mut platform.superuser).await.expect("fixed");
    let replay = ["replay", id.as_str()];
    let (first, second) = tokio::join!(ctl(&platform, &replay), ctl(&platform, &replay));
    let mut outputs = [first.expect("an answer"), second.expect("an answer")];
    outputs.sort();
    assert_eq!(outputs, ["not a dead letter; nothing changed\n", "replayed\n"]);
    let consumed = format!(
        "SELECT count(*) FROM outbox WHERE message_id = '{id}' AND consumed_at IS NOT NULL AND dead_at IS NULL"
    );
    until("the message is handled", async || platform.query_i64(&consumed).await == 1).await;
    assert_eq!(run_ctl(&platform, &["list"]).await, "");
    assert_eq!(run_ctl(&platform, &["drop", &id]).await, "not a dead letter; nothing changed\n");
    assert_eq!(count_audited(&platform, tenant.org, "dead_letter.replayed").await, 1);
    assert_eq!(count_audited(&platform, tenant.org, "dead_letter.dropped").await, 0);
}

#[tokio::test]
async fn a_replayed_message_that_fails_again_is_a_dead_letter_again_and_a_dropped_one_is_not() {
    let mut platform = TestPlatform::start(Atrium::builder()).await;
    let tenant = platform.tenant().await;
    let message = send_poison(&platform, tenant.org).await;
    let id = message.to_string();
    let copies = async || -> usize {
        platform.redis.clone().xlen(Inbound::Config.dead_letters()).await.expect("a stream")
    };
    until("a copy is in the stream", async || copies().await == 1).await;
    assert_eq!(run_ctl(&platform, &["replay", &id]).await, "replayed\n");
    until("the message is a dead letter again", async || {
        run_ctl(&platform, &["list"]).await.starts_with(&id)
    })
    .await;
    until("a copy is in the stream again", async || copies().await == 1).await;
    assert_eq!(run_ctl(&platform, &["drop", &id]).await, "dropped\n");
    assert_eq!(run_ctl(&platform, &["drop", &id]).await, "not a dead letter; nothing changed\n");
    assert_eq!(run_ctl(&platform, &["replay", &id]).await, "not a dead letter; nothing changed\n");
    assert_eq!(run_ctl(&platform, &["list"]).await, "");
    assert_eq!(copies().await, 0, "its copy is removed as well");
    assert_eq!(count_audited(&platform, tenant.org, "dead_letter.dropped").await, 1);
}

/// The late copy simulates a worker that stops after it has marked the message and before it has moved the entry.
#[tokio::test]
async fn only_a_copy_that_arrives_after_its_replay_is_removed() {
    let mut platform = TestPlatform::start(Atrium::builder().workers(["relay", "saga", "config"])).await;
    let tenant = platform.tenant().await;
    send_poison(&platform, tenant.org).await;
    let fixed = send_poison(&platform, tenant.org).await;
    let stream = Inbound::Config.dead_letters();
    let copies = async || -> Vec<redis::streams::StreamId> {
        let entries: StreamRangeReply = platform.redis.clone().xrange_all(&stream).await.expect("a stream");
        entries.ids
    };
    until("both messages have copies", async || copies().await.len() == 2).await;
    let is_fixed = |copy: &redis::streams::StreamId| copy.get("message") == Some(fixed.to_string());
    let late = copies().await.into_iter().find(is_fixed).expect("the copy of the second");
    sqlx::query("UPDATE outbox SET payload = '{\"revision\": 1}' WHERE message_id = $1")
        .bind(fixed)
        .execute(&mut platform.superuser)
        .await
        .expect("fixed");
    assert_eq!(run_ctl(&platform, &["replay", &fixed.to_string()]).await, "replayed\n");

    let late: Vec<(&String, Vec<u8>)> = late
        .map
        .iter()
        .map(|(name, value)| (name, from_redis_value(value.clone()).expect("bytes")))
        .collect();
    let _: String = platform.redis.clone().xadd(&stream, "*", &late).await.expect("the late copy");
    let _: String =
        platform.redis.clone().xadd(&stream, "*", &[("kind", "nonsense")]).await.expect("no message");
    let ids = async || copies().await.into_iter().map(|copy| copy.id).collect::<Vec<_>>();
    let [dead, late, nonsense] = <[String; 3]>::try_from(ids().await).expect("three");
    platform.atrium.add_worker(Some("janitor")).await;
    until("the late copy is removed", async || !ids().await.contains(&late)).await;
    assert_eq!(ids().await, [dead, nonsense]);
}

#[tokio::test]
async fn an_entry_without_an_outbox_message_is_listed_replayed_and_dropped() {
    let mut platform = TestPlatform::start(Atrium::builder()).await;
    let stream = Inbound::Chat(2);
    let _: String =
        platform.redis.xadd(stream.to_string(), "*", &[("kind", "nonsense")]).await.expect("an entry");
    until("the entry is listed", async || run_ctl(&platform, &["list"]).await.contains("chat.2/")).await;
    let id = |listed: &str| listed.split_whitespace().next().unwrap_or_default().to_owned();
    let first = id(&run_ctl(&platform, &["list"]).await);
    assert!(run_ctl(&platform, &["show", &first]).await.contains("nonsense"));
    assert_eq!(run_ctl(&platform, &["replay", &first]).await, "replayed\n");
    until("the entry is a dead letter again, under another id", async || {
        let listed = run_ctl(&platform, &["list"]).await;
        listed.lines().count() == 1 && id(&listed) != first
    })
    .await;
    let second = id(&run_ctl(&platform, &["list"]).await);
    assert_eq!(run_ctl(&platform, &["drop", &second]).await, "dropped\n");
    assert_eq!(run_ctl(&platform, &["list"]).await, "");

    let absent = format!("dead letter {second} does not exist");
    for (id, expected) in [
        (second.as_str(), absent.as_str()),
        (&MessageId::new().to_string(), "does not exist; `atrium-ctl dead-letters list`"),
        ("chat.99/1-0", "expected a message id, or a stream entry"),
        ("7", "expected a message id, or a stream entry"),
    ] {
        for command in ["show", "replay", "drop"] {
            let error = ctl(&platform, &[command, id]).await.expect_err("it is refused").to_string();
            assert!(error.contains(expected), "{command} {id}: {error}");
        }
    }
}

#[tokio::test]
async fn a_saga_whose_message_keeps_failing_is_compensated_while_others_continue() {
    let mut platform = TestPlatform::start(Atrium::builder().workers(["saga,config,chat"])).await;
    let (tenant, saga) = platform.request_organization().await;
    // This error is permanent, and affects one organization only.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "CREATE FUNCTION defect() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a defect'; END $$;
         CREATE TRIGGER defect BEFORE INSERT ON inbox FOR EACH ROW WHEN (NEW.org_id = '{}') EXECUTE FUNCTION defect()",
        tenant.org
    )))
    .execute(&mut platform.superuser)
    .await
    .expect("a defect");
    platform.atrium.add_worker(Some("relay")).await;
    let (_, other) = platform.request_organization().await;
    until("the other saga ends", async || platform.saga_status(other).await == "COMMITTED").await;
    until("the message is a dead letter", async || platform.saga_status(saga).await == "COMPENSATING").await;
    let listed = run_ctl(&platform, &["list", "--topic", "saga"]).await;
    let id = listed.split_whitespace().next().unwrap_or_default().to_owned();
    assert!(!id.is_empty(), "{listed}");

    sqlx::raw_sql("DROP TRIGGER defect ON inbox").execute(&mut platform.superuser).await.expect("fixed");
    until("FAILED", async || platform.saga_status(saga).await == "FAILED").await;
    let remaining = format!("SELECT count(*) FROM members WHERE org_id = '{}'", tenant.org);
    assert_eq!(platform.query_i64(&remaining).await, 0);
    // The saga has ended, so the replayed message changes nothing.
    assert_eq!(run_ctl(&platform, &["replay", &id]).await, "replayed\n");
    let consumed =
        format!("SELECT count(*) FROM outbox WHERE message_id = '{id}' AND consumed_at IS NOT NULL");
    until("the message is handled", async || platform.query_i64(&consumed).await == 1).await;
    assert_eq!(platform.saga_status(saga).await, "FAILED");
}
