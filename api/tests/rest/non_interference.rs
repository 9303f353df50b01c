//! Non-interference: the responses to one tenant are the same, byte for byte, whether or not another tenant exists and
//! is busy. Ids, times and secrets are replaced by the order in which they first appear.
//!
//! The requests are drawn from a seed; `WALL_SEED` sets it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use atrium_contract::Reply;
use atrium_harness::{Atrium, client::Request, guest::Guest};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use uuid::Uuid;

use crate::{CheckedSend as _, PATIENCE};

/// The number of random requests of the observed tenant, after its setup.
const RANDOM_REQUESTS: usize = 150;
/// The least number of requests that the other tenant must send meanwhile.
const MIN_NEIGHBOR_REQUESTS: usize = 100;

/// Ids of the other tenant's resources. Without another tenant, they are random.
struct ForeignIds {
    org: String,
    project: String,
    session: String,
    operation: String,
    user: String,
}

impl ForeignIds {
    fn unknown() -> Self {
        let id = || Uuid::now_v7().to_string();
        Self { org: id(), project: id(), session: id(), operation: id(), user: id() }
    }
}

#[tokio::test]
async fn a_tenants_responses_do_not_depend_on_another_tenant() {
    let seed = std::env::var("WALL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);

    let atrium = Atrium::start().await;
    let alone = transcript(&atrium.guest().await, &ForeignIds::unknown(), seed).await;
    drop(atrium);

    let atrium = Atrium::start().await;
    let observed = atrium.guest().await;
    let (neighbor, foreign) = create_neighbor(&atrium).await;
    let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let busy =
        tokio::spawn(keep_busy(neighbor, foreign.org.clone(), Arc::clone(&stop), Arc::clone(&requests)));
    let with_neighbor = transcript(&observed, &foreign, seed).await;
    stop.store(true, Ordering::Relaxed);
    busy.await.expect("the other tenant was well");
    let requests = requests.load(Ordering::Relaxed);
    assert!(requests > MIN_NEIGHBOR_REQUESTS, "the other tenant sent only {requests} requests");

    for (number, (alone, with_neighbor)) in alone.iter().zip(&with_neighbor).enumerate() {
        assert_eq!(
            alone, with_neighbor,
            "response {number} differs; WALL_SEED={seed} repeats these requests"
        );
    }
    assert_eq!(alone.len(), with_neighbor.len(), "WALL_SEED={seed}");
}

/// Creates another tenant with one resource of each kind.
async fn create_neighbor(atrium: &Atrium) -> (Guest, ForeignIds) {
    let neighbor = atrium.guest().await;
    let operation = neighbor.create_organization("Aurora").await.unwrap().operation;
    let org = neighbor.organization("Aurora").await.unwrap();
    let project = neighbor.project(&org, "Lantern").await.unwrap();
    let session = neighbor.open_chat(&org, &project).await.unwrap().session;
    let user = neighbor.id.clone();
    (neighbor, ForeignIds { org, project, session, operation, user })
}

/// Uses every feature as the other tenant, with the same names, until `stop` is set.
async fn keep_busy(neighbor: Guest, org: String, stop: Arc<AtomicBool>, requests: Arc<AtomicUsize>) {
    let client = &neighbor.client;
    let count = || requests.fetch_add(1, Ordering::Relaxed);
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let project = neighbor.project(&org, "Lantern").await.unwrap();
        let window = neighbor.open_chat(&org, &project).await.unwrap();
        for action in ["ready", "blocked", "deployed"] {
            neighbor.press(&window, action).await.unwrap();
            count();
        }
        neighbor.configure(&org, "chat.max_active_sessions", json!(round % 5 + 1), "busy").await.unwrap();
        neighbor.invite_guest(&org, "member").await.unwrap();
        client.get(format!("/v1/orgs/{org}/projects")).answers(200).await;
        client.delete(format!("/v1/orgs/{org}/projects/{project}")).answers(204).await;
        if round % 10 == 0 {
            neighbor.create_organization("Aurora").await.unwrap();
        }
        (0..7).for_each(|_| _ = count());
    }
}

/// The observed tenant's state, as far as its next requests depend on it.
struct Script {
    random: StdRng,
    org: String,
    /// Project id, and the number of actions that were accepted in it.
    projects: Vec<(String, u64)>,
    sessions: Vec<(usize, String)>,
    invitations: Vec<String>,
    names: Names,
    transcript_lines: Vec<String>,
}

