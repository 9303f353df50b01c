//! The REST API, asked over real sockets of real processes. Every answer is held against the contract on the way.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod api_keys;
mod audit;
mod cancel;
mod clocks;
mod configs;
mod contract_routes;
mod drain;
mod edge;
mod export;
mod foreign_ids;
mod full_disk;
mod garbage;
mod hostile;
mod identity;
mod import;
mod lifecycle;
mod limits;
mod members;
mod names;
mod non_interference;
mod operations;
mod orgs;
mod outages;
mod projects;
mod quotas;
mod refresh;
mod repeats;
mod revocation;
mod shared_limits;
mod signing_keys;
mod telemetry;
mod wire;
mod world;

use atrium_devstack::{
    actors::{Guest, Window},
    client::{Client, Follower, Reply, Request},
    testing::Atrium,
};

/// How long something that comes within a second is waited for: a limit against waiting forever, not a measurement.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// A window of the chat of a new project, and its events, which come from now on.
async fn watched_chat(guest: &Guest, org: &str) -> (Window, Follower) {
    let project = guest.project(org, "Harbor").await.unwrap();
    let window = guest.open_chat(org, &project).await.unwrap();
    let mut events = guest.watch(&window);
    events.connected(PATIENCE).await.unwrap();
    (window, events)
}

/// Sends a request and says what has to come.
trait Ask {
    /// Sends it; the answer has to have this status.
    async fn answers(self, status: u16) -> Reply;
    /// Sends it; the answer has to be this problem.
    async fn refused(self, status: u16, code: &str) -> Reply;
}

impl Ask for Request {
    async fn answers(self, status: u16) -> Reply {
        self.send().await.unwrap().must(status)
    }

    async fn refused(self, status: u16, code: &str) -> Reply {
        self.send().await.unwrap().must_be(status, code)
    }
}

/// What a process says about a metric, named with its labels; 0 when it says nothing.
async fn metric(atrium: &Atrium, api: usize, name: &str) -> f64 {
    let admin = Client::new(atrium.api(api).admin_url());
    let metrics = admin.get("/metrics").answers(200).await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// Makes sure that these are all this problem and cannot be told apart: the same bytes, but for the request's id.
#[track_caller]
fn alike(replies: &[Reply], status: u16, code: &str) {
    assert_eq!(
        (replies[0].code(), replies[0].problem().as_str()),
        (status, code),
        "{}",
        replies[0].describe()
    );
    let seen = |reply: &Reply| {
        let id = reply.header("x-request-id").unwrap_or_default();
        let mut headers: Vec<_> = reply
            .headers
            .iter()
            .filter(|(name, _)| !["date", "x-request-id", "ratelimit"].contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        headers.sort();
        (reply.status, headers, reply.text().replace(id, "-"))
    };
    for reply in replies {
        assert_eq!(
            seen(reply),
            seen(&replies[0]),
            "{} differs from {}",
            reply.describe(),
            replies[0].describe()
        );
    }
}
