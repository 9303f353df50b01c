//! A small HTTP client for loopback: JSON, a bearer token or cookies, Server-Sent Events.
//!
//! The demo, the tour and all integration tests use Atrium through it. A client with a [`Contract`] checks every answer
//! against the OpenAPI document and panics when they differ, so that every test tests the contract, too.

mod cookies;
mod error;
mod events;
mod follow;
mod request;
mod sse;
mod target;

use std::sync::Arc;

use atrium_contract::Contract;
use http::Method;

use self::cookies::CookieJar;
use self::target::Target;

pub use error::{ClientError, StreamError};
pub use events::EventStream;
pub use follow::Follower;
pub use request::Request;
pub use sse::Parser;

/// Talks to one server. Clones share their connections; each has its own identity.
#[derive(Clone)]
pub struct Client {
    target: Target,
}

impl Client {
    /// A client without identity for `http://host:port`.
    #[must_use]
    pub fn new(base: impl Into<String>) -> Self {
        Self { target: Target::new(base.into()) }
    }

    /// The same client, which checks every answer against the contract.
    #[must_use]
    pub fn with_contract(mut self, contract: Arc<Contract>) -> Self {
        self.target.contract = Some(contract);
        self
    }

    /// A client like this one that sends a bearer token.
    #[must_use]
    pub fn bearer(&self, token: impl Into<String>) -> Self {
        self.identified(Some(token.into()), None)
    }

    /// A client like this one that keeps cookies, as a browser does, in a jar of its own.
    #[must_use]
    pub fn with_cookies(&self) -> Self {
        self.identified(None, Some(CookieJar::default()))
    }

    /// A client like this one without identity.
    #[must_use]
    pub fn anonymous(&self) -> Self {
        self.identified(None, None)
    }

    /// A client of the same identity for another server (a second process of the same deployment).
    #[must_use]
    pub fn at(&self, base: impl Into<String>) -> Self {
        Self { target: self.target.at(base.into()) }
    }

    /// The server's address.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.target.base
    }

    /// The bearer token, if there is one.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.target.token.as_deref()
    }

    /// Any request; `path` begins with `/`.
    pub fn request(&self, method: Method, path: impl Into<String>) -> Request {
        Request::new(self.target.clone(), method, path.into())
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
        Follower::new(self.target.clone(), path.into())
    }

    fn identified(&self, token: Option<String>, cookies: Option<CookieJar>) -> Self {
        Self { target: Target { token, cookies, ..self.target.clone() } }
    }
}
