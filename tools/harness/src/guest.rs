//! A signed-in user of the public API, with the actions that the demo, the tour and the tests need.
//!
//! Requests are retried after a lost connection, a rate limit, or while a server restarts. Creates have an
//! `Idempotency-Key`, so a retry does not create a second one.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use atrium_contract::Reply;
use serde_json::json;

use crate::client::{Client, ClientError, Follower, Request};

/// How long requests are retried.
const TIMEOUT: Duration = Duration::from_secs(40);
/// The pause between two attempts, unless the server says otherwise.
const PAUSE: Duration = Duration::from_millis(200);

/// A signed-in guest.
#[derive(Clone)]
pub struct Guest {
    /// The id.
    pub id: String,
    /// The name that others see: `guest-0042`.
    pub name: String,
    /// A client with the guest's token.
    pub client: Client,
}

/// An organization that is being created.
#[derive(Clone, Debug)]
pub struct Creation {
    /// The organization's id.
    pub org: String,
    /// The operation's id.
    pub operation: String,
}

/// An open window of a project's chat.
#[derive(Clone, Debug)]
pub struct Window {
    /// `/v1/orgs/{org}/projects/{project}/chat`.
    pub chat: String,
    /// The session's id.
    pub session: String,
    /// The session that had to close for this one.
    pub closed: Option<String>,
}

impl Window {
    /// The path of its events.
    #[must_use]
    pub fn events(&self) -> String {
        format!("{}/sessions/{}/events", self.chat, self.session)
    }

    /// The path of its actions.
    #[must_use]
    pub fn actions(&self) -> String {
        format!("{}/sessions/{}/actions", self.chat, self.session)
    }
}

impl Guest {
    /// Signs in as a new guest.
    ///
    /// # Errors
    /// When the answer is not a sign-in.
    pub async fn sign_in(client: &Client) -> anyhow::Result<Self> {
        let client = client.anonymous();
        let reply = patiently(|| client.post("/v1/auth/guest")).await?.expect_status(201)?;
        Ok(Self {
            id: reply.at("/user/id"),
            name: reply.at("/user/name"),
            client: client.bearer(reply.at("/access_token")),
        })
    }

    /// Requests an organization; it exists when its operation has finished.
    ///
    /// # Errors
    /// If the API rejects it.
    pub async fn create_organization(&self, name: &str) -> anyhow::Result<Creation> {
        let key = new_key();
        let create = || self.client.post("/v1/orgs").json(json!({ "name": name })).idempotency_key(&key);
        let reply = patiently(create).await?.expect_status(202)?;
        Ok(Creation { org: reply.at("/id"), operation: reply.at("/operation_id") })
    }

    /// Creates an organization and waits until it exists.
    ///
    /// # Errors
    /// If the API rejects it, it fails or takes too long.
    pub async fn organization(&self, name: &str) -> anyhow::Result<String> {
        let Creation { org, operation } = self.create_organization(name).await?;
        self.committed(&operation)
            .await
            .with_context(|| format!("the organization `{name}` was not created"))?;
        Ok(org)
    }

