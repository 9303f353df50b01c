//! The steps of the main user journey, in the order in which a team would take them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use atrium_harness::guest::{Creation, Guest, patiently};
use atrium_harness::screen::readable;
use serde_json::{Value, json};

use super::step::{TIMEOUT, Tour};
use super::window::{press, watched};

/// A process that was killed is listed this long; one without a revision after that loads the newest at first use.
const LISTED: Duration = Duration::from_secs(8);

/// The key that the tour changes.
pub(super) const CAP: &str = "chat.max_active_sessions";

/// What the steps created, for the measurements.
pub(super) struct Created {
    pub(super) org: String,
    pub(super) project: String,
    pub(super) admin: Guest,
    pub(super) member: Guest,
}

/// A configuration change that every process has applied.
pub(super) struct Rollout {
    /// Process, and milliseconds from the commit; `None` for one that does not hold the organization.
    pub(super) lags: Vec<(String, Option<f64>)>,
}

impl Tour {
    /// The main user journey.
    pub(super) async fn walk(&self) -> anyhow::Result<Created> {
        let founder = self
            .step("a guest signs in", async {
                let guest = Guest::sign_in(&self.client).await?;
                let me = patiently(|| guest.client.get("/v1/auth/me")).await?.expect_status(200)?;
                ensure!(me.at("/user/id") == guest.id, "expected to be {}, got {}", guest.id, me.describe());
                let name = guest.name.clone();
                Ok((guest, name))
            })
            .await?;
        let creation = self
            .step("creates an organization", async {
                let creation = founder.create_organization("Tour Company").await?;
                let outcome = format!("accepted; operation {}", creation.operation);
                Ok((creation, outcome))
            })
            .await?;
        self.step("follows its saga over SSE until COMMITTED", self.follow_saga(&founder, &creation)).await?;
        let org = creation.org;
        let (admin, member) = self
            .step("two more guests join by invitation", async {
                let admin = founder.invite_guest(&org, "admin").await?;
                let member = founder.invite_guest(&org, "member").await?;
                let path = format!("/v1/orgs/{org}/members");
                let members = patiently(|| founder.client.get(&path)).await?.expect_status(200)?;
                let count = members.json()["items"].as_array().map_or(0, Vec::len);
                ensure!(count == 3, "expected 3 members, got {}", members.describe());
                let outcome = format!("{} as admin, {} as member", admin.name, member.name);
                Ok(((admin, member), outcome))
            })
            .await?;
        let project = self
            .step("creates a project", async {
                let project = founder.project(&org, "Launch").await?;
                Ok((project.clone(), project))
            })
            .await?;
        let (mut first, mut other) = self
            .step("two members open its chat, each with a stream", async {
                let mine = watched(&member, &org, &project).await?;
                let others = watched(&admin, &org, &project).await?;
                Ok(((mine, others), "two windows".to_owned()))
            })
            .await?;
        let ready = self
            .step("one presses Ready, and both streams show it", async {
                let press = press(&member, "ready", [&mut first, &mut other]).await?;
                Ok((press.times, format!("after {press}")))
            })
            .await?;
        let revision = self
            .step(&format!("the admin sets {CAP} to 1"), async {
                let reply = admin
                    .configure(&org, CAP, json!(1), "one window for each member during the tour")
                    .await?;
                let revision = reply.json()["revision"].as_i64().context("expected a revision")?;
                Ok((revision, format!("revision {revision}")))
            })
            .await?;
        self.step("every process reports the new revision", async {
            let rollout = self.rolled_out(&admin, &org, revision).await?;
            let lags: Vec<_> =
                rollout.lags.iter().map(|(process, lag)| format!("{process} {}", shown(*lag))).collect();
            Ok(((), format!("commit to applied: {}", lags.join(", "))))
        })
        .await?;
        let mut second = self
            .step("the member's second window closes the first one", async {
                let second = watched(&member, &org, &project).await?;
                ensure!(second.window.closed.is_some(), "expected `closed_session_id`, got null");
                let closed = first.stream.see("chat.session-closed", TIMEOUT).await?;
                let data = closed.json();
                ensure!(
                    data["session_id"] == first.window.session.as_str() && data["reason"] == "replaced",
                    "expected that the first window is replaced, got {data}"
                );
                Ok((second, "its stream reported the reason: replaced".to_owned()))
            })
            .await?;
        self.step("pressing in the closed window is refused", async {
            let reply = patiently(|| member.pressing(&first.window, "ready")).await?;
            reply.expect_problem(409, "chat_session_closed")?;
            Ok(((), "409 chat_session_closed".to_owned()))
        })
        .await?;
        let green = self
            .step("pressing in the new window is accepted", async {
                let press = press(&member, "tests_green", [&mut second, &mut other]).await?;
                Ok((press.times, format!("shown after {press}")))
            })
            .await?;
        self.step(
            "the counters are right",
            self.counted(&founder, &org, &project, [("ready", ready), ("tests_green", green)]),
        )
        .await?;
        self.step("the history shows the admin as author", async {
            let path = format!("/v1/orgs/{org}/configs/{CAP}/history");
            let reply = patiently(|| founder.client.get(&path)).await?.expect_status(200)?;
            let newest = reply.json()["items"][0].clone();
            ensure!(
                newest["author"]["id"] == admin.id.as_str() && newest["new_value"] == 1,
                "expected a change to 1 by {}, got {newest}",
                admin.name
            );
            Ok(((), newest["reason"].as_str().unwrap_or_default().to_owned()))
        })
        .await?;
        Ok(Created { org, project, admin, member })
    }

