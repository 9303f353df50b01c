//! `dev`: two concurrent stacks, a process that is killed, and Ctrl-C.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atrium_harness::addresses::Addresses;
use atrium_harness::client::Client;
use atrium_servers::process::{Launch, Process, Signal, is_alive};

const DEVSTACK: &str = env!("CARGO_BIN_EXE_atrium-devstack");
const TIMEOUT: Duration = Duration::from_secs(120);

struct Dev {
    process: Process,
    screen: PathBuf,
}

impl Dev {
    fn start(folder: &Path, name: &str) -> Self {
        let screen = folder.join(format!("{name}.screen"));
        let launch = Launch::new(name, DEVSTACK).args(["dev", "--files"]).arg(folder.join(".dev"));
        Self { process: launch.log(&screen).spawn().expect("starts"), screen }
    }

    fn shown(&self) -> String {
        std::fs::read_to_string(&self.screen).unwrap_or_default()
    }

    async fn shows(&self, text: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.shown().contains(text) {
            let ended = self.process.status();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no `{text}` ({ended:?}) in\n{}",
                self.shown()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn pid(addresses: &Addresses, key: &str) -> u32 {
    addresses.get(key).expect("is there").parse().expect("a process id")
}

#[tokio::test]
async fn two_stacks_run_at_once_restart_killed_processes_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = folder.path().join(".dev");
    let first = Dev::start(folder.path(), "first");
    first.shows("PostgreSQL, private").await;
    let second = Dev::start(folder.path(), "second");
    first.shows("Ctrl-C stops everything").await;
    second.shows("Ctrl-C stops everything").await;

    let second_file = files.join(format!("env.{}", second.process.pid()));
    let (one, other) = (
        Addresses::read(&files.join("env")).expect("the first stack's addresses"),
        Addresses::read(&second_file).expect("the second stack's addresses"),
    );
    assert!(second.shown().contains(&format!("make tour ENV={}", second_file.display())));
    for key in ["ATRIUM_URL", "ATRIUM_DATABASE_URL", "ATRIUM_REDIS_URL"] {
        assert_ne!(one.get(key).expect("is there"), other.get(key).expect("is there"));
    }

    // A killed process is restarted at the same address, and the file has its new id.
    let api = pid(&one, "ATRIUM_API_PID");
    kill(api);
    first.shows("api: running again").await;
    let now = Addresses::read(&files.join("env")).expect("still there");
    assert_ne!(pid(&now, "ATRIUM_API_PID"), api);
    assert_eq!(now.get("ATRIUM_URL").expect("is there"), one.get("ATRIUM_URL").expect("is there"));
    let client = Client::new(now.get("ATRIUM_URL").expect("is there"));
    let _ = client.post("/v1/auth/guest").send().await.expect("answers").must(201);

    // One is interrupted, the other is killed: neither leaves a process behind.
    let keys = ["ATRIUM_API_PID", "ATRIUM_WORKERS_PID", "ATRIUM_POSTGRES_PID", "ATRIUM_REDIS_PID"];
    let pids: Vec<_> = keys.iter().flat_map(|key| [pid(&now, key), pid(&other, key)]).collect();
    first.process.signal(Signal::INT);
    second.process.signal(Signal::KILL);
    assert_eq!(first.process.ended().await.code(), Some(0), "{}", first.shown());
    assert!(!files.join("env").exists());
    let deadline = Instant::now() + Duration::from_secs(30);
    while pids.iter().any(|pid| is_alive(*pid)) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let left: Vec<_> = pids.into_iter().filter(|pid| is_alive(*pid)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_reported_before_anything_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let screen = folder.path().join("screen");
    let unused = atrium_servers::ports::free().expect("a port");
    let launch = Launch::new("dev", DEVSTACK).args(["dev", "--files"]).arg(folder.path().join(".dev"));
    let dev = launch
        .env("ATRIUM_REDIS_URL", format!("redis://:secret@127.0.0.1:{unused}/0"))
        .log(&screen)
        .spawn()
        .expect("starts");
    assert_eq!(dev.ended().await.code(), Some(1));
    let shown = std::fs::read_to_string(&screen).expect("the screen");
    let message = shown.lines().find(|line| line.contains("ATRIUM_REDIS_URL")).expect("an error message");
    assert!(message.contains(&format!("127.0.0.1:{unused}")), "{shown}");
    assert!(message.contains("for example redis://127.0.0.1:6379/0"), "{shown}");
    assert!(!shown.contains("secret") && !shown.contains("PostgreSQL, private"), "{shown}");
}

fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()));
}