    /// Waits until an operation is committed.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub async fn committed(&self, operation: &str) -> anyhow::Result<()> {
        let path = format!("/v1/operations/{operation}");
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let reply = patiently(|| self.client.get(&path)).await?.expect_status(200)?;
            match reply.at("/status").as_str() {
                "COMMITTED" => return Ok(()),
                "PENDING" if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => bail!("{}", reply.describe()),
            }
        }
    }

    /// Creates a single-use invitation code.
    ///
    /// # Errors
    /// If the API rejects it.
    pub async fn invite(&self, org: &str, role: &str) -> anyhow::Result<String> {
        let path = format!("/v1/orgs/{org}/invitations");
        let reply =
            patiently(|| self.client.post(&path).json(json!({ "role": role }))).await?.expect_status(201)?;
        Ok(reply.at("/code"))
    }

    /// Joins with a code.
    ///
    /// # Errors
    /// If the API rejects the code.
    pub async fn join(&self, org: &str, code: &str) -> anyhow::Result<()> {
        let join = || self.client.post("/v1/invitations/accept").json(json!({ "code": code }));
        let reply = patiently(join).await?;
        if reply.code() == 404 {
            // The code may have been used by a first attempt whose answer was lost.
            let member = patiently(|| self.client.get(format!("/v1/orgs/{org}"))).await?;
            if member.code() == 200 {
                return Ok(());
            }
        }
        reply.expect_status(200)?;
        Ok(())
    }

    /// Signs in a new guest, who joins with an invitation of this one.
    ///
    /// # Errors
    /// If the API rejects any of it.
    pub async fn invite_guest(&self, org: &str, role: &str) -> anyhow::Result<Self> {
        let code = self.invite(org, role).await?;
        let other = Self::sign_in(&self.client).await?;
        other.join(org, &code).await?;
        Ok(other)
    }

    /// Creates a project.
    ///
    /// # Errors
    /// If the API rejects it.
    pub async fn project(&self, org: &str, name: &str) -> anyhow::Result<String> {
        let (path, key) = (format!("/v1/orgs/{org}/projects"), new_key());
        let create = || self.client.post(&path).json(json!({ "name": name })).idempotency_key(&key);
        Ok(patiently(create).await?.expect_status(201)?.at("/id"))
    }

    /// Opens a window of a project's chat.
    ///
    /// # Errors
    /// If the API rejects it.
    pub async fn open_chat(&self, org: &str, project: &str) -> anyhow::Result<Window> {
        let chat = format!("/v1/orgs/{org}/projects/{project}/chat");
        let (path, key) = (format!("{chat}/sessions"), new_key());
        let reply = patiently(|| self.client.post(&path).idempotency_key(&key)).await?.expect_status(201)?;
        let closed = Some(reply.at("/closed_session_id")).filter(|id| !id.is_empty());
        Ok(Window { session: reply.at("/id"), closed, chat })
    }

    /// Follows a window's events.
    #[must_use]
    pub fn watch(&self, window: &Window) -> Follower {
        self.client.follow(window.events())
    }

    /// Presses an action and returns the id it was accepted under.
    ///
    /// # Errors
    /// If the API rejects it.
    pub async fn press(&self, window: &Window, action: &str) -> anyhow::Result<String> {
        let reply = patiently(|| self.pressing(window, action)).await?;
        Ok(reply.expect_status(202)?.at("/id"))
    }

    /// The request that presses an action.
    pub fn pressing(&self, window: &Window, action: &str) -> Request {
        self.client.post(window.actions()).json(json!({ "action": action }))
    }

    /// Sets a configuration key of an organization, in place of any other value.
    ///
    /// # Errors
    /// If the API rejects it.
    pub async fn configure(
        &self,
        org: &str,
        key: &str,
        value: serde_json::Value,
        reason: &str,
    ) -> anyhow::Result<Reply> {
        let path = format!("/v1/orgs/{org}/configs/{key}");
        loop {
            let current = patiently(|| self.client.get(&path)).await?.expect_status(200)?;
            let etag = current.etag().context("a configuration value has no entity tag")?.to_owned();
            let body = json!({ "value": value, "reason": reason });
            let reply = patiently(|| self.client.put(&path).if_match(&etag).json(body.clone())).await?;
            // Another client changed it, or a first attempt whose response was lost.
            if reply.code() != 412 {
                return Ok(reply.expect_status(200)?);
            }
        }
    }
}

/// Sends a request until there is a final answer: lost connections and requests to retry later are retried.
///
/// # Errors
/// When that takes too long.
pub async fn patiently(request: impl Fn() -> Request) -> Result<Reply, ClientError> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let result = request().send().await;
        let pause = match &result {
            Ok(reply) if reply.code() == 429 || reply.code() == 503 => {
                let seconds = reply.header("retry-after").and_then(|text| text.parse().ok());
                seconds.map_or(PAUSE, Duration::from_secs)
            }
            // The first attempt with this key has not been answered yet, or its process died.
            Ok(reply) if reply.problem() == "idempotency_in_flight" => PAUSE,
            Ok(_) => return result,
            Err(_) => PAUSE,
        };
        if Instant::now() + pause >= deadline {
            return result;
        }
        tokio::time::sleep(pause).await;
    }
}

fn new_key() -> String {
    uuid::Uuid::new_v4().to_string()
}
