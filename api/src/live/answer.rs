//! Server-Sent Events: the body of an event stream, and what every stream has in common.
//!
//! A stream is polled by its connection, like any body. Each poll puts the pending events, up to a limit, into one
//! write. The rest stays in its source (a ring, PostgreSQL), because streams have no queues. While the client does not
//! read, hyper does not poll, so a slow client uses nothing but its permit.
//!
//! The first event of a stream is its `position`: a client that is disconnected before any other event resumes from
//! there. Its id is sent with data because many clients ignore an id without data. Only events are followed by an empty
//! line, because many clients dispatch an event without data there.
//!
//! A native `EventSource` stops forever at any status but 200. So a temporary failure is sent to browsers as a 200
//! response that contains the time until the next attempt and ends ([`retry_later`]). Programs receive the problem.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use atrium_shared::{
    clock,
    ids::{OrgId, ProjectId},
    messages::LiveEvent,
    telemetry::metrics::{SSE_EVENTS, SSE_RESETS},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::body::Frame;
use metrics::counter;
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    frame::{Batch, frame},
    open_streams::{OpenStreams, Registration, StreamKind},
    ring::ResetReason,
};
use crate::{
    http::{
        caller::Credential,
        problem::{Code, FieldError, Problem},
        request::Request,
        response::{self, Body, Response},
        schema::{Component, component, event_component},
    },
    limits::streams::StreamPermit,
};

/// Longer than any id that this API sends; a longer one is not parsed.
const MAX_EVENT_ID: usize = 128;
/// Stands for a header that is no id.
const UNKNOWN_ID: &str = "?";
/// How long clients wait before they reconnect, milliseconds. The value is random for each client, so that the clients
/// of one process do not all reconnect at the same moment after it stops.
const RETRY_MS: std::ops::Range<u64> = 1_000..4_000;
/// How long clients wait during a drain, milliseconds. Other processes are available, and the drain already spreads
/// the reconnects.
const DRAIN_RETRY_MS: std::ops::Range<u64> = 100..1_000;
/// The query parameter for clients that reconnect by opening a new stream and cannot set the header.
const LAST_EVENT_ID: &str = "last_event_id";
/// The query parameter with the seconds between heartbeats, for clients whose read timeout is short.
const HEARTBEAT: &str = "heartbeat";
/// The values of that parameter.
const HEARTBEAT_SECONDS: std::ops::RangeInclusive<u64> = 2..=60;
/// The query parameter for heartbeats as events, which a page can see.
const PING: &str = "ping";

/// The options of a stream, from its request.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the stream resumes.
    pub resume: Resume,
    heartbeat: Option<Duration>,
    ping: bool,
}

/// Where a stream resumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// The client has seen no event: from now.
    Now,
    /// After the event with this id.
    After(String),
    /// The client sent an id that this API never sends. It has missed an unknown number of events.
    Unknown,
}

/// The parameters of [`open`].
pub struct Opening {
    /// The content of the stream.
    pub kind: StreamKind,
    /// The caller's credential; the stream ends with it.
    pub credential: Credential,
    /// The organization and possibly one of its projects that the stream is about.
    pub about: (OrgId, Option<ProjectId>),
    /// When the caller's access was checked.
    pub checked_at: Instant,
    /// The stream's place in the quota, kept while it is open.
    pub permit: StreamPermit,
    /// The client's options.
    pub options: Options,
}

/// Whether a stream continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It continues. The pending events are in the batch, as far as they fit.
    Open,
    /// It ends after the events in the batch.
    End,
}

/// The source of a stream's events.
pub trait Source: Send + Unpin + 'static {
    /// Adds the pending events to the batch. `updates` is true after a hint, when a poll is due, and at the first call.
    /// A source that adds nothing must have arranged to be woken.
    fn poll(&mut self, context: &mut Context<'_>, updates: bool, batch: &mut Batch) -> Next;

    /// Called for a heartbeat. May add an event that moves the client's position.
    fn heartbeat(&mut self, _batch: &mut Batch) {}
}

/// The body of an event stream.
pub struct EventStream<S> {
    registration: Registration,
    kind: StreamKind,
    source: S,
    _permit: StreamPermit,
    /// Whether heartbeats are events.
    ping: bool,
    started: bool,
    ended: bool,
}

