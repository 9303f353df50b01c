//! A request: built, sent, and its answer read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atrium_contract::{Contract, Reply};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::Value;

use super::cookies::CookieJar;
use super::error::{ClientError, StreamError};
use super::events::EventStream;
use super::target::Target;

/// The default time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Collects what to send; [`Request::send`] or [`Request::events`] sends it.
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    target: Target,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
    checked: bool,
}

impl Request {
    pub(super) fn new(target: Target, method: Method, path: String) -> Self {
        Self {
            target,
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

    /// Makes a create safe to repeat.
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

    /// Does not check the answer against the contract: for requests outside of it.
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
    /// When the client has a contract and the answer violates it.
    pub async fn send(self) -> Result<Reply, ClientError> {
        let (request, limit) = (self.describe(), self.timeout);
        tokio::time::timeout(limit, self.exchange())
            .await
            .unwrap_or(Err(ClientError::Timeout { request, after: limit }))
    }

    /// Sends it and reads the answer as a stream of events.
    ///
    /// # Errors
    /// When no answer came, or it is not a stream.
    ///
    /// # Panics
    /// When the client has a contract and the answer violates it.
    pub async fn events(mut self) -> Result<EventStream, StreamError> {
        self.headers.insert("accept", HeaderValue::from_static("text/event-stream"));
        let (request, limit) = (self.describe(), self.timeout);
        let start = Instant::now();
        let contract = self.contract();
        let (target, method, path) = (self.target.clone(), self.method.clone(), self.path.clone());
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
                contract.assert_head(&method, &path, response.status(), response.headers());
            }
            return Ok(EventStream::read(response, method, path, contract));
        }
        let reply = tokio::time::timeout(limit, read(&target, method, path, response, start))
            .await
            .unwrap_or(Err(ClientError::Timeout { request, after: limit }))?;
        if let Some(contract) = &contract {
            contract.assert_reply(&reply);
        }
        Err(StreamError::Refused(Box::new(reply)))
    }

    fn describe(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn contract(&self) -> Option<Arc<Contract>> {
        self.target.contract.clone().filter(|_| self.checked)
    }

    async fn exchange(self) -> Result<Reply, ClientError> {
        let start = Instant::now();
        let contract = self.contract();
        let (target, method, path) = (self.target.clone(), self.method.clone(), self.path.clone());
        let response = self.begin().await?;
        let reply = read(&target, method, path, response, start).await?;
        if let Some(contract) = contract {
            contract.assert_reply(&reply);
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
            .uri(format!("{}{}", self.target.base, self.path))
            .body(Full::new(self.body))
            .map_err(|error| failed(error.into()))?;
        let headers = request.headers_mut();
        if let Some(token) = &self.target.token {
            let value =
                HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| failed(error.into()))?;
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(cookies) = self.target.cookies.as_ref().and_then(CookieJar::header) {
            headers.insert(COOKIE, HeaderValue::try_from(cookies).map_err(|error| failed(error.into()))?);
        }
        // Headers of the caller take precedence over the identity.
        for name in self.headers.keys() {
            headers.remove(name);
        }
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        let response =
            self.target.pool.request(request).await.map_err(|error| failed(chain(&error).into()))?;
        if let Some(jar) = &self.target.cookies {
            jar.store(response.headers());
        }
        Ok(response)
    }
}

async fn read(
    target: &Target,
    method: Method,
    path: String,
    response: Response<Incoming>,
    start: Instant,
) -> Result<Reply, ClientError> {
    let (head, body) = response.into_parts();
    let body = body.collect().await.map_err(|error| ClientError::Transport {
        request: format!("{method} {}{path}", target.base),
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

/// hyper gives the cause only in the sources of its errors.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
