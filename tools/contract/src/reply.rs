//! A complete answer, and what tests expect of it.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

/// An answer, with the request's method and path.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The request's method.
    pub method: Method,
    /// The request's path.
    pub path: String,
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// From sending the request to the end of the answer.
    pub took: Duration,
}

/// Another answer than the expected one.
#[derive(Debug, thiserror::Error)]
#[error("{request}: expected {expected}, got {got}")]
pub struct Unexpected {
    request: String,
    expected: String,
    got: String,
}

impl Reply {
    /// The status as a number.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.status.as_u16()
    }

    /// A header as text; the first, if there are several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The entity tag, quotes included: ready for `If-Match`.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        self.header("etag")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("the body is not JSON ({error}): {}", self.describe()))
    }

    /// A text inside the JSON body, by JSON pointer (`/user/id`); empty when there is none.
    #[must_use]
    pub fn at(&self, pointer: &str) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        match body.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// The code of a problem; empty when this is not a problem.
    #[must_use]
    pub fn problem(&self) -> String {
        if self.header("content-type").is_some_and(|kind| kind.starts_with("application/problem+json")) {
            self.at("/code")
        } else {
            String::new()
        }
    }

    /// The reply itself when it has this status.
    ///
    /// # Errors
    /// Otherwise, with the answer that came instead.
    pub fn expect_status(self, status: u16) -> Result<Self, Unexpected> {
        if self.code() == status { Ok(self) } else { Err(self.unexpected(&status.to_string())) }
    }

    /// The reply itself when it is this problem.
    ///
    /// # Errors
    /// Otherwise, with the answer that came instead.
    pub fn expect_problem(self, status: u16, code: &str) -> Result<Self, Unexpected> {
        if self.code() == status && self.problem() == code {
            Ok(self)
        } else {
            Err(self.unexpected(&format!("{status} {code}")))
        }
    }

    /// The reply itself when it has this status; for tests.
    ///
    /// # Panics
    /// Otherwise, with the answer that came instead.
    #[must_use]
    #[track_caller]
    pub fn must(self, status: u16) -> Self {
        self.expect_status(status).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The reply itself when it is this problem; for tests.
    ///
    /// # Panics
    /// Otherwise, with the answer that came instead.
    #[must_use]
    #[track_caller]
    pub fn must_be(self, status: u16, code: &str) -> Self {
        self.expect_problem(status, code).unwrap_or_else(|error| panic!("{error}"))
    }

    /// An error that says what was expected instead.
    #[must_use]
    pub fn unexpected(&self, expected: &str) -> Unexpected {
        Unexpected {
            request: format!("{} {}", self.method, self.path),
            expected: expected.to_owned(),
            got: self.shown(),
        }
    }

    /// Request and answer on a few lines.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} {} → {}", self.method, self.path, self.shown())
    }

    fn shown(&self) -> String {
        const SHOWN: usize = 2000;
        let mut text = self.status.to_string();
        if !self.body.is_empty() {
            let body = self.text();
            let end = body.char_indices().nth(SHOWN).map_or(body.len(), |(at, _)| at);
            let _ = write!(text, " {}", &body[..end]);
            if end < body.len() {
                text.push('…');
            }
        }
        text
    }
}
