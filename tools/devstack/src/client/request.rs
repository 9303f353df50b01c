//! A request on its way.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::Value;

use super::events::{EventStream, StreamError};
use super::{Client, Reply};

/// No request of a test is worth waiting longer for.
const TIMEOUT: Duration = Duration::from_secs(30);

/// No answer came.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server cannot be reached, or went away in the middle.
    #[error("{request}: {source}")]
    Transport {
        /// Method and path.
        request: String,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{request}: no answer within {after:?}")]
    Timeout {
        /// Method and path.
        request: String,
        /// How long it was waited for.
        after: Duration,
    },
}

/// Collects what to send; [`Request::send`] or [`Request::events`] sends it.
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    client: Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
    checked: bool,
}

impl Request {
    pub(super) fn new(client: Client, method: Method, path: String) -> Self {
        Self {
            client,
            method,
            path,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: TIMEOUT,
            checked: true,
        }
    }

    /// Sends this JSON value.
    #[expect(clippy::needless_pass_by_value, reason = "callers write json!({…}) in place")]
    pub fn json(self, value: Value) -> Self {
        self.body("application/json", value.to_string())
    }

    /// Sends this body.
    pub fn body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        self.body = body.into();
        self
    }

    /// Adds a header.
    ///
    /// # Panics
    /// When HTTP does not allow it.
    #[track_caller]
    pub fn header(mut self, name: &'static str, value: impl AsRef<[u8]>) -> Self {
        let value = HeaderValue::from_bytes(value.as_ref()).expect("HTTP allows the value in a header");
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    /// Makes a create repeatable.
    pub fn idempotency_key(self, key: impl AsRef<[u8]>) -> Self {
        self.header("idempotency-key", key)
    }

    /// Changes only this version (an entity tag with its quotes).
    pub fn if_match(self, etag: impl AsRef<[u8]>) -> Self {
        self.header("if-match", etag)
    }

    /// Continues a stream after this event.
    pub fn last_event_id(self, id: Option<&str>) -> Self {
        match id {
            Some(id) => self.header("last-event-id", id),
            None => self,
        }
    }

    /// Waits no longer than this for the answer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Does not hold the answer against the contract: for what is meant to be outside it.
    pub fn unchecked(mut self) -> Self {
        self.checked = false;
        self
    }

    /// Sends it and reads the answer to its end.
    ///
    /// # Errors
    /// When no answer came.
    ///
    /// # Panics
    /// When the client carries a contract and the answer breaks it.
    pub async fn send(self) -> Result<Reply, ClientError> {
        let (request, limit) = (self.describe(), self.timeout);
        tokio::time::timeout(limit, self.exchange())
            .await
            .unwrap_or(Err(ClientError::Timeout { request, after: limit }))
    }

    /// Sends it and reads the answer as a stream of events.
    ///
    /// # Errors
    /// When no answer came, or one that is no stream.
    ///
    /// # Panics
    /// When the client carries a contract and the answer breaks it.
    pub async fn events(mut self) -> Result<EventStream, StreamError> {
        self.headers.insert("accept", HeaderValue::from_static("text/event-stream"));
        let (request, limit) = (self.describe(), self.timeout);
        let start = Instant::now();
        let contract = self.contract();
        let (client, method, path) = (self.client.clone(), self.method.clone(), self.path.clone());
        let response = tokio::time::timeout(limit, self.begin())
            .await
            .unwrap_or_else(|_| Err(ClientError::Timeout { request: request.clone(), after: limit }))?;
        let is_stream = response.status() == 200
            && response
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if is_stream {
            if let Some(contract) = &contract {
                contract.insist_on_head(&method, &path, response.status(), response.headers());
            }
            return Ok(EventStream::read(response, method, path, contract));
        }
        let reply = tokio::time::timeout(limit, read(&client, method, path, response, start))
            .await
            .unwrap_or(Err(ClientError::Timeout { request, after: limit }))?;
        if let Some(contract) = &contract {
            contract.insist(&reply);
        }
        Err(StreamError::Refused(Box::new(reply)))
    }

    fn describe(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn contract(&self) -> Option<std::sync::Arc<crate::contract::Contract>> {
        self.client.contract.clone().filter(|_| self.checked)
    }

    async fn exchange(self) -> Result<Reply, ClientError> {
        let start = Instant::now();
        let contract = self.contract();
        let (client, method, path) = (self.client.clone(), self.method.clone(), self.path.clone());
        let response = self.begin().await?;
        let reply = read(&client, method, path, response, start).await?;
        if let Some(contract) = contract {
            contract.insist(&reply);
        }
        Ok(reply)
    }

    async fn begin(self) -> Result<Response<Incoming>, ClientError> {
        let name = self.describe();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Transport {
            request: name.clone(),
            source,
        };
        let mut request = http::Request::builder()
            .method(self.method)
            .uri(format!("{}{}", self.client.base, self.path))
            .body(Full::new(self.body))
            .map_err(|error| failed(error.into()))?;
        let headers = request.headers_mut();
        if let Some(token) = &self.client.token {
            let value =
                HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| failed(error.into()))?;
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(cookies) = self.client.cookies.as_ref().and_then(super::cookies::CookieJar::header) {
            headers.insert(COOKIE, HeaderValue::try_from(cookies).map_err(|error| failed(error.into()))?);
        }
        // What the caller sets wins over the identity.
        for name in self.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        let response =
            self.client.pool.request(request).await.map_err(|error| failed(chain(&error).into()))?;
        if let Some(jar) = &self.client.cookies {
            jar.absorb(response.headers());
        }
        Ok(response)
    }
}

async fn read(
    client: &Client,
    method: Method,
    path: String,
    response: Response<Incoming>,
    start: Instant,
) -> Result<Reply, ClientError> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| ClientError::Transport {
        request: format!("{method} {}{path}", client.base),
        source: error.into(),
    })?;
    Ok(Reply {
        method,
        path,
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
        took: start.elapsed(),
    })
}

/// hyper says what went wrong in the sources of its errors.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
