//! Answers, and the two kinds of body they have: bytes that are all there, and a stream.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    problem::Problem,
    request_id::{RequestId, X_REQUEST_ID},
};

/// How long a client may read nothing of a response before it counts as disconnected.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer.
pub type Response = http::Response<Body>;

/// What a streaming body is to the connection: frames until it ends, or cannot go on.
pub type Stream = Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = Cut> + Send>>;

/// A body cannot continue. Its connection is closed without a regular end, so that no client takes the partial body for
/// complete.
#[derive(Debug, thiserror::Error)]
#[error("the answer cannot go on")]
pub struct Cut;

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The body of an answer.
pub enum Body {
    /// The complete body; taken when it is sent.
    Whole(Bytes),
    /// A stream of frames: Server-Sent Events, or a body that is too large for memory.
    Stream(Stream),
}

impl Body {
    /// A body of which the end is not known yet.
    pub fn stream(body: impl hyper::body::Body<Data = Bytes, Error: Into<Cut>> + Send + 'static) -> Self {
        Self::Stream(Box::pin(body.map_err(Into::into)))
    }

    /// The bytes, when they are all there.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Stream(_) => None,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Whole(Bytes::new())
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// An answer with a JSON body.
///
/// # Errors
/// When the value cannot be written as JSON, which is a defect.
pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(Problem::internal)?;
    let mut response = bytes(status, HeaderValue::from_static("application/json"), body.into());
    // Responses under /v1 are private to the caller.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// An answer with these bytes.
#[must_use]
pub fn bytes(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response {
    let mut response = Response::new(Body::Whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// An answer without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

/// The response to a rejected request.
#[must_use]
pub fn problem(problem: Problem, request_id: &RequestId) -> Response {
    let media_type = HeaderValue::from_static("application/problem+json");
    let mut response = bytes(problem.code().status(), media_type, problem.document(request_id).into());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().extend(problem.into_headers());
    response
}

/// A whole answer as HTTP/1.1 writes it, and the end of its connection: for where hyper does not write it.
#[must_use]
pub fn on_the_wire(response: &Response, id: &RequestId) -> Bytes {
    let body = response.body().whole().unwrap_or_default();
    let mut wire = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    let length = body.len().to_string();
    let more = [
        (header::CONTENT_LENGTH, length.as_bytes()),
        (header::CONNECTION, b"close"),
        (X_REQUEST_ID, id.as_str().as_bytes()),
    ];
    let headers = response.headers().iter().map(|(name, value)| (name, value.as_bytes()));
    for (name, value) in headers.chain(more.iter().map(|(name, value)| (name, *value))) {
        for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
            wire.extend_from_slice(part);
        }
    }
    wire.extend_from_slice(b"\r\n");
    wire.extend_from_slice(body);
    wire.into()
}

/// One page of a list.
#[derive(Serialize, JsonSchema)]
pub struct List<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// Where the next page begins; `null` on the last.
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use atrium_shared::db::DbError;

    use super::*;

    #[test]
    fn a_cause_is_never_sent() {
        let problem = Problem::internal("password=hunter2");
        assert_eq!(problem.internal_cause(), Some("password=hunter2"));
        let response = super::problem(problem, &RequestId::new());
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = String::from_utf8_lossy(response.body().whole().unwrap_or_default()).into_owned();
        assert!(body.contains("\"code\":\"internal\"") && !body.contains("hunter2"), "{body}");
    }

    #[test]
    fn unavailable_has_a_retry_after_header() {
        let unavailable = Problem::from(DbError::Unavailable(sqlx::Error::PoolTimedOut));
        let response = super::problem(unavailable, &RequestId::new());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
}
