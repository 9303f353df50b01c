//! The actions of simulated users in a round, and their results: which requests were accepted, rejected, or never
//! answered.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use atrium_contract::Reply;
use atrium_harness::client::Client;
use atrium_harness::guest::{Guest, Window};
use serde_json::json;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::deployment::Deployment;
use crate::plan::Plan;

/// How long a user repeats a request that has to be answered: longer than every fault and the recovery from it.
const TIMEOUT: Duration = Duration::from_secs(90);
/// How long a user waits for one answer before the next attempt.
const ANSWER: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(150);
/// The action that is pressed.
const ACTION: &str = "ready";
/// The configuration key that is changed.
const KEY: &str = "limits.chat_actions_per_second";
/// Values are between this and twice as much, so that no limit is reached.
const LOWEST: u32 = 500;

/// An organization that is used for several rounds, with a project, an owner who presses actions, and a member who
/// opens and closes chat windows.
pub(crate) struct Tenant {
    pub(crate) org: Uuid,
    pub(crate) project: Uuid,
    owner: Guest,
    window: Window,
    visitor: Guest,
    since: Instant,
    next_value: u32,
}

/// What the users know after the round.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) created: Vec<Created>,
    pub(crate) presses: Vec<Press>,
    /// Sessions that were closed for newer ones.
    pub(crate) closed: Vec<String>,
    /// The last value that was set, if any.
    pub(crate) value: Option<u32>,
    pub(crate) poison: Option<Uuid>,
    pub(crate) deleted: Option<Uuid>,
}

/// An organization that was accepted.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    pub(crate) name: String,
    pub(crate) org: Uuid,
    pub(crate) operation: Uuid,
    /// Whether its deadline was brought forward.
    pub(crate) early_deadline: bool,
}

/// An action that was pressed once.
#[derive(Clone, Debug)]
pub(crate) struct Press {
    pub(crate) sent: Instant,
    /// Its id, if it was accepted; `None` when the outcome is unknown.
    pub(crate) id: Option<String>,
}

impl Tenant {
    /// Creates the organization, while everything is healthy.
    pub(crate) async fn create(client: &Client) -> anyhow::Result<Self> {
        let owner = Guest::sign_in(client).await?;
        let mut attempts = 0;
        let org = loop {
            match owner.organization("Tenant").await {
                Ok(org) => break org,
                // A process may still apply the drill of the round before.
                Err(_) if attempts < 3 => attempts += 1,
                Err(error) => return Err(error),
            }
        };
        let project = owner.project(&org, "Rocket").await?;
        let visitor = owner.invite_guest(&org, "member").await?;
        let window = owner.open_chat(&org, &project).await?;
        Ok(Self {
            org: org.parse()?,
            project: project.parse()?,
            owner,
            window,
            visitor,
            since: Instant::now(),
            next_value: 1,
        })
    }

    /// Whether the token may expire before the next round ends.
    pub(crate) fn is_old(&self) -> bool {
        self.since.elapsed() > Duration::from_secs(6 * 60)
    }

    /// Everything in a round, at the same time. Users press actions until `healed`, and a little longer.
    pub(crate) async fn run(
        &mut self,
        plan: &Plan,
        deployment: &Deployment,
        deletable: Option<&Created>,
        healed: &CancellationToken,
    ) -> anyhow::Result<Facts> {
        let mut facts = Facts::default();
        if plan.poison {
            facts.poison = Some(poison(&mut deployment.superuser().await?, self.org).await?);
        }
        let creations = async {
            let create = plan.creations.iter().enumerate().map(|(index, deadline)| {
                let name = format!("Round {} of {index} {}", plan.round, Uuid::new_v4().simple());
                create(&self.owner, deployment, name, *deadline)
            });
            futures_util::future::try_join_all(create).await
        };
        let (visitor, owner, window) = (&self.visitor, &self.owner, &self.window);
        let (org, project) = (self.org.to_string(), self.project.to_string());
        let first_value = self.next_value;
        let changes = async {
            let mut value = None;
            for change in 0..plan.changes {
                let next = LOWEST + (first_value + change) % LOWEST;
                configure(owner, &org, next).await?;
                value = Some(next);
            }
            anyhow::Ok(value)
        };
        let windows = async {
            let mut closed = Vec::new();
            for _ in 0..plan.windows {
                closed.extend(open_window(visitor, &org, &project).await?);
            }
            anyhow::Ok(closed)
        };
        let deletion = async {
            match deletable {
                Some(created) => delete(owner, created.org).await.map(|()| Some(created.org)),
                None => Ok(None),
            }
        };
        let presses = press(owner, window, plan.press_every, healed);
        let (created, value, closed, deleted, presses) =
            tokio::join!(creations, changes, windows, deletion, presses);
        facts.created = created.context("an organization was not accepted")?;
        facts.value = value.context("a configuration was not changed")?;
        facts.closed = closed.context("a window was not opened")?;
        facts.deleted = deleted.context("a deletion was not accepted")?;
        facts.presses = presses?;
        self.next_value += plan.changes;
        Ok(facts)
    }

    /// The value that the API applies.
    pub(crate) async fn applied_value(&self) -> anyhow::Result<u32> {
        let path = format!("/v1/orgs/{}/configs/{KEY}", self.org);
        let reply = self.owner.client.get(path).timeout(ANSWER).send().await?.expect_status(200)?;
        Ok(reply.at("/value").parse()?)
    }
}

