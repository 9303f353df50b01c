//! A small HTTP client for loopback: JSON, a bearer token or cookies, Server-Sent Events.
//!
//! Seed, tour and all integration tests talk to Atrium through it. A client that carries a [`Contract`] holds every
//! answer that passes through it against the OpenAPI file and panics when they differ: whoever tests anything tests
//! the contract too.

mod cookies;
mod events;
mod follow;
mod reply;
mod request;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::Full;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub use events::{EventStream, StreamError};
pub use follow::Follower;
pub use reply::{Reply, Unexpected};
pub use request::{ClientError, Request};
pub use sse::{Event, Parser};

use crate::contract::Contract;
use cookies::CookieJar;

/// Talks to one server. Clones share their connections; each has its own identity.
#[derive(Clone)]
pub struct Client {
    base: String,
    pool: Pool<HttpConnector, Full<Bytes>>,
    contract: Option<Arc<Contract>>,
    token: Option<String>,
    cookies: Option<CookieJar>,
}

impl Client {
    /// A client without identity for `http://host:port`.
    #[must_use]
    pub fn new(base: impl Into<String>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(10))
            .build(connector);
        let mut base = base.into();
        base.truncate(base.trim_end_matches('/').len());
        Self { base, pool, contract: None, token: None, cookies: None }
    }

    /// The same client, which holds every answer against the contract.
    #[must_use]
    pub fn with_contract(mut self, contract: Arc<Contract>) -> Self {
        self.contract = Some(contract);
        self
    }

    /// A client like this one that sends a bearer token.
    #[must_use]
    pub fn bearer(&self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), cookies: None, ..self.clone() }
    }

    /// A client like this one that keeps cookies, as a browser does, in a jar of its own.
    #[must_use]
    pub fn with_cookies(&self) -> Self {
        Self { token: None, cookies: Some(CookieJar::default()), ..self.clone() }
    }

    /// A client like this one without identity.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        Self { token: None, cookies: None, ..self.clone() }
    }

    /// A client of the same identity for another server (a second process of the same deployment).
    #[must_use]
    pub fn at(&self, base: impl Into<String>) -> Self {
        Self { base: base.into().trim_end_matches('/').to_owned(), ..self.clone() }
    }

    /// The server's address.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The bearer token, if there is one.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Any request; `path` begins with `/`.
    pub fn request(&self, method: Method, path: impl Into<String>) -> Request {
        Request::new(self.clone(), method, path.into())
    }

    /// `GET`.
    pub fn get(&self, path: impl Into<String>) -> Request {
        self.request(Method::GET, path)
    }

    /// `POST`.
    pub fn post(&self, path: impl Into<String>) -> Request {
        self.request(Method::POST, path)
    }

    /// `PUT`.
    pub fn put(&self, path: impl Into<String>) -> Request {
        self.request(Method::PUT, path)
    }

    /// `PATCH`.
    pub fn patch(&self, path: impl Into<String>) -> Request {
        self.request(Method::PATCH, path)
    }

    /// `DELETE`.
    pub fn delete(&self, path: impl Into<String>) -> Request {
        self.request(Method::DELETE, path)
    }

    /// Opens a stream of events, after `last_event_id` if there is one.
    ///
    /// # Errors
    /// When the server cannot be reached, or answers with anything but a stream.
    pub async fn events(&self, path: &str, last_event_id: Option<&str>) -> Result<EventStream, StreamError> {
        self.get(path).last_event_id(last_event_id).events().await
    }

    /// A stream of events that connects again by itself, as a browser's `EventSource` does.
    #[must_use]
    pub fn follow(&self, path: impl Into<String>) -> Follower {
        Follower::new(self.clone(), path.into())
    }
}
