//! The steps, in the order in which a team would take them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::Tour;
use crate::actors::{Creation, Guest, Window, patiently};
use crate::client::Follower;
use crate::screen::spoken;

/// How long anything may take that should take milliseconds: processes may be on their way up again.
const PATIENCE: Duration = Duration::from_secs(30);
/// A process that was killed is listed this long; what holds no configuration after that will load the newest.
const LISTED: Duration = Duration::from_secs(8);

/// The key that the tour changes.
pub(super) const CAP: &str = "chat.max_active_sessions";

/// What the steps leave behind for the measurements.
pub(super) struct Visit {
    pub(super) org: String,
    pub(super) project: String,
    pub(super) admin: Guest,
    pub(super) member: Guest,
}

/// An open chat window with its stream, and the ids of the actions it showed.
pub(super) struct Watched {
    pub(super) window: Window,
    stream: Follower,
    seen: HashSet<String>,
    /// Why the stream said that something may be missing.
    resets: Vec<String>,
}

/// A configuration change that every process has applied.
pub(super) struct Rollout {
    /// Process, and milliseconds from the commit; `None` for one that does not hold the organization.
    pub(super) lags: Vec<(String, Option<f64>)>,
}

impl Tour {
    /// The main job.
    pub(super) async fn walk(&self) -> anyhow::Result<Visit> {
        let founder = self
            .step("a guest signs in", async {
                let guest = Guest::sign_in(&self.client).await?;
                let me = patiently(|| guest.client.get("/v1/auth/me"))
                    .await?
                    .expect_status(200)?;
                ensure!(
                    me.at("/user/id") == guest.id,
                    "expected to be {}, came {}",
                    guest.id,
                    me.describe()
                );
                let key = guest.key.clone();
                Ok((guest, key))
            })
            .await?;
        let creation = self
            .step("creates an organization", async {
                let creation = founder.create_organization("Tour Company").await?;
                let outcome = format!("accepted; operation {}", creation.operation);
                Ok((creation, outcome))
            })
            .await?;
        self.step(
            "follows its saga over SSE until COMMITTED",
            self.follow_saga(&founder, &creation),
        )
        .await?;
        let org = creation.org;
        let (admin, member) = self
            .step("two more guests join by invitation", async {
                let admin = founder.bring(&org, "admin").await?;
                let member = founder.bring(&org, "member").await?;
                let path = format!("/v1/orgs/{org}/members");
                let members = patiently(|| founder.client.get(&path))
                    .await?
                    .expect_status(200)?;
                let count = members.json()["items"].as_array().map_or(0, Vec::len);
                ensure!(count == 3, "expected 3 members, came {}", members.describe());
                let outcome = format!("{} as admin, {} as member", admin.key, member.key);
                Ok(((admin, member), outcome))
            })
            .await?;
        let project = self
            .step("a project", async {
                let project = founder.project(&org, "Launch").await?;
                Ok((project.clone(), project))
            })
            .await?;
        let (mut first, mut other) = self
            .step("both open its chat, each with a stream", async {
                let mine = watched(&member, &org, &project).await?;
                let others = watched(&admin, &org, &project).await?;
                Ok(((mine, others), "two windows".to_owned()))
            })
            .await?;
        self.step("one presses Ready, both streams show it", async {
            let shown = press(&member, "ready", [&mut first, &mut other]).await?;
            Ok(((), format!("after {}", spoken_list(&shown))))
        })
        .await?;
        let revision = self
            .step(&format!("the admin sets {CAP} to 1"), async {
                let reply = admin
                    .configure(&org, CAP, json!(1), "one window each during the tour")
                    .await?;
                let revision = reply.json()["revision"].as_i64().context("expected a revision")?;
                Ok((revision, format!("revision {revision}")))
            })
            .await?;
        self.step("every process reports the new revision", async {
            let rollout = self.rolled_out(&admin, &org, revision).await?;
            let lags: Vec<_> = rollout
                .lags
                .iter()
                .map(|(process, lag)| format!("{process} {}", shown(*lag)))
                .collect();
            Ok(((), format!("commit to applied: {}", lags.join(", "))))
        })
        .await?;
        let mut second = self
            .step("the member's second window closes the first", async {
                let second = watched(&member, &org, &project).await?;
                ensure!(
                    second.window.closed.is_some(),
                    "expected `closed_session_id`, came null"
                );
                let closed = first.stream.see("chat.session-closed", PATIENCE).await?;
                let data = closed.json();
                ensure!(
                    data["session_id"] == first.window.session.as_str() && data["reason"] == "replaced",
                    "expected that the first window is replaced, came {data}"
                );
                Ok((second, "its stream was told: replaced".to_owned()))
            })
            .await?;
        self.step("pressing in the closed window is refused", async {
            let reply = patiently(|| member.pressing(&first.window, "ready")).await?;
            reply.expect_problem(409, "chat_session_closed")?;
            Ok(((), "409 chat_session_closed".to_owned()))
        })
        .await?;
        self.step("pressing in the new one is not", async {
            let shown = press(&member, "tests_green", [&mut second, &mut other]).await?;
            Ok(((), format!("shown after {}", spoken_list(&shown))))
        })
        .await?;
        self.step(
            "the counters have counted",
            self.counted(&founder, &org, &project),
        )
        .await?;
        self.step("the history names the admin", async {
            let path = format!("/v1/orgs/{org}/configs/{CAP}/history");
            let reply = patiently(|| founder.client.get(&path))
                .await?
                .expect_status(200)?;
            let newest = reply.json()["items"][0].clone();
            ensure!(
                newest["author"]["id"] == admin.id.as_str() && newest["new_value"] == 1,
                "expected a change to 1 by {}, came {newest}",
                admin.key
            );
            Ok(((), newest["reason"].as_str().unwrap_or_default().to_owned()))
        })
        .await?;
        Ok(Visit {
            org,
            project,
            admin,
            member,
        })
    }

