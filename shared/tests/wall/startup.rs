//! A process whose role could pass the wall does not start, and says why.

use atrium_devstack::testing::TestDatabase;
use atrium_shared::db::{Reach, check_role, connect_pool};

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
    assert_eq!(refusal(&urls.relay, Reach::Narrow(&["outbox", "inbox"])).await, None);
    assert_eq!(
        refusal(&urls.watcher, Reach::Narrow(&["config_heads", "revoked_tokens", "revoked_access"])).await,
        None
    );
}

#[tokio::test]
async fn a_superuser_is_refused() {
    let database = TestDatabase::create().await;
    let refusal = refusal(&database.urls().owner, Reach::Tenant).await.unwrap_or_default();
    assert!(refusal.contains("is a superuser") && refusal.contains("atrium_app"), "{refusal}");
}

#[tokio::test]
async fn a_role_that_owns_a_table_is_refused() {
    let database = TestDatabase::create().await;
    sqlx::raw_sql("ALTER TABLE projects OWNER TO atrium_app")
        .execute(&mut database.superuser().await)
        .await
        .expect("a mistake");
    let refusal = refusal(&database.urls().app, Reach::Tenant).await.unwrap_or_default();
    assert!(refusal.contains("owns projects"), "{refusal}");
}

#[tokio::test]
async fn a_table_without_the_wall_is_refused() {
    let database = TestDatabase::create().await;
    sqlx::raw_sql("ALTER TABLE projects NO FORCE ROW LEVEL SECURITY")
        .execute(&mut database.superuser().await)
        .await
        .expect("a mistake");
    let refusal = refusal(&database.urls().app, Reach::Tenant).await.unwrap_or_default();
    assert!(refusal.contains("may touch projects"), "{refusal}");
}

#[tokio::test]
async fn a_narrow_role_with_a_wider_view_is_refused() {
    let database = TestDatabase::create().await;
    sqlx::raw_sql("GRANT SELECT (name) ON orgs TO atrium_relay")
        .execute(&mut database.superuser().await)
        .await
        .expect("a mistake");
    let refusal =
        refusal(&database.urls().relay, Reach::Narrow(&["outbox", "inbox"])).await.unwrap_or_default();
    assert!(refusal.contains("may touch orgs"), "{refusal}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_called_that() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = nobody.expect("a port that was free a moment ago");
    let error = connect_pool(&format!("postgres://atrium_app:secret@{address}/atrium"), 1, "test").await;
    let error = error.expect_err("nobody listens").to_string();
    assert!(error.contains("refused") && !error.contains("secret"), "{error}");
}
