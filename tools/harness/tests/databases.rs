//! Each test has databases of its own, which are dropped with it.

use atrium_harness::{TestDatabase, TestRedis};

#[tokio::test]
async fn tests_have_databases_of_their_own() {
    let (first, second) = (TestDatabase::create().await, TestDatabase::create().await);
    sqlx::query("CREATE TABLE mine ()").execute(&mut first.superuser().await).await.expect("creates");
    let there = async |database: &TestDatabase| {
        sqlx::query_scalar::<_, bool>("SELECT to_regclass('mine') IS NOT NULL")
            .fetch_one(&mut database.superuser().await)
            .await
            .expect("reads")
    };
    assert!(there(&first).await);
    assert!(!there(&second).await);

    let (first, second) = (TestRedis::database().await, TestRedis::database().await);
    assert_ne!(first.url(), second.url());
}

#[tokio::test]
async fn a_dropped_test_database_is_gone() {
    let database = TestDatabase::create().await;
    let (name, other) = (database.name().to_owned(), TestDatabase::create().await);
    let _still_connected = database.app().await;
    drop(database);
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut other.superuser().await)
        .await
        .expect("reads");
    assert!(!there);
}