    /// Every step of the saga must be seen done, in an order without gaps, and the end must be COMMITTED.
    async fn follow_saga(&self, founder: &Guest, creation: &Creation) -> anyhow::Result<((), String)> {
        let operation = format!("/v1/operations/{}", creation.operation);
        let mut stream = founder.client.follow(format!("{operation}/events"));
        let start = Instant::now();
        let (mut sequence, mut steps) = (0, Vec::new());
        loop {
            let Some(event) = stream.next(PATIENCE).await? else {
                bail!(
                    "expected `operation.finished`, the stream is over without it; steps so far: {steps:?}"
                );
            };
            let data = event.json();
            if !event.event.starts_with("operation.") {
                // A process that stops says so; the stream goes on elsewhere.
                continue;
            }
            let came = data["seq"].as_i64().unwrap_or_default();
            sequence += 1;
            ensure!(came == sequence, "expected event number {sequence}, came {data}");
            let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
            if event.event == "operation.finished" {
                ensure!(text("status") == "COMMITTED", "expected COMMITTED, came {data}");
                break;
            }
            if text("status") == "DONE" {
                steps.push(format!(
                    "{} {}",
                    text("step"),
                    spoken(event.at.duration_since(start))
                ));
            }
        }
        ensure!(!steps.is_empty(), "expected steps before the end, came none");
        let path = format!("/v1/orgs/{}", creation.org);
        let org = patiently(|| founder.client.get(&path))
            .await?
            .expect_status(200)?;
        ensure!(
            org.at("/status") == "COMMITTED",
            "expected a COMMITTED organization, came {}",
            org.describe()
        );
        Ok(((), steps.join(", ")))
    }

