//! PostgreSQL and Rust cut the outbox into the same shards, and the relay's queries find theirs by an index.

use atrium_harness::TestDatabase;
use atrium_shared::{
    ids::ProjectId,
    streams::{CHAT_SHARDS, RELAY_SHARDS, chat_shard},
};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

#[tokio::test]
async fn sql_and_rust_compute_the_same_shard() {
    let database = TestDatabase::create().await;
    let mut connection = database.superuser().await;
    let aggregates: Vec<Uuid> =
        (0..1_000).map(|_| Uuid::now_v7()).chain([Uuid::nil(), Uuid::max()]).collect();
    let formula: String = sqlx::query_scalar(
        "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
          WHERE adrelid = 'outbox'::regclass AND attname = 'shard' AND attgenerated = 's'",
    )
    .fetch_one(&mut connection)
    .await
    .expect("a generated column");
    let query = format!(
        "SELECT {formula} FROM unnest($1::uuid[]) WITH ORDINALITY AS outbox (aggregate_id, nth) ORDER BY nth"
    );
    let shards: Vec<i32> = sqlx::query_scalar(AssertSqlSafe(query))
        .bind(&aggregates)
        .fetch_all(&mut connection)
        .await
        .expect("the formula");
    let expected: Vec<i32> =
        aggregates.iter().map(|aggregate| chat_shard(ProjectId::from(*aggregate)).into()).collect();
    assert_eq!(shards, expected);
    assert_eq!(RELAY_SHARDS, CHAT_SHARDS);
}

#[tokio::test]
async fn a_shard_is_found_by_an_index() {
    let database = TestDatabase::create().await;
    let mut connection = database.superuser().await;
    // The table is empty, and would rather be read whole.
    sqlx::query("SET enable_seqscan = off").execute(&mut connection).await.expect("a setting");
    for (index, condition) in [
        (
            "outbox_due",
            "topic = 'chat' AND published_at IS NULL AND available_at IS NULL ORDER BY id LIMIT 1",
        ),
        (
            "outbox_delayed",
            "topic = 'chat' AND published_at IS NULL AND available_at <= now() ORDER BY available_at LIMIT 1",
        ),
        ("outbox_unconsumed", "published_at IS NOT NULL ORDER BY published_at, id LIMIT 1"),
    ] {
        let query = format!(
            "EXPLAIN SELECT id FROM outbox
              WHERE shard = 3 AND consumed_at IS NULL AND dead_at IS NULL AND {condition}"
        );
        let plan: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut connection).await.expect("a plan");
        let plan = plan.join("\n");
        assert!(plan.contains(index) && plan.contains("(shard = 3)"), "{plan}");
        assert!(!plan.contains("Sort"), "{plan}");
    }
}
