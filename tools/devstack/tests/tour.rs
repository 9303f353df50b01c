//! The tour while every process is killed once: what was accepted is not lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atrium_harness::Environment;
use atrium_harness::screen::Screen;
use atrium_harness::stack::{Plan, Stack};
use atrium_harness::supervisor;
use atrium_servers::existing::Existing;
use atrium_servers::folder::Folder;
use atrium_servers::postgres::Durability;
use atrium_servers::process::Launch;

const DEVSTACK: &str = env!("CARGO_BIN_EXE_atrium-devstack");
const TIMEOUT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn every_process_killed_once_loses_nothing() {
    let folder = Folder::create().expect("a folder");
    let plan = Plan {
        existing: Existing::default(),
        durability: Durability::Durable,
        port: None,
        logs: folder.private("logs", None).expect("a folder"),
        binaries: Environment::get().binaries.clone(),
    };
    let stack = Arc::new(Stack::start(plan, &Screen::new()).await.expect("starts"));
    let watched = Arc::clone(&stack);
    let supervisor = tokio::spawn(async move { supervisor::watch(&watched, &Screen::new(), || {}).await });

    let screen = folder.path().join("tour.screen");
    let shown = || std::fs::read_to_string(&screen).unwrap_or_default();
    let tour = Launch::new("tour", DEVSTACK)
        .args(["tour", "--url", stack.url(), "--pause", "300"])
        .log(&screen)
        .spawn()
        .expect("starts");
    // Each is killed after this many lines of the tour's output, the title included.
    for (lines, victim) in
        [(3, "workers"), (5, "api"), (7, "Redis"), (8, "workers"), (9, "PostgreSQL"), (11, "api")]
    {
        let deadline = Instant::now() + TIMEOUT;
        while shown().lines().count() < lines && tour.status().is_none() {
            assert!(Instant::now() < deadline, "the tour hangs:\n{}", shown());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match victim {
            "api" => stack.api.sigkill().await,
            "workers" => stack.workers.sigkill().await,
            "Redis" => stack.redis.as_ref().expect("it is private").sigkill().await,
            _ => stack.postgres.as_ref().expect("it is private").sigkill().await,
        }
    }
    let status = tokio::time::timeout(TIMEOUT, tour.ended()).await.expect("the tour ends");
    assert!(
        status.success(),
        "{}\n──── api\n{}\n──── workers\n{}",
        shown(),
        stack.api.log_tail(60),
        stack.workers.log_tail(60),
    );
    supervisor.abort();
    let _ = supervisor.await;
    stack.stop().await;
}