async fn transcript(observed: &Guest, foreign: &ForeignIds, seed: u64) -> Vec<String> {
    let org = observed.organization("Aurora").await.unwrap();
    let mut script = Script {
        random: StdRng::seed_from_u64(seed),
        org,
        projects: Vec::new(),
        sessions: Vec::new(),
        invitations: Vec::new(),
        names: Names::default(),
        transcript_lines: Vec::new(),
    };
    for path in ["/v1/auth/me", "/v1/orgs"] {
        script.record(observed.client.get(path)).await;
    }
    script.make_project(observed).await;
    for _ in 0..RANDOM_REQUESTS {
        script.step(observed, foreign).await;
    }
    script.transcript_lines
}

impl Script {
    /// Sends a request and appends its response to the transcript.
    async fn record(&mut self, request: Request) -> Reply {
        let reply = request.send().await.unwrap();
        let mut headers: Vec<_> = reply
            .headers
            .iter()
            // `content-length` varies with the length of times. The body itself is compared.
            .filter(|(name, _)| {
                !["date", "x-request-id", "ratelimit", "content-length"].contains(&name.as_str())
            })
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        headers.sort();
        let text = reply.text().replace(reply.header("x-request-id").unwrap_or("-"), "the request");
        let line =
            format!("{} {}\n{} {}\n{text}", reply.method, reply.path, reply.code(), headers.join("\n"));
        self.transcript_lines.push(self.names.normalize(&line));
        reply
    }

    fn pick(&mut self, of: usize) -> usize {
        self.random.random_range(0..of)
    }

    async fn make_project(&mut self, observed: &Guest) {
        let name = format!("Lantern {}", self.pick(3));
        let path = format!("/v1/orgs/{}/projects", self.org);
        let reply = self.record(observed.client.post(path).json(json!({ "name": name }))).await;
        self.projects.push((reply.at("/id"), 0));
    }

    async fn step(&mut self, observed: &Guest, foreign: &ForeignIds) {
        let client = &observed.client;
        let org = format!("/v1/orgs/{}", self.org);
        let index = self.pick(self.projects.len());
        let project = format!("{org}/projects/{}", self.projects[index].0);
        match self.pick(20) {
            0 => self.make_project(observed).await,
            1 => _ = self.record(client.get(format!("{org}/projects?limit={}", 1 + index))).await,
            2 => {
                let etag = self.record(client.get(&project)).await.etag().unwrap().to_owned();
                let name = format!("Lantern {}", self.pick(9));
                self.record(client.patch(&project).if_match(etag).json(json!({ "name": name }))).await;
            }
            3 if self.projects.len() > 1 => {
                self.record(client.delete(&project)).await;
                self.projects.remove(index);
                self.sessions.retain(|(of, _)| *of != index);
                self.sessions.iter_mut().filter(|(of, _)| *of > index).for_each(|(of, _)| *of -= 1);
            }
            4 => {
                let path = format!("{project}/chat/sessions");
                let reply = self.record(client.post(path)).await;
                let closed = reply.at("/closed_session_id");
                self.sessions.retain(|(_, session)| *session != closed);
                self.sessions.push((index, reply.at("/id")));
            }
            5..=7 if !self.sessions.is_empty() => {
                let at = self.pick(self.sessions.len());
                let (of, session) = self.sessions[at].clone();
                let chat = format!("{org}/projects/{}/chat", self.projects[of].0);
                let action = ["ready", "blocked", "nonsense"][self.pick(3)];
                let path = format!("{chat}/sessions/{session}/actions");
                let reply = self.record(client.post(path).json(json!({ "action": action }))).await;
                self.projects[of].1 += u64::from(reply.code() == 202);
                self.wait_until_counted(observed, of).await;
                self.record(client.get(format!("{chat}/counters"))).await;
            }
            8 => {
                let invite = client.post(format!("{org}/invitations")).json(json!({ "role": "viewer" }));
                let invitation = self.record(invite).await.at("/id");
                self.invitations.push(invitation);
            }
            9 if !self.invitations.is_empty() => {
                let at = self.pick(self.invitations.len());
                let invitation = self.invitations.remove(at);
                self.record(client.delete(format!("{org}/invitations/{invitation}"))).await;
            }
            10 => {
                let path = [&org, &project][self.pick(2)].clone() + "/configs/chat.max_active_sessions";
                let etag = self.record(client.get(&path)).await.etag().unwrap().to_owned();
                // 7 is allowed, -7 is not.
                let value = [json!(2), json!(7), json!(-7)][self.pick(3)].clone();
                let change = json!({ "value": value, "reason": "because" });
                self.record(client.put(&path).if_match(etag).json(change)).await;
                self.record(client.get(format!("{path}/explain"))).await;
            }
            11 => {
                _ = self.record(client.get(format!("{org}/configs/chat.max_active_sessions/history"))).await;
            }
            12 => _ = self.record(client.get(format!("{org}/configs"))).await,
            13 => _ = self.record(client.get(format!("{org}/members"))).await,
            14 => _ = self.record(client.get("/v1/orgs")).await,
            15 => {
                let etag = self.record(client.get(&org)).await.etag().unwrap().to_owned();
                let name = format!("Aurora {}", self.pick(9));
                self.record(client.patch(&org).if_match(etag).json(json!({ "name": name }))).await;
            }
            _ => self.request_foreign(observed, foreign, &org).await,
        }
    }