    /// Asks until every process has applied the revision.
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
            let has = |process: &Value| {
                process["revision"]
                    .as_i64()
                    .is_some_and(|applied| applied >= revision)
            };
            let waits = |process: &Value| process["revision"].is_null() && start.elapsed() > LISTED;
            let complete = processes.iter().any(has) && processes.iter().all(|one| has(one) || waits(one));
            if complete {
                let name = |process: &Value| process["process"].as_str().unwrap_or_default().to_owned();
                let lags = processes
                    .iter()
                    .map(|one| (name(one), one["lag_ms"].as_f64()))
                    .collect();
                return Ok(Rollout { lags });
            }
            if start.elapsed() > PATIENCE {
                bail!("expected every process at revision {revision} within {PATIENCE:?}, came {status}");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Each accepted press counts once; presses whose answer was lost may count too.
    async fn counted(&self, founder: &Guest, org: &str, project: &str) -> anyhow::Result<((), String)> {
        let path = format!("/v1/orgs/{org}/projects/{project}/chat/counters");
        let start = Instant::now();
        loop {
            let reply = patiently(|| founder.client.get(&path))
                .await?
                .expect_status(200)?;
            let counters = reply.json();
            let count = |action: &str| {
                let items = counters["items"].as_array()?;
                items.iter().find(|item| item["action"] == action)?["count"].as_i64()
            };
            let (ready, green) = (count("ready").unwrap_or(0), count("tests_green").unwrap_or(0));
            if ready >= 1 && green >= 1 {
                return Ok(((), format!("ready {ready}, tests_green {green}")));
            }
            if start.elapsed() > PATIENCE {
                bail!("expected at least one `ready` and one `tests_green`, came {counters}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Opens a window and its stream.
pub(super) async fn watched(guest: &Guest, org: &str, project: &str) -> anyhow::Result<Watched> {
    let window = guest.open_chat(org, project).await?;
    let mut stream = guest.watch(&window);
    stream.connected(PATIENCE).await?;
    Ok(Watched {
        window,
        stream,
        seen: HashSet::new(),
        resets: Vec::new(),
    })
}

/// Presses in the first window and waits until all show it; answers with how long each took.
pub(super) async fn press<const N: usize>(
    guest: &Guest,
    action: &str,
    mut windows: [&mut Watched; N],
) -> anyhow::Result<[Duration; N]> {
    let window = windows[0].window.clone();
    let (pressed, id) = accepted(guest, &window, action).await?;
    let mut took = [Duration::ZERO; N];
    for (watched, took) in windows.iter_mut().zip(&mut took) {
        *took = watched
            .shows(&id, action)
            .await?
            .saturating_duration_since(pressed);
    }
    Ok(took)
}

/// Presses until it is accepted; answers with when the accepted attempt began, and the action's id.
async fn accepted(guest: &Guest, window: &Window, action: &str) -> anyhow::Result<(Instant, String)> {
    let start = Instant::now();
    loop {
        let pressed = Instant::now();
        let pause = match guest.pressing(window, action).send().await {
            Ok(reply) if reply.code() == 202 => return Ok((pressed, reply.at("/id"))),
            Ok(reply) if matches!(reply.code(), 429 | 503) && start.elapsed() < PATIENCE => {
                let seconds = reply.header("retry-after").and_then(|text| text.parse().ok());
                Duration::from_secs(seconds.unwrap_or(1))
            }
            Ok(reply) => bail!(reply.unexpected("202")),
            Err(_) if start.elapsed() < PATIENCE => Duration::from_millis(200),
            Err(error) => bail!(error),
        };
        tokio::time::sleep(pause).await;
    }
}

impl Watched {
    /// Waits until the stream shows the action with this id, once; answers with when it came.
    async fn shows(&mut self, id: &str, action: &str) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self
                .stream
                .next(left)
                .await
                .with_context(|| {
                    format!(
                        "expected `{action}` ({id}) on the stream, came {}",
                        self.excuses()
                    )
                })?
                .with_context(|| format!("expected `{action}` ({id}), the stream is over"))?;
            match event.event.as_str() {
                "chat.action" => {
                    let data = event.json();
                    let came = data["id"].as_str().unwrap_or_default().to_owned();
                    ensure!(
                        self.seen.insert(came.clone()),
                        "expected each action once, came twice: {data}"
                    );
                    if came == id {
                        ensure!(data["action"] == action, "expected `{action}`, came {data}");
                        return Ok(event.at);
                    }
                }
                "reset" => self.resets.push(event.data),
                "drain" | "token-expiring" => {}
                other => bail!("expected `{action}`, came `{other}` {}", event.data),
            }
        }
    }

    fn excuses(&self) -> String {
        if self.resets.is_empty() {
            "nothing".to_owned()
        } else {
            format!("`reset` {}", self.resets.join(", "))
        }
    }
}

fn spoken_list(durations: &[Duration]) -> String {
    durations
        .iter()
        .map(|one| spoken(*one))
        .collect::<Vec<_>>()
        .join(" and ")
}

fn shown(lag: Option<f64>) -> String {
    lag.map_or_else(
        || "(loads it at first use)".to_owned(),
        |lag| format!("{lag:.1} ms"),
    )
}
