//! `exec`: it passes on its command's exit code, and leaves nothing behind.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use atrium_servers::process::{Launch, Process, Signal, is_alive};

const DEVSTACK: &str = env!("CARGO_BIN_EXE_atrium-devstack");

async fn gone(pid: u32) -> bool {
    let patience = Instant::now() + Duration::from_secs(10);
    while is_alive(pid) && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    !is_alive(pid)
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

/// Starts `exec` with a long command, and finds the servers that it started.
async fn long_exec() -> (Process, Vec<u32>, PathBuf) {
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
    // In memory where there is room for it.
    let folder = [PathBuf::from("/dev/shm"), std::env::temp_dir()]
        .iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .expect("the stack has a folder")
        .path();
    (exec, children(&folder), folder)
}

/// The processes whose working directory is in the folder, as every server's is.
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
    let (exec, children, folder) = long_exec().await;
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
    let (exec, children, folder) = long_exec().await;
    assert!(children.len() >= 2, "{children:?}");
    exec.kill().await;
    for pid in children {
        assert!(gone(pid).await, "{pid} still runs");
    }
    // Nothing cleaned up; the next stack would, a minute later.
    std::fs::remove_dir_all(folder).expect("the folder stayed");
}
