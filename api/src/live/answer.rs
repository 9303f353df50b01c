//! Server-Sent Events: the body of an event stream, and what every stream has in common.
//!
//! A stream is polled by its connection, like any body. Each poll puts the pending events, up to a limit, into one
//! write. The rest stays in its source (a ring, PostgreSQL), because streams have no queues. While the client does not
//! read, hyper does not poll, so a slow client uses nothing but its permit.
//!
//! A native `EventSource` stops forever at any status but 200. So a temporary failure is sent as a 200 response that
//! contains the time until the next attempt and ends ([`try_again`]).

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use atrium_shared::{
    ids::{OrgId, ProjectId},
    messages::LiveEvent,
    telemetry::metrics::SSE_EVENTS,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
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
        problem::{Code, Problem},
        request::Request,
        response::{self, Body, Response},
        schema::{Component, event_component},
    },
    limits::streams::StreamPermit,
};

/// Longer than any id that this API sends; a longer one is rejected without parsing.
const MAX_EVENT_ID: usize = 128;
/// How long clients wait before they reconnect, milliseconds. The value is random for each client, so that the clients
/// of one process do not all reconnect at the same moment after it stops.
const RETRY_MS: std::ops::Range<u64> = 1_000..4_000;
/// How long clients wait during a drain, milliseconds. Other processes are available, and the drain already spreads
/// the reconnects.
const DRAIN_RETRY_MS: std::ops::Range<u64> = 100..1_000;
/// The query parameter for clients that reconnect by opening a new stream and cannot set the header.
pub const LAST_EVENT_ID: &str = "last_event_id";

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

    /// Adds a heartbeat to the batch. May also move the client's position.
    fn heartbeat(&mut self, batch: &mut Batch) {
        batch.comment();
    }
}

/// The body of an event stream.
pub struct EventStream<S> {
    registration: Registration,
    kind: StreamKind,
    source: S,
    _permit: StreamPermit,
    greeted: bool,
    ended: bool,
}

impl<S: Source> EventStream<S> {
    /// A stream of the source's events.
    #[must_use]
    pub fn new(registration: Registration, kind: StreamKind, source: S, permit: StreamPermit) -> Self {
        Self { registration, kind, source, _permit: permit, greeted: false, ended: false }
    }