impl<S: Source> EventStream<S> {
    /// The next write. Empty if nothing is pending or the stream has ended.
    fn next_batch(&mut self, context: &mut Context<'_>) -> Batch {
        let mut batch = Batch::default();
        // This registers the waker before anything is read, so that later events wake the stream again.
        let commands = self.registration.take_commands(context.waker());
        if commands.end {
            self.ended = true;
            return batch;
        }
        let first = !std::mem::replace(&mut self.started, true);
        if first {
            batch.retry(rand::random_range(RETRY_MS));
        }
        let next = self.source.poll(context, commands.updates || first, &mut batch);
        if commands.expiring {
            batch.event(&token_expiring(self.registration.stream().expires_at()));
        }
        if next == Next::End {
            self.ended = true;
        } else if commands.drain && !batch.is_full() {
            // The drain event follows all pending events; after a full batch, the next poll tries again.
            drain(&mut batch);
            self.ended = true;
        } else if commands.heartbeat && batch.is_empty() {
            self.source.heartbeat(&mut batch);
            if self.ping {
                batch.event(&event(None, &Ping { at: clock::now() }));
            } else if batch.is_empty() {
                batch.comment();
            }
        }
        batch
    }
}

impl<S: Source> hyper::body::Body for EventStream<S> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let stream = self.get_mut();
        if stream.ended {
            return Poll::Ready(None);
        }
        let batch = stream.next_batch(context);
        if batch.is_empty() {
            return if stream.ended { Poll::Ready(None) } else { Poll::Pending };
        }
        stream.registration.record_write();
        if batch.events() > 0 {
            counter!(SSE_EVENTS, "kind" => <&str>::from(stream.kind)).increment(batch.events());
        }
        Poll::Ready(Some(Ok(Frame::data(batch.into_bytes()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Responds with an event stream. While the process drains, the stream ends immediately and the client reconnects to
/// another process. `source` receives the stream's registration, so that it can be woken from the start.
///
/// # Errors
/// [`Code::Unauthenticated`] if the token has expired: other requests accept it for some seconds more, but a stream
/// would end immediately, and again after each reconnect.
pub fn open<S: Source>(
    streams: &OpenStreams,
    opening: Opening,
    source: impl FnOnce(&Registration) -> S,
) -> Result<Response, Problem> {
    let Opening { kind, credential, about, checked_at, permit, options } = opening;
    if credential.expires_at <= clock::now() {
        return Err(Problem::unauthenticated("The access token has expired; refresh it or sign in."));
    }
    if streams.is_draining() {
        let mut batch = Batch::default();
        drain(&mut batch);
        return Ok(event_stream(Body::Complete(batch.into_bytes())));
    }
    let registration = streams.register(kind, credential, about, checked_at, options.heartbeat);
    let source = source(&registration);
    Ok(event_stream(Body::stream(EventStream {
        registration,
        kind,
        source,
        _permit: permit,
        ping: options.ping,
        started: false,
        ended: false,
    })))
}

/// Turns temporary problems into a stream that ends immediately and contains the time until the next attempt, for
/// browsers. A request with `Authorization` comes from a program, which can handle the problem itself.
///
/// # Errors
/// All other problems, because a reconnect would not help, and all problems of programs.
pub fn retry_later(headers: &HeaderMap, result: Result<Response, Problem>) -> Result<Response, Problem> {
    match result {
        Err(problem)
            if !headers.contains_key(header::AUTHORIZATION)
                && matches!(problem.code(), Code::Unavailable | Code::RateLimited | Code::QuotaExceeded) =>
        {
            let code = problem.code().name();
            let cause = problem.internal_cause();
            tracing::debug!(code, cause, "a stream cannot be opened now; the client has to reconnect");
            // Not before the limit allows it, and spread at random.
            let wait = problem.retry_after_seconds().saturating_sub(1) * 1_000;
            let retry = wait + rand::random_range(RETRY_MS);
            Ok(event_stream(Body::Complete(format!(": {code}\nretry: {retry}\n").into())))
        }
        other => other,
    }
}

/// A stream of one framed event.
#[must_use]
pub fn single_event(event: &Bytes) -> Response {
    let mut batch = Batch::default();
    batch.retry(rand::random_range(RETRY_MS));
    batch.event(event);
    event_stream(Body::Complete(batch.into_bytes()))
}

/// 204, the only response that stops a native `EventSource` from reconnecting without being an error.
#[must_use]
pub fn no_content() -> Response {
    response::empty(StatusCode::NO_CONTENT)
}

fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // Proxies that support nginx's header would otherwise wait for a full buffer.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// The options of a stream. The header `Last-Event-ID` has precedence over the query parameter, because a native
/// `EventSource` that reconnects sends the header together with the query of its first connection. An id that no stream
/// of this API has is no error, because a client would repeat it forever.
///
/// # Errors
/// [`Code::ValidationFailed`] for an unknown query parameter or a wrong value of one.
pub fn options(request: &Request) -> Result<Options, Problem> {
    let query = request.query(&[LAST_EVENT_ID, HEARTBEAT, PING])?;
    let mut errors = Vec::new();
    let heartbeat = query.get(HEARTBEAT).map(|text| {
        let seconds = text.parse().ok().filter(|seconds| HEARTBEAT_SECONDS.contains(seconds));
        seconds.unwrap_or_else(|| {
            let (min, max) = (HEARTBEAT_SECONDS.start(), HEARTBEAT_SECONDS.end());
            errors.push(FieldError::parameter(HEARTBEAT, format!("must be a number from {min} to {max}")));
            0
        })
    });
    let ping = match query.get(PING) {
        None | Some("0") => false,
        Some("1") => true,
        Some(_) => {
            errors.push(FieldError::parameter(PING, "must be 0 or 1"));
            false
        }
    };
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let mut headers = request.headers.get_all("last-event-id").iter();
    let id = match (headers.next(), headers.next()) {
        (Some(id), None) => Some(id.to_str().unwrap_or(UNKNOWN_ID)),
        (Some(_), Some(_)) => Some(UNKNOWN_ID),
        (None, _) => query.get(LAST_EVENT_ID),
    };
    let resume = match id {
        Some("") | None => Resume::Now,
        Some(id) if id.len() > MAX_EVENT_ID => Resume::Unknown,
        Some(id) => Resume::After(id.to_owned()),
    };
    Ok(Options { resume, heartbeat: heartbeat.map(Duration::from_secs), ping })
}

impl Resume {
    /// The number of the event after which a stream with numbered events resumes. `None` for an id that such a stream
    /// never sends: only the exact form of a number is valid.
    #[must_use]
    pub fn number(&self) -> Option<Option<i64>> {
        match self {
            Self::Now => Some(None),
            Self::After(id) => {
                let number =
                    id.parse().ok().filter(|number: &i64| *number >= 0 && number.to_string() == *id)?;
                Some(Some(number))
            }
            Self::Unknown => None,
        }
    }
}

/// Frames an event, with JSON as its data.
pub fn event<E: LiveEvent>(id: Option<&dyn std::fmt::Display>, event: &E) -> Bytes {
    // Events contain only strings and numbers, so serializing them cannot fail.
    frame(id, E::NAME, &serde_json::to_string(event).unwrap_or_default())
}

/// Frames an event that moves the client's position, or starts a stream without one if the position is unknown.
pub fn position(id: Option<&dyn std::fmt::Display>) -> Bytes {
    event(id, &Position { at: clock::now() })
}

/// Frames the event that tells the client that it may have missed events.
pub fn reset(id: Option<&dyn std::fmt::Display>, reason: ResetReason) -> Bytes {
    counter!(SSE_RESETS, "reason" => <&str>::from(reason)).increment(1);
    event(id, &Reset { reason })
}

#[derive(Serialize, JsonSchema)]
struct Position {
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    at: OffsetDateTime,
}

impl LiveEvent for Position {
    const NAME: &'static str = "position";
}

#[derive(Serialize, JsonSchema)]
struct Ping {
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    at: OffsetDateTime,
}

impl LiveEvent for Ping {
    const NAME: &'static str = "ping";
}

/// Events may be missing: the client has to read the current state again.
#[derive(Serialize, JsonSchema)]
struct Reset {
    reason: ResetReason,
}

impl LiveEvent for Reset {
    const NAME: &'static str = "reset";
}

#[derive(Serialize, JsonSchema)]
struct Drain {
    retry_ms: u64,
}

impl LiveEvent for Drain {
    const NAME: &'static str = "drain";
}

#[derive(Serialize, JsonSchema)]
struct TokenExpiring {
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    expires_at: OffsetDateTime,
}

impl LiveEvent for TokenExpiring {
    const NAME: &'static str = "token-expiring";
}

/// The events that this module sends, for the test of the API description.
pub(crate) fn components() -> Vec<Component> {
    vec![
        event_component::<Position>("PositionEvent"),
        event_component::<Ping>("PingEvent"),
        component::<ResetReason>("ResetReason"),
        event_component::<Reset>("ResetEvent"),
        event_component::<Drain>("DrainEvent"),
        event_component::<TokenExpiring>("TokenExpiringEvent"),
    ]
}

/// Announces the end of the stream, and when to reconnect: in the event, and for the client itself.
fn drain(batch: &mut Batch) {
    let retry_ms = rand::random_range(DRAIN_RETRY_MS);
    batch.retry(retry_ms);
    batch.event(&event(None, &Drain { retry_ms }));
}

fn token_expiring(expires_at: OffsetDateTime) -> Bytes {
    event(None, &TokenExpiring { expires_at })
}

#[cfg(test)]
mod tests {
    use super::Resume;

    #[test]
    fn numeric_ids_are_accepted_only_in_canonical_form() {
        let number = |id: &str| Resume::After(id.to_owned()).number();
        assert_eq!(Resume::Now.number(), Some(None));
        assert_eq!(Resume::Unknown.number(), None);
        assert_eq!(number("42"), Some(Some(42)));
        assert_eq!(number("0"), Some(Some(0)));
        for wrong in ["-1", "+1", "01", "7.0", "", " 1", "7 ", "9223372036854775808", "abc-1-0"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
