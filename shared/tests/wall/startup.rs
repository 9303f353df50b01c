//! A process whose role could bypass the wall does not start, and reports the reason.

use atrium_harness::TestDatabase;
use atrium_shared::db::{Reach, Watcher, check_role, connect_pool};
use sqlx::AssertSqlSafe;

async fn refusal(url: &str, reach: Reach) -> Option<String> {
    let pool = connect_pool(url, 1, "test").await.expect("the role can log in");
    let mut connection = pool.acquire().await.expect("a connection");
    check_role(&mut connection, reach).await.err().map(|error| error.to_string())
}

#[tokio::test]
async fn the_roles_of_the_application_are_accepted() {
    let database = TestDatabase::create().await;
    let urls = database.urls();
    assert_eq!(refusal(&urls.app, Reach::Tenant).await, None);
    assert_eq!(refusal(&urls.relay, Reach::Narrow(&["outbox", "inbox", "relay_leases"])).await, None);
    assert_eq!(refusal(&urls.watcher, Reach::Narrow(Watcher::TABLES)).await, None);
}

#[tokio::test]
async fn a_superuser_is_rejected() {
    let database = TestDatabase::create().await;
    let refusal = refusal(&database.urls().owner, Reach::Tenant).await.unwrap_or_default();
    assert!(refusal.contains("is a superuser") && refusal.contains("atrium_app"), "{refusal}");
}

#[tokio::test]
async fn a_role_that_owns_a_table_is_rejected() {
    let database = TestDatabase::create().await;
    sqlx::raw_sql("ALTER TABLE projects OWNER TO atrium_app")
        .execute(&mut database.superuser().await)
        .await
        .expect("a mistake");
    let refusal = refusal(&database.urls().app, Reach::Tenant).await.unwrap_or_default();
    assert!(refusal.contains("owns projects"), "{refusal}");
}

#[tokio::test]
async fn a_table_without_row_level_security_is_rejected() {
    let database = TestDatabase::create().await;
    sqlx::raw_sql("ALTER TABLE projects NO FORCE ROW LEVEL SECURITY")
        .execute(&mut database.superuser().await)
        .await
        .expect("a mistake");
    let refusal = refusal(&database.urls().app, Reach::Tenant).await.unwrap_or_default();
    assert!(refusal.contains("may touch projects"), "{refusal}");
}

/// The wall's own condition, before the conditions of the table.
#[tokio::test]
async fn views_materialized_views_and_partitions_are_rejected() {
    for mistake in [
        "CREATE VIEW side_door AS SELECT * FROM projects",
        "CREATE MATERIALIZED VIEW side_door AS SELECT * FROM projects",
        "CREATE TABLE whole (org_id uuid) PARTITION BY HASH (org_id);
         ALTER TABLE whole ENABLE ROW LEVEL SECURITY;
         ALTER TABLE whole FORCE ROW LEVEL SECURITY;
         CREATE TABLE side_door PARTITION OF whole FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    ] {
        let database = TestDatabase::create().await;
        let mut superuser = database.superuser().await;
        for statement in [mistake, "GRANT SELECT ON side_door TO atrium_app"] {
            sqlx::raw_sql(statement).execute(&mut superuser).await.expect("a mistake");
        }
        let refusal = refusal(&database.urls().app, Reach::Tenant).await.unwrap_or_default();
        assert!(refusal.contains("may touch side_door"), "{mistake}: {refusal}");
    }
}

#[tokio::test]
async fn a_role_that_can_bypass_the_wall_or_change_role_is_rejected() {
    let database = TestDatabase::create().await;
    let mut superuser = database.superuser().await;
    // Roles belong to the server that other tests use, too: these belong to this test.
    let role = format!("atrium_test_{}", database.name());
    for (mistake, reason) in
        [("BYPASSRLS", "has BYPASSRLS"), ("IN ROLE atrium_owner", "may become atrium_owner")]
    {
        for statement in [
            format!("CREATE ROLE {role} LOGIN PASSWORD 'secret' {mistake}"),
            format!("GRANT CONNECT ON DATABASE {} TO {role}", database.name()),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut superuser).await.expect("a mistake");
        }
        let (_, place) = database.urls().app.split_once('@').expect("an address");
        let refusal = refusal(&format!("postgres://{role}:secret@{place}"), Reach::Tenant).await;
        let refusal = refusal.unwrap_or_default();
        assert!(refusal.contains(reason), "{refusal}");
        let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut superuser).await.expect("a role nobody needs");
    }
}

#[tokio::test]
async fn a_narrow_role_with_additional_rights_is_rejected() {
    let database = TestDatabase::create().await;
    sqlx::raw_sql("GRANT SELECT (name) ON orgs TO atrium_relay")
        .execute(&mut database.superuser().await)
        .await
        .expect("a mistake");
    let refusal = refusal(&database.urls().relay, Reach::Narrow(&["outbox", "inbox", "relay_leases"]))
        .await
        .unwrap_or_default();
    assert!(refusal.contains("may touch orgs"), "{refusal}");
}

#[tokio::test]
async fn an_unreachable_server_is_reported_as_such() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = nobody.expect("a port that was free a moment ago");
    let error = connect_pool(&format!("postgres://atrium_app:secret@{address}/atrium"), 1, "test").await;
    let error = error.expect_err("nobody listens").to_string();
    assert!(error.contains("refused") && !error.contains("secret"), "{error}");
}