/// Requests an organization until it is accepted, always with the same idempotency key.
async fn create(
    owner: &Guest,
    deployment: &Deployment,
    name: String,
    deadline: Option<Duration>,
) -> anyhow::Result<Created> {
    let key = Uuid::new_v4().to_string();
    let request = || owner.client.post("/v1/orgs").json(json!({ "name": name })).idempotency_key(&key);
    let reply = send_until_answered(|| request().timeout(ANSWER)).await?.expect_status(202)?;
    let created = Created {
        org: reply.at("/id").parse()?,
        operation: reply.at("/operation_id").parse()?,
        name,
        early_deadline: deadline.is_some(),
    };
    if let Some(deadline) = deadline {
        bring_deadline_forward(deployment, &created, deadline).await;
    }
    Ok(created)
}

/// Brings the deadline forward. If PostgreSQL is down at the moment, it stays as it is.
async fn bring_deadline_forward(deployment: &Deployment, created: &Created, deadline: Duration) {
    let Ok(mut superuser) = deployment.superuser().await else { return };
    let milliseconds = i64::try_from(deadline.as_millis()).unwrap_or(0);
    for statement in [
        "UPDATE sagas SET deadline_at = clock_timestamp() + $2 * interval '1 millisecond'
          WHERE id = $1 AND status IN ('PENDING', 'COMPENSATING')",
        "UPDATE outbox SET available_at = clock_timestamp() + $2 * interval '1 millisecond'
          WHERE aggregate_id = $1 AND payload->>'wake' = 'deadline' AND published_at IS NULL",
    ] {
        let _ =
            sqlx::query(statement).bind(created.operation).bind(milliseconds).execute(&mut superuser).await;
    }
}

/// Sets a value, in place of any other. A retry after a lost response finds another version, and reads the value first.
async fn configure(owner: &Guest, org: &str, value: u32) -> anyhow::Result<()> {
    let path = format!("/v1/orgs/{org}/configs/{KEY}");
    loop {
        let current =
            send_until_answered(|| owner.client.get(&path).timeout(ANSWER)).await?.expect_status(200)?;
        if current.at("/value") == value.to_string() {
            return Ok(());
        }
        let etag = current.etag().context("a configuration value has to have an entity tag")?.to_owned();
        let body = json!({ "value": value, "reason": "a round of the crash matrix" });
        let request = || owner.client.put(&path).if_match(&etag).json(body.clone()).timeout(ANSWER);
        match send_until_answered(request).await? {
            reply if reply.code() == 412 => {}
            reply => return Ok(reply.expect_status(200).map(drop)?),
        }
    }
}

/// Opens a chat window, and returns the session that was closed for it.
async fn open_window(visitor: &Guest, org: &str, project: &str) -> anyhow::Result<Option<String>> {
    let path = format!("/v1/orgs/{org}/projects/{project}/chat/sessions");
    let key = Uuid::new_v4().to_string();
    let request = || visitor.client.post(&path).idempotency_key(&key).timeout(ANSWER);
    let reply = send_until_answered(request).await?.expect_status(201)?;
    Ok(Some(reply.at("/closed_session_id")).filter(|session| !session.is_empty()))
}

async fn delete(owner: &Guest, org: Uuid) -> anyhow::Result<()> {
    let path = format!("/v1/orgs/{org}");
    let reply = send_until_answered(|| owner.client.delete(&path).timeout(ANSWER)).await?;
    // A retry finds that the deletion was requested already, or even completed.
    let requested_before = reply.at("/code") == "organization_deleting";
    ensure!([202, 404].contains(&reply.code()) || requested_before, "{}", reply.describe());
    Ok(())
}

/// Presses one action after the other, each once: a request without an answer is not repeated.
async fn press(
    owner: &Guest,
    window: &Window,
    every: Duration,
    healed: &CancellationToken,
) -> anyhow::Result<Vec<Press>> {
    let mut presses = Vec::new();
    let mut last_ones = 10;
    while last_ones > 0 {
        if healed.is_cancelled() {
            last_ones -= 1;
        }
        let sent = Instant::now();
        let answer = owner.pressing(window, ACTION).timeout(ANSWER).send().await;
        let id = match answer {
            Ok(reply) if reply.code() == 202 => Some(reply.at("/id")),
            // The stream may have accepted it all the same.
            Ok(reply) if reply.code() == 503 || reply.code() == 429 => None,
            Ok(reply) => bail!("an action was refused: {}", reply.describe()),
            Err(_) => None,
        };
        presses.push(Press { sent, id });
        tokio::time::sleep(every).await;
    }
    Ok(presses)
}

/// Adds a message that no consumer can handle.
async fn poison(superuser: &mut PgConnection, org: Uuid) -> anyhow::Result<Uuid> {
    let message = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO outbox (org_id, message_id, topic, aggregate_id, payload)
         VALUES ($1, $2, 'saga', $1, '{\"saga\": 7}')",
    )
    .bind(org)
    .bind(message)
    .execute(superuser)
    .await?;
    Ok(message)
}

/// Sends a request until there is a final answer.
async fn send_until_answered(request: impl Fn() -> atrium_harness::client::Request) -> anyhow::Result<Reply> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let answer = request().send().await;
        let last = match answer {
            Ok(reply) if reply.code() == 503 || reply.code() == 429 => reply.describe(),
            Ok(reply) if reply.problem() == "idempotency_in_flight" => reply.describe(),
            Ok(reply) => return Ok(reply),
            Err(error) => error.to_string(),
        };
        ensure!(Instant::now() < deadline, "no answer within {TIMEOUT:?}: {last}");
        tokio::time::sleep(PAUSE).await;
    }
}
