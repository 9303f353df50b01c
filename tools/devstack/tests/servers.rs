//! Private servers: they start, keep their data over kills and restarts, and leave nothing behind.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use atrium_devstack::folder::Folder;
use atrium_devstack::postgres::{Durability, PrivatePostgres};
use atrium_devstack::process::{Launch, Signal, is_alive};
use atrium_devstack::redis::PrivateRedis;
use atrium_devstack::testing::{TestDatabase, TestRedis};
use atrium_devstack::urls::Passwords;
use sqlx::{Connection as _, PgConnection};

const DEVSTACK: &str = env!("CARGO_BIN_EXE_atrium-devstack");

async fn gone(pid: u32) -> bool {
    let patience = Instant::now() + Duration::from_secs(10);
    while is_alive(pid) && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    !is_alive(pid)
}

#[tokio::test]
async fn postgres_keeps_what_was_committed_over_a_kill() {
    let server = PrivatePostgres::start(Durability::Durable).await.expect("starts");
    let urls = server.migrated("atrium", &Passwords::random()).await.expect("migrates");
    let mut connection = PgConnection::connect(&urls.owner).await.expect("connects");
    sqlx::query("CREATE TABLE kept AS SELECT 42 AS answer").execute(&mut connection).await.expect("creates");
    let before = server.pid();
    server.kill9().await;
    server.start_again().await.expect("starts again");
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
async fn redis_keeps_what_was_written_over_a_restart_and_forgets_on_a_flush() {
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
async fn strangers_are_kept_out() {
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

#[tokio::test]
async fn exec_passes_on_the_commands_status() {
    let exec = |script: &str| {
        Command::new(DEVSTACK)
            .args(["exec", "--", "sh", "-c", script])
            .stdin(Stdio::null())
            .output()
            .expect("runs")
    };
    let output = exec("test -n \"$ATRIUM_TEST_POSTGRES_URL\" && exit 7");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(exec("kill -9 $$").status.code(), Some(128 + 9));
}

/// Starts `exec` with a command that lasts, and finds out which servers it started.
async fn lasting_exec() -> (atrium_devstack::process::Process, Vec<u32>, PathBuf) {
    let output = tempfile::tempdir().expect("a folder");
    let log = output.path().join("exec.log");
    let exec = Launch::new("exec", DEVSTACK)
        .args(["exec", "--", "sh", "-c", "echo up; exec sleep 60"])
        .log(&log)
        .spawn()
        .expect("starts");
    let patience = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.lines().any(|line| line == "up")) {
        assert!(Instant::now() < patience, "{}", std::fs::read_to_string(&log).unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let prefix = format!("atrium-{}-", exec.pid());
    let folder = std::fs::read_dir(std::env::temp_dir())
        .expect("readable")
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .expect("the stack has a folder")
        .path();
    (exec, children(&folder), folder)
}

/// The processes that work in the folder: every server does.
fn children(folder: &std::path::Path) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("there is /proc").flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|at| at.starts_with(folder))
        })
        .collect()
}

#[tokio::test]
async fn a_terminated_exec_leaves_nothing() {
    let (exec, children, folder) = lasting_exec().await;
    assert!(children.len() >= 2, "{children:?}");
    exec.signal(Signal::TERM);
    assert_eq!(exec.ended().await.code(), Some(128 + 15));
    for pid in children {
        assert!(gone(pid).await, "{pid} still runs");
    }
    assert!(!folder.exists());
}

#[tokio::test]
async fn the_servers_of_a_killed_exec_die_with_it() {
    let (exec, children, folder) = lasting_exec().await;
    assert!(children.len() >= 2, "{children:?}");
    exec.kill().await;
    for pid in children {
        assert!(gone(pid).await, "{pid} still runs");
    }
    // Nobody was left to tidy up; the next stack would, a minute later.
    std::fs::remove_dir_all(folder).expect("the folder stayed");
}
