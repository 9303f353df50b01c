//! The server that a request is sent to, the connections, and the identity.

use std::sync::Arc;
use std::time::Duration;

use atrium_contract::Contract;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::cookies::CookieJar;

/// A server and an identity. Clones share their connections.
#[derive(Clone)]
pub(super) struct Target {
    /// `http://host:port`, without a slash at its end.
    pub(super) base: String,
    pub(super) pool: Pool<HttpConnector, Full<Bytes>>,
    /// What answers are checked against, if anything.
    pub(super) contract: Option<Arc<Contract>>,
    pub(super) token: Option<String>,
    pub(super) cookies: Option<CookieJar>,
}

impl Target {
    pub(super) fn new(base: String) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(10))
            .build(connector);
        Self { base: trimmed(base), pool, contract: None, token: None, cookies: None }
    }

    /// The same identity on another server.
    pub(super) fn at(&self, base: String) -> Self {
        Self { base: trimmed(base), ..self.clone() }
    }
}

fn trimmed(mut base: String) -> String {
    base.truncate(base.trim_end_matches('/').len());
    base
}
