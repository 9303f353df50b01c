//! Server-Sent Events: the body of an event stream, and what every stream has in common.
//!
//! A stream is polled by its connection, like any body. Each poll puts everything that is pending, up to a bound, into
//! one write; what does not fit stays where it is (a ring, a database), never in a queue of the stream. While the
//! client does not read, hyper does not poll, so a slow client costs nothing but its permit.
//!
//! A native `EventSource` stops forever on any answer but 200. So what is worth trying again, although it cannot be
//! served now, is a 200 that says when to come back and ends ([`try_again`]).

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

/// Longer than any id of ours; a longer one is refused unread.
const MAX_EVENT_ID: usize = 128;
/// How long clients wait before they come back, milliseconds. Each gets a value of its own, so that those who
/// lost the same process do not come back at the same moment.
const RETRY_MS: std::ops::Range<u64> = 1_000..4_000;
/// The same when the process drains: the others are there, and the ends are spread already.
const DRAIN_RETRY_MS: std::ops::Range<u64> = 100..1_000;
/// The query parameter of clients that open a new stream by themselves.
pub const LAST_EVENT_ID: &str = "last_event_id";

/// Whether a stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It does; what is pending was given, as far as it fits.
    Open,
    /// What was given is the last.
    End,
}

/// Where a stream's events come from.
pub trait Source: Send + Unpin + 'static {
    /// Gives the batch what is pending. `news` says that a hint came, or that it is time to read without one; it is
    /// also set at the first call. When nothing is given, the source has arranged to be woken.
    fn poll(&mut self, context: &mut Context<'_>, news: bool, batch: &mut Batch) -> Next;

    /// Says that the stream is alive. May move the client's position as well.
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
    /// A stream of that source's events.
    #[must_use]
    pub fn new(registration: Registration, kind: StreamKind, source: S, permit: StreamPermit) -> Self {
        Self { registration, kind, source, _permit: permit, greeted: false, ended: false }
    }

    /// What to write now. Empty when there is nothing, or when the stream has ended.
    fn pending(&mut self, context: &mut Context<'_>) -> Batch {
        let mut batch = Batch::default();
        // The waker is left before anything is read: what comes later wakes this stream again.
        let commands = self.registration.take_commands(context.waker());
        if commands.end {
            self.ended = true;
            return batch;
        }
        let first = !std::mem::replace(&mut self.greeted, true);
        if first {
            batch.greeting(rand::random_range(RETRY_MS));
        }
        let next = self.source.poll(context, commands.news || first, &mut batch);
        if commands.expiring {
            batch.event(&token_expiring(self.registration.stream().expires_at()));
        }
        if next == Next::End {
            self.ended = true;
        } else if commands.drain && !batch.is_full() {
            // Not before what is pending has gone out; a full batch comes here again.
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
        let batch = stream.pending(context);
        if batch.is_empty() {
            return if stream.ended { Poll::Ready(None) } else { Poll::Pending };
        }
        stream.registration.written();
        if batch.events() > 0 {
            counter!(SSE_EVENTS, "kind" => <&str>::from(stream.kind)).increment(batch.events());
        }
        Poll::Ready(Some(Ok(Frame::data(batch.into_bytes()))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Answers with a stream for this caller about an organization, and one of its projects, to which they had access at
/// `checked_at`; or, while the process drains, sends them elsewhere. The source is made with
/// the stream's registration at hand, so that it can be woken from its first moment on; its permit among the
/// organization's streams is held as long as it is open.
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
        return answer(Body::Whole([format!("retry: {retry}\n\n").as_bytes(), &drain()].concat().into()));
    }
    let registration = streams.register(kind, credential, about, checked_at);
    let source = source(&registration);
    answer(Body::stream(EventStream::new(registration, kind, source, permit)))
}

/// Turns refusals that pass by themselves into a stream that ends at once and says when to come back.
///
/// # Errors
/// All other refusals: coming back would not help.
pub fn try_again(answer_or_problem: Result<Response, Problem>) -> Result<Response, Problem> {
    match answer_or_problem {
        Err(problem)
            if matches!(problem.code(), Code::Unavailable | Code::RateLimited | Code::QuotaExceeded) =>
        {
            let code = problem.code().name();
            let cause = problem.internal_cause();
            tracing::debug!(code, cause, "a stream cannot be opened now; the client comes back");
            // No sooner than a limit allows, and not all at the same moment.
            let wait = problem.retry_after_seconds().saturating_sub(1) * 1_000;
            let retry = wait + rand::random_range(RETRY_MS);
            Ok(answer(Body::Whole(format!(": {code}\nretry: {retry}\n\n").into())))
        }
        other => other,
    }
}

/// A stream of one event that was framed before.
#[must_use]
pub fn once(event: &Bytes) -> Response {
    let mut batch = Batch::default();
    batch.greeting(rand::random_range(RETRY_MS));
    batch.event(event);
    answer(Body::Whole(batch.into_bytes()))
}

/// For a native `EventSource`, the only answer that is no error and keeps it from coming back.
#[must_use]
pub fn nothing_more() -> Response {
    response::empty(StatusCode::NO_CONTENT)
}

fn answer(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    // Proxies that speak nginx's dialect would otherwise wait for a full buffer.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// The id after which the client wants to go on. The header counts before the query: a native `EventSource` sends
/// the header when it comes back by itself, with the query of its first connection.
///
/// # Errors
/// [`Code::LastEventIdInvalid`] when it cannot be an id of any stream.
pub fn last_event_id(request: &Request) -> Result<Option<String>, Problem> {
    let query = request.query(&[LAST_EVENT_ID])?;
    // Also where it does not count: a request is valid as a whole.
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

/// The id of a stream whose events are numbered. Only the form in which ids are sent is one.
///
/// # Errors
/// [`Code::LastEventIdInvalid`] for everything else.
pub fn number(id: &str) -> Result<i64, Problem> {
    id.parse()
        .ok()
        .filter(|number: &i64| *number >= 0 && number.to_string() == id)
        .ok_or_else(last_event_id_invalid)
}

/// The id to go on from is not one of this stream.
#[must_use]
pub fn last_event_id_invalid() -> Problem {
    Problem::new(
        Code::LastEventIdInvalid,
        "`Last-Event-ID` or `last_event_id` is not an id of this stream; leave it out to begin now.",
    )
}

/// An event, framed: its data is JSON.
pub fn event<E: LiveEvent>(id: Option<&dyn std::fmt::Display>, event: &E) -> Bytes {
    // Strings and numbers only: this cannot fail.
    frame(id, E::NAME, &serde_json::to_string(event).unwrap_or_default())
}

/// Something may have been missed: the client has to read the state again.
#[derive(Serialize, JsonSchema)]
pub struct Reset {
    /// Why.
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

/// What this module sends, for the test of the API description.
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
    fn only_numbers_as_they_are_sent_are_ids() {
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
