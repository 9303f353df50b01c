//! Tests of the REST API: requests over real sockets to real processes. Every response is also checked against the
//! contract.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod api_keys;
mod audit;
mod cancel;
mod clocks;
mod configs;
mod contract_lists;
mod contract_routes;
mod contract_schemas;
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

use atrium_contract::Reply;
use atrium_harness::{
    Atrium,
    client::{Client, Follower, Request},
    guest::{Creation, Guest, Window},
    until,
};

/// Upper bound for waiting on an event that normally happens within a second. It prevents endless waits and measures
/// nothing.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Opens a chat window in a new project and follows its events from now on.
async fn watched_chat(guest: &Guest, org: &str) -> (Window, Follower) {
    let project = guest.project(org, "Harbor").await.unwrap();
    let window = guest.open_chat(org, &project).await.unwrap();
    let mut events = guest.watch(&window);
    events.connected(PATIENCE).await.unwrap();
    (window, events)
}

/// Sends a request and checks its response.
trait CheckedSend {
    /// Sends the request; the response must have this status.
    async fn answers(self, status: u16) -> Reply;
    /// Sends the request; the response must be this problem.
    async fn refused(self, status: u16, code: &str) -> Reply;
}

impl CheckedSend for Request {
    async fn answers(self, status: u16) -> Reply {
        self.send().await.unwrap().must(status)
    }

    async fn refused(self, status: u16, code: &str) -> Reply {
        self.send().await.unwrap().must_be(status, code)
    }
}

/// Waits until a process rejects the client's token, which is valid except for its revocation.
async fn until_token_rejected(client: &Client) {
    until(&format!("{} rejects the token", client.base()), async || {
        client.get("/v1/auth/me").send().await.unwrap().code() == 401
    })
    .await;
}

/// Waits until the operation at this path has ended, and returns its final status.
async fn final_status(client: &Client, operation: &str) -> String {
    let mut status = String::new();
    until("the operation has ended", async || {
        status = client.get(operation).answers(200).await.at("/status");
        ["COMMITTED", "FAILED"].contains(&status.as_str())
    })
    .await;
    status
}

/// Creates organizations until one fails, because the setting that makes them fail reaches the workers with a delay.
async fn failed_creation(guest: &Guest) -> Creation {
    loop {
        let created = guest.create_organization("Doomed").await.unwrap();
        if final_status(&guest.client, &format!("/v1/operations/{}", created.operation)).await == "FAILED" {
            return created;
        }
    }
}

/// The value that a process reports for a metric, named with its labels; 0 when the metric is absent.
async fn metric(atrium: &Atrium, api: usize, name: &str) -> f64 {
    let admin = Client::new(atrium.api(api).admin_url());
    let metrics = admin.get("/metrics").answers(200).await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// A request as a page's `EventSource` sends it: with the session cookie.
fn by_cookie(atrium: &Atrium, guest: &Guest, path: &str) -> Request {
    let cookie = format!("atrium_session={}", guest.client.token().unwrap());
    atrium.client().get(path).header("cookie", cookie).header("sec-fetch-site", "same-origin")
}

/// Waits until each of the first `apis` API processes counts that number of live processes. Until then, the process
/// that started first assumes that it is the only one, and admits the whole limit alone.
async fn until_processes_counted(atrium: &Atrium, apis: usize) {
    for api in 0..apis {
        until("every API process counts the others", async || {
            metric(atrium, api, "atrium_api_processes").await == apis as f64
        })
        .await;
    }
}

/// Asserts that all replies are this problem and are indistinguishable: the same bytes, except for the request id.
#[track_caller]
fn assert_identical_problems(replies: &[Reply], status: u16, code: &str) {
    assert_eq!(
        (replies[0].code(), replies[0].problem().as_str()),
        (status, code),
        "{}",
        replies[0].describe()
    );
    let comparable = |reply: &Reply| {
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
            comparable(reply),
            comparable(&replies[0]),
            "{} differs from {}",
            reply.describe(),
            replies[0].describe()
        );
    }
}
