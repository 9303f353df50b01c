//! The REST API over real sockets of real processes. Every response is checked against the contract.

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

/// Sends a request and checks its response.
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

/// Waits until a process rejects a token that it would accept otherwise.
async fn until_refused(client: &Client) {
    until(&format!("{} believes it no more", client.base()), async || {
        client.get("/v1/auth/me").send().await.unwrap().code() == 401
    })
    .await;
}

/// Waits until the operation at this address has ended, and returns its status.
async fn end_of(client: &Client, operation: &str) -> String {
    let mut status = String::new();
    until("an end", async || {
        status = client.get(operation).answers(200).await.at("/status");
        ["COMMITTED", "FAILED"].contains(&status.as_str())
    })
    .await;
    status
}

/// Creates organizations until one fails: what makes them fail takes a moment to reach the workers.
async fn failed_creation(guest: &Guest) -> Creation {
    loop {
        let created = guest.create_organization("Doomed").await.unwrap();
        if end_of(&guest.client, &format!("/v1/operations/{}", created.operation)).await == "FAILED" {
            return created;
        }
    }
}

/// A metric of a process, named with its labels; 0 if absent.
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

/// Waits until each of the first `apis` API processes counts as many that live. Until then the first one that started
/// takes itself for the only one, and grants a whole limit alone.
async fn every_process_counts(atrium: &Atrium, apis: usize) {
    for api in 0..apis {
        until("every API process counts the others", async || {
            metric(atrium, api, "atrium_api_processes").await == apis as f64
        })
        .await;
    }
}

/// Checks that all of these are this problem and indistinguishable: the same bytes, except for the request id.
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
