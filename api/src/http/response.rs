//! Responses, and their two kinds of body: complete bytes, and a stream.

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

/// A response.
pub type Response = http::Response<Body>;

/// A streaming body: frames until it ends or fails.
pub type Stream = Pin<Box<dyn hyper::body::Body<Data = Bytes, Error = Cut> + Send>>;

/// A body failed before its end. hyper then aborts the connection, so that the client does not mistake the received
/// part for the complete body.
#[derive(Debug, thiserror::Error)]
#[error("the answer cannot go on")]
pub struct Cut;

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The body of a response.
pub enum Body {
    /// The complete body; empty once it has been sent.
    Complete(Bytes),
    /// Frames that are produced while the body is sent: Server-Sent Events, or a body too large to keep in memory.
    Stream(Stream),
}

impl Body {
    /// A streaming body.
    pub fn stream(body: impl hyper::body::Body<Data = Bytes, Error: Into<Cut>> + Send + 'static) -> Self {
        Self::Stream(Box::pin(body.map_err(Into::into)))
    }

    /// The bytes of a complete body; `None` for a stream.
    #[must_use]
    pub fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Complete(bytes) => Some(bytes),
            Self::Stream(_) => None,
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::Complete(Bytes::new())
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
            Self::Complete(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Complete(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(stream) => stream.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Complete(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Complete(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// A response with a JSON body.
///
/// # Errors
/// When the value cannot be serialized as JSON, which is a bug.
pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(Problem::internal)?;
    let mut response = bytes(status, HeaderValue::from_static("application/json"), body.into());
    // JSON under /v1 is meant for the caller only.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A response with these bytes.
#[must_use]
pub fn bytes(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response {
    let mut response = Response::new(Body::Complete(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A response without a body.
#[must_use]
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::default());
    *response.status_mut() = status;
    response
}

/// The response that reports a problem.
#[must_use]
pub fn problem(problem: Problem, request_id: &RequestId) -> Response {
    let media_type = HeaderValue::from_static("application/problem+json");
    let mut response = bytes(problem.code().status(), media_type, problem.document(request_id).into());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().extend(problem.into_headers());
    response
}

/// Encodes a complete response as HTTP/1.1, with `Connection: close`. For responses that hyper does not write.
#[must_use]
pub fn encode_http1(response: &Response, id: &RequestId) -> Bytes {
    let body = response.body().whole().unwrap_or_default();
    let mut encoded = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    let length = body.len().to_string();
    let added = [
        (header::CONTENT_LENGTH, length.as_bytes()),
        (header::CONNECTION, b"close"),
        (X_REQUEST_ID, id.as_str().as_bytes()),
    ];
    let headers = response.headers().iter().map(|(name, value)| (name, value.as_bytes()));
    for (name, value) in headers.chain(added.iter().map(|(name, value)| (name, *value))) {
        for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
            encoded.extend_from_slice(part);
        }
    }
    encoded.extend_from_slice(b"\r\n");
    encoded.extend_from_slice(body);
    encoded.into()
}

/// One page of a list.
#[derive(Serialize, JsonSchema)]
pub struct List<T> {
    /// The items of this page.
    pub items: Vec<T>,
    /// The cursor of the next page; `null` on the last page.
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use atrium_shared::db::DbError;

    use super::*;

    #[test]
    fn internal_causes_are_never_sent() {
        let problem = Problem::internal("password=hunter2");
        assert_eq!(problem.internal_cause(), Some("password=hunter2"));
        let response = super::problem(problem, &RequestId::new());
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = String::from_utf8_lossy(response.body().whole().unwrap_or_default()).into_owned();
        assert!(body.contains("\"code\":\"internal\"") && !body.contains("hunter2"), "{body}");
    }

    #[test]
    fn unavailable_responses_have_retry_after() {
        let unavailable = Problem::from(DbError::Unavailable(sqlx::Error::PoolTimedOut));
        let response = super::problem(unavailable, &RequestId::new());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(header::RETRY_AFTER));
    }
}