    /// Every step of the saga must be reported done, with sequence numbers without gaps, and the end must be COMMITTED.
    async fn follow_saga(&self, founder: &Guest, creation: &Creation) -> anyhow::Result<((), String)> {
        let operation = format!("/v1/operations/{}", creation.operation);
        let mut stream = founder.client.follow(format!("{operation}/events"));
        let start = Instant::now();
        let (mut sequence, mut steps) = (0, Vec::new());
        loop {
            let Some(event) = stream.next(TIMEOUT).await? else {
                bail!(
                    "expected `operation.finished`, but the stream ended without it; steps so far: {steps:?}"
                );
            };
            let data = event.json();
            if !event.event.starts_with("operation.") {
                // A process that stops says so; the stream continues on another one.
                continue;
            }
            let seq = data["seq"].as_i64().unwrap_or_default();
            sequence += 1;
            ensure!(seq == sequence, "expected event number {sequence}, got {data}");
            let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
            if event.event == "operation.finished" {
                ensure!(text("status") == "COMMITTED", "expected COMMITTED, got {data}");
                break;
            }
            if text("status") == "DONE" {
                steps.push(format!("{} {}", text("step"), readable(event.at.duration_since(start))));
            }
        }
        ensure!(!steps.is_empty(), "expected steps before the end, got none");
        let path = format!("/v1/orgs/{}", creation.org);
        let org = patiently(|| founder.client.get(&path)).await?.expect_status(200)?;
        ensure!(
            org.at("/status") == "COMMITTED",
            "expected a COMMITTED organization, got {}",
            org.describe()
        );
        Ok(((), steps.join(", ")))
    }

    /// Polls until every process has applied the revision.
    pub(super) async fn rolled_out(
        &self,
        admin: &Guest,
        org: &str,
        revision: i64,
    ) -> anyhow::Result<Rollout> {
        let path = format!("/v1/orgs/{org}/configs/status");
        let (start, mut pause) = (Instant::now(), Duration::from_millis(2));
        loop {
            let reply = patiently(|| admin.client.get(&path)).await?.expect_status(200)?;
            let status = reply.json();
            let processes = status["processes"].as_array().cloned().unwrap_or_default();
            let has =
                |process: &Value| process["revision"].as_i64().is_some_and(|applied| applied >= revision);
            let waits = |process: &Value| process["revision"].is_null() && start.elapsed() > LISTED;
            let complete = processes.iter().any(has) && processes.iter().all(|one| has(one) || waits(one));
            if complete {
                let name = |process: &Value| process["process"].as_str().unwrap_or_default().to_owned();
                let lags = processes.iter().map(|one| (name(one), one["lag_ms"].as_f64())).collect();
                return Ok(Rollout { lags });
            }
            if start.elapsed() > TIMEOUT {
                bail!("expected every process at revision {revision} within {TIMEOUT:?}, got {status}");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Each accepted press is counted once; presses whose answer was lost may be counted, too.
    async fn counted(
        &self,
        founder: &Guest,
        org: &str,
        project: &str,
        pressed: [(&str, i64); 2],
    ) -> anyhow::Result<((), String)> {
        let path = format!("/v1/orgs/{org}/projects/{project}/chat/counters");
        let start = Instant::now();
        loop {
            let reply = patiently(|| founder.client.get(&path)).await?.expect_status(200)?;
            let counters = reply.json();
            let count = |action: &str| {
                let items = counters["items"].as_array()?;
                items.iter().find(|item| item["action"] == action)?["count"].as_i64()
            };
            if pressed.iter().all(|(action, times)| count(action).unwrap_or(0) >= *times) {
                let counts = pressed.map(|(action, _)| format!("{action} {}", count(action).unwrap_or(0)));
                return Ok(((), counts.join(", ")));
            }
            if start.elapsed() > TIMEOUT {
                bail!("expected at least {pressed:?}, got {counters}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn shown(lag: Option<f64>) -> String {
    lag.map_or_else(|| "(loads it at first use)".to_owned(), |lag| format!("{lag:.1} ms"))
}
