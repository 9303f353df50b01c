//! Private servers: they start, keep their data over kills and restarts, and leave nothing behind.

use atrium_servers::folder::Folder;
use atrium_servers::postgres::{Durability, PrivatePostgres};
use atrium_servers::process::is_alive;
use atrium_servers::redis::PrivateRedis;
use atrium_servers::urls::Passwords;
use sqlx::{Connection as _, PgConnection};

#[tokio::test]
async fn postgres_keeps_committed_data_over_a_kill() {
    let server = PrivatePostgres::start(Durability::Durable).await.expect("starts");
    let urls = server.migrated("atrium", &Passwords::random()).await.expect("migrates");
    let mut connection = PgConnection::connect(&urls.owner).await.expect("connects");
    sqlx::query("CREATE TABLE kept AS SELECT 42 AS answer").execute(&mut connection).await.expect("creates");
    let before = server.pid();
    server.sigkill().await;
    server.respawn().await.expect("starts again");
    assert_ne!(server.pid(), before);
    let mut connection = PgConnection::connect(&urls.owner).await.expect("connects");
    let answer: i32 =
        sqlx::query_scalar("SELECT answer FROM kept").fetch_one(&mut connection).await.expect("reads");
    assert_eq!(answer, 42);
    let role: String = sqlx::query_scalar("SELECT current_user::text")
        .fetch_one(&mut PgConnection::connect(&urls.app).await.expect("the app role connects"))
        .await
        .expect("reads");
    assert_eq!(role, "atrium_app");
}

#[tokio::test]
async fn redis_keeps_its_data_over_a_restart_and_loses_it_by_a_flush() {
    let server = PrivateRedis::start().await.expect("starts");
    let mut connection = server.connection(3).await.expect("connects");
    redis::cmd("SET").arg("k").arg("v").query_async::<()>(&mut connection).await.expect("sets");
    server.restart().await.expect("restarts");
    let get = async || {
        let mut connection = server.connection(3).await.expect("connects");
        redis::cmd("GET").arg("k").query_async::<Option<String>>(&mut connection).await.expect("gets")
    };
    assert_eq!(get().await.as_deref(), Some("v"));
    server.flush_all().await.expect("flushes");
    assert_eq!(get().await, None);
}

#[tokio::test]
async fn clients_without_the_password_are_refused() {
    let redis = PrivateRedis::start().await.expect("starts");
    let (_, address) =
        redis.url(0).split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("has a password");
    let client = redis::Client::open(format!("redis://{address}")).expect("parses");
    let mut connection = client.get_multiplexed_async_connection().await.expect("connects");
    assert!(redis::cmd("PING").query_async::<()>(&mut connection).await.is_err());

    let postgres = PrivatePostgres::start(Durability::Volatile).await.expect("starts");
    let wrong = format!("postgres://postgres:wrong@127.0.0.1:{}/postgres", postgres.port());
    assert!(PgConnection::connect(&wrong).await.is_err());
}

#[tokio::test]
async fn dropped_servers_and_their_folder_are_gone() {
    let folder = std::sync::Arc::new(Folder::create().expect("a folder"));
    let path = folder.path().to_owned();
    let postgres = PrivatePostgres::start_in(folder.clone(), Durability::Volatile).await.expect("starts");
    let redis = PrivateRedis::start_in(folder).await.expect("starts");
    let pids = [postgres.pid(), redis.pid()];
    drop((postgres, redis));
    for pid in pids {
        assert!(!is_alive(pid));
    }
    assert!(!path.exists());
}