    /// Requests one of the other tenant's resources; the response must be 404.
    async fn request_foreign(&mut self, observed: &Guest, foreign: &ForeignIds, org: &str) {
        let client = &observed.client;
        let ForeignIds { org: their_org, project, session, operation, user } = foreign;
        let name = json!({ "name": "ours now" });
        let request = match self.pick(14) {
            0 => client.get(format!("/v1/orgs/{their_org}")),
            1 => client.patch(format!("/v1/orgs/{their_org}")).if_match("\"1\"").json(name),
            2 => client.get(format!("/v1/orgs/{their_org}/projects/{project}")),
            3 => client.get(format!("{org}/projects/{project}")),
            4 => client.delete(format!("{org}/projects/{project}")),
            5 => client.patch(format!("{org}/projects/{project}")).if_match("\"1\"").json(name),
            6 => client.post(format!("{org}/projects/{project}/chat/sessions")),
            7 => client
                .post(format!("{org}/projects/{project}/chat/sessions/{session}/actions"))
                .json(json!({ "action": "ready" })),
            8 => client.delete(format!("{org}/projects/{project}/chat/sessions/{session}")),
            9 => client.get(format!("/v1/operations/{operation}")),
            10 => client.get(format!("{org}/projects/{project}/configs")),
            11 => client.get(format!("/v1/orgs/{their_org}/members")),
            12 => client.delete(format!("{org}/invitations/{user}")),
            _ => client.get(format!("{org}/projects/{project}/chat/counters")),
        };
        let reply = self.record(request).await;
        assert_eq!(reply.code(), 404, "{}", reply.describe());
    }

    /// Waits until the accepted actions of a project are counted, which happens asynchronously.
    async fn wait_until_counted(&self, observed: &Guest, index: usize) {
        let (project, pressed) = &self.projects[index];
        let path = format!("/v1/orgs/{}/projects/{project}/chat/counters", self.org);
        let counted = async {
            while observed.client.get(&path).send().await.unwrap().must(200).json()["total"] != *pressed {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, counted).await.expect("the actions are counted");
    }
}

/// Replacements for values that differ from run to run, by the order in which they first appear.
#[derive(Default)]
struct Names(HashMap<String, String>);

impl Names {
    fn normalize(&mut self, text: &str) -> String {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.:+".contains(c);
        let (mut normal, mut word) = (String::new(), String::new());
        for c in text.chars().chain(['\n']) {
            if is_part(c) {
                word.push(c);
            } else {
                normal.push_str(&self.name(&word));
                normal.push(c);
                word.clear();
            }
        }
        normal
    }

    fn name(&mut self, word: &str) -> String {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let stream_id =
            word.split_once('-').is_some_and(|(ms, seq)| ms.len() > 10 && digits(ms) && digits(seq));
        let kind = if word.starts_with("20") && word.contains('T') && word.ends_with('Z') {
            return "a time".to_owned();
        } else if word.parse::<Uuid>().is_ok() || stream_id {
            "id"
        } else if word.strip_prefix("guest-").is_some_and(digits) {
            "guest"
        } else if word.starts_with("aurora-") {
            "slug"
        } else if word.len() > 30 && !word.contains(':') {
            "secret"
        } else {
            return word.to_owned();
        };
        let next = self.0.len();
        self.0.entry(word.to_owned()).or_insert_with(|| format!("{kind} {next}")).clone()
    }
}