    /// The next write. Empty if nothing is pending or the stream has ended.
    fn next_batch(&mut self, context: &mut Context<'_>) -> Batch {
        let mut batch = Batch::default();
        // This registers the waker before anything is read, so that later events wake the stream again.
        let commands = self.registration.take_commands(context.waker());
        if commands.end {
            self.ended = true;
            return batch;
        }
        let first = !std::mem::replace(&mut self.greeted, true);
        if first {
            batch.greeting(rand::random_range(RETRY_MS));
        }
        let next = self.source.poll(context, commands.updates || first, &mut batch);
        if commands.expiring {
            batch.event(&token_expiring(self.registration.stream().expires_at()));
        }
        if next == Next::End {
            self.ended = true;
        } else if commands.drain && !batch.is_full() {
            // The drain event follows all pending events; after a full batch, the next poll tries again.
            batch.event(&drain());
            self.ended = true;
        } else if commands.heartbeat && batch.is_empty() {
            self.source.heartbeat(&mut batch);
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

/// Responds with an event stream about an organization, and possibly one of its projects, to which the caller had
/// access at `checked_at`. While the process drains, the stream ends immediately and the client reconnects to another
/// process. `source` receives the stream's registration, so that it can be woken from the start. The stream keeps
/// `permit` as long as it is open.
pub fn open<S: Source>(
    streams: &OpenStreams,
    kind: StreamKind,
    credential: Credential,
    about: (OrgId, Option<ProjectId>),
    checked_at: Instant,
    permit: StreamPermit,
    source: impl FnOnce(&Registration) -> S,
) -> Response {
    if streams.is_draining() {
        let retry = rand::random_range(DRAIN_RETRY_MS);
        return event_stream(Body::Whole(
            [format!("retry: {retry}\n\n").as_bytes(), &drain()].concat().into(),
        ));
    }
    let registration = streams.register(kind, credential, about, checked_at);
    let source = source(&registration);
    event_stream(Body::stream(EventStream::new(registration, kind, source, permit)))
}

/// Turns temporary problems into a stream that ends immediately and contains the time until the next attempt.
///
/// # Errors
/// All other problems, because a reconnect would not help.
pub fn try_again(result: Result<Response, Problem>) -> Result<Response, Problem> {
    match result {
        Err(problem)
            if matches!(problem.code(), Code::Unavailable | Code::RateLimited | Code::QuotaExceeded) =>
        {
            let code = problem.code().name();
            let cause = problem.internal_cause();
            tracing::debug!(code, cause, "a stream cannot be opened now; the client comes back");
            // Not before the limit allows it, and spread at random.
            let wait = problem.retry_after_seconds().saturating_sub(1) * 1_000;
            let retry = wait + rand::random_range(RETRY_MS);
            Ok(event_stream(Body::Whole(format!(": {code}\nretry: {retry}\n\n").into())))
        }
        other => other,
    }
}

/// A stream of one framed event.
#[must_use]
pub fn once(event: &Bytes) -> Response {
    let mut batch = Batch::default();
    batch.greeting(rand::random_range(RETRY_MS));
    batch.event(event);
    event_stream(Body::Whole(batch.into_bytes()))
}

/// 204, the only response that stops a native `EventSource` from reconnecting without being an error.
#[must_use]
pub fn nothing_more() -> Response {
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

/// The id after which the client wants to resume. The header has precedence over the query parameter, because a native
/// `EventSource` that reconnects sends the header together with the query of its first connection.
///
/// # Errors
/// [`Code::LastEventIdInvalid`] if it cannot be an id of any stream.
pub fn last_event_id(request: &Request) -> Result<Option<String>, Problem> {
    let query = request.query(&[LAST_EVENT_ID])?;
    // Checked even if the header overrides it: every part of a request must be valid.
    if query.get(LAST_EVENT_ID).is_some_and(|id| id.len() > MAX_EVENT_ID) {
        return Err(last_event_id_invalid());
    }
    let mut headers = request.headers.get_all("last-event-id").iter();
    let id = match (headers.next(), headers.next()) {
        (Some(id), None) => Some(id.to_str().map_err(|_| last_event_id_invalid())?),
        (Some(_), Some(_)) => return Err(last_event_id_invalid()),
        (None, _) => query.get(LAST_EVENT_ID),
    };
    match id {
        Some(id) if id.len() > MAX_EVENT_ID => Err(last_event_id_invalid()),
        Some("") | None => Ok(None),
        Some(id) => Ok(Some(id.to_owned())),
    }
}

/// Parses an id of a stream with numbered events. Only the exact form that the API sends is valid.
///
/// # Errors
/// [`Code::LastEventIdInvalid`] for everything else.
pub fn number(id: &str) -> Result<i64, Problem> {
    id.parse()
        .ok()
        .filter(|number: &i64| *number >= 0 && number.to_string() == id)
        .ok_or_else(last_event_id_invalid)
}

/// The problem of an id that does not belong to this stream.
#[must_use]
pub fn last_event_id_invalid() -> Problem {
    Problem::new(
        Code::LastEventIdInvalid,
        "`Last-Event-ID` or `last_event_id` is not an id of this stream; leave it out to begin now.",
    )
}

/// Frames an event, with JSON as its data.
pub fn event<E: LiveEvent>(id: Option<&dyn std::fmt::Display>, event: &E) -> Bytes {
    // Events contain only strings and numbers, so serializing them cannot fail.
    frame(id, E::NAME, &serde_json::to_string(event).unwrap_or_default())
}

/// Events may be missing: the client has to read the current state again.
#[derive(Serialize, JsonSchema)]
pub struct Reset {
    /// Why events may be missing.
    pub reason: ResetReason,
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
        event_component::<Reset>("ResetEvent"),
        event_component::<Drain>("DrainEvent"),
        event_component::<TokenExpiring>("TokenExpiringEvent"),
    ]
}

fn drain() -> Bytes {
    event(None, &Drain { retry_ms: rand::random_range(DRAIN_RETRY_MS) })
}

fn token_expiring(expires_at: OffsetDateTime) -> Bytes {
    event(None, &TokenExpiring { expires_at })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numeric_ids_are_accepted_only_in_canonical_form() {
        assert_eq!(number("42").ok(), Some(42));
        assert_eq!(number("7").ok(), Some(7));
        assert_eq!(number("0").ok(), Some(0));
        for wrong in
            ["-1", "+1", "+7", "01", "07", "1.0", "7.0", "", " 1", "7 ", "9223372036854775808", "abc-1-0"]
        {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }
}
