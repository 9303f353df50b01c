//! A project's chat as an event stream, for one session.
//!
//! The stream reads its shard's ring from a cursor. If it resumes from a position older than the ring's oldest entry,
//! it first reads Redis in pages, and joins the ring in one step as soon as the ring contains everything after its
//! position. Redis and the ring use the same ids, so the transition neither skips nor repeats an event.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use atrium_shared::{
    ids::{OrgId, ProjectId, SessionId},
    messages::SessionClosedEvent,
    streams::{Redis, StreamId, chat_shard},
    telemetry::metrics::SSE_RESUMES,
};
use metrics::counter;
use redis::RedisError;
use tokio::sync::Semaphore;

use crate::{
    http::{problem::Problem, request::Request, response::Response},
    live::{
        answer::{self, Next, Opening, Resume, Source},
        frame::Batch,
        open_streams::StreamKind,
        position::Position,
        presence::PresenceGuard,
        resume::{self, Page},
        ring::{Frame, Join, Read, ResetReason, Subscription, TopicKey},
        session_cache::{Closed, SessionKey, SessionState},
    },
    state::App,
};

/// How old a cached session may be when its stream opens. Short, so that each reconnect checks the session again.
const MAX_AGE: Duration = Duration::from_secs(2);
/// Limits how many streams read from Redis concurrently, and so the memory that their pages take.
static REDIS_READS: Semaphore = Semaphore::const_new(64);
/// After this many empty pages in a row, Redis has lost entries that the ring has seen.
const MAX_EMPTY_PAGES: u32 = 3;

/// `GET …/chat/sessions/{session}/events`.
///
/// # Errors
/// `not_found` for a session that is not the caller's.
pub async fn stream(app: &Arc<App>, request: &mut Request) -> Result<Response, Problem> {
    answer::retry_later(&request.headers, respond(app, request).await)
}

async fn respond(app: &Arc<App>, request: &Request) -> Result<Response, Problem> {
    let (org, project): (OrgId, ProjectId) = (request.path("org")?, request.path("project")?);
    let session: SessionId = request.path("session")?;
    let options = answer::options(request)?;
    let (position, is_lost): (Option<Position>, bool) = match &options.resume {
        Resume::Now => (None, false),
        Resume::After(id) => id.parse().map_or((None, true), |position| (Some(position), false)),
        Resume::Unknown => (None, true),
    };
    let user = request.signed_in_user()?;
    let key = SessionKey { org, project, session, user: user.id };

    let checked_at = Instant::now();
    let known = match app.live.sessions.get(&key, MAX_AGE) {
        Some(known) => known,
        None => app.live.sessions.read(&app.database, key).await?,
    };
    if let SessionState { closed: Some(closed), .. } = known {
        return Ok(closed_session_response(session, closed, position));
    }
    let permit = app.quotas.enter(org).await?;
    let about = (org, Some(project));
    let opening =
        Opening { kind: StreamKind::Chat, credential: user.into(), about, checked_at, permit, options };
    answer::open(&app.live.streams, opening, |registration| {
        let stream = registration.stream();
        let subscription = app.live.hub.ring(project).subscribe((org, project), Arc::clone(stream));
        // The ring does not deliver an end that it received before this subscription began.
        let is_closed = app.live.sessions.is_closed(session);
        ChatSource {
            phase: match position {
                Some(position) => Phase::Starting(position),
                None if is_closed => Phase::Over,
                None => Phase::Opening(None),
            },
            is_lost,
            subscription,
            session,
            topic: (org, project),
            redis: app.redis.clone(),
            announced: None,
            _presence: app.live.presence.enter(org, session, Arc::clone(stream)),
        }
    })
}

/// The response to a client that opens the stream of a session that has ended. A client that was disconnected when it
/// ended receives the event now. The event's id is later than the end, so a client that resumes from it receives
/// nothing more.
fn closed_session_response(session: SessionId, closed: Closed, position: Option<Position>) -> Response {
    let (Some(position), Some(at)) = (position, closed.at) else {
        return answer::no_content();
    };
    let after_end = u64::try_from(at.unix_timestamp_nanos() / 1_000_000 + 1).unwrap_or_default();
    if position.id.ms >= after_end {
        return answer::no_content();
    }
    let id = Position { epoch: position.epoch, id: StreamId { ms: after_end, seq: 0 } };
    let data = SessionClosedEvent { session_id: session, reason: closed.reason, at };
    answer::single_event(&answer::event(Some(&id), &data))
}

type Reading<T> = Pin<Box<dyn Future<Output = Result<T, RedisError>> + Send>>;

/// The events of one session's stream.
struct ChatSource {
    subscription: Subscription,
    session: SessionId,
    topic: TopicKey,
    phase: Phase,
    /// Whether the client's own position was unknown.
    is_lost: bool,
    redis: Redis,
    /// The last position sent to the client without an event.
    announced: Option<Position>,
    _presence: PresenceGuard,
}

enum Phase {
    /// New: reads the current end of the live stream and sends it, so that a client that has received no event can
    /// resume.
    Opening(Option<Reading<Option<Position>>>),
    /// New, with the client's position: about to confirm it.
    Starting(Position),
    /// Reading from Redis, from a position until the ring can be joined.
    Resuming(Resuming),
    /// Reading the ring.
    Live,
    /// Ends the stream, so that the client reconnects: to receive missed events once Redis can be read again, or to
    /// receive the end of its session.
    Over,
}

struct Resuming {
    after: Position,
    reading: Option<Reading<Page>>,
    /// Frames of the last page that are not written yet.
    pending: std::vec::IntoIter<Frame>,
    empty_pages: u32,
    /// The position after the last frame of the page.
    page_end: StreamId,
    /// Whether the last read reached the end of the stream in Redis.
    at_end: bool,
    /// Whether a read from Redis has verified that the position exists.
    verified: bool,
    /// Whether anything was read from Redis.
    from_redis: bool,
}

impl Resuming {
    /// Starts from the client's position.
    fn from(after: Position) -> Self {
        Self {
            page_end: after.id,
            after,
            reading: None,
            pending: Vec::new().into_iter(),
            empty_pages: 0,
            at_end: false,
            verified: false,
            from_redis: false,
        }
    }

    /// Starts from the current end of the live stream.
    fn from_newest(after: Position) -> Self {
        Self { at_end: true, verified: true, ..Self::from(after) }
    }
}

/// The outcome of one step of resuming.
enum Progress {
    /// Another step can run immediately.
    Again,
    /// Nothing to do until the stream is woken.
    Wait,
    /// The ring was joined and delivers all further events.
    Joined,
    /// The missed events include the session's end.
    Closed,
    /// The stream cannot resume from the position.
    Lost(ResetReason),
    /// Redis cannot be read.
    Broken,
}

impl Source for ChatSource {
    fn poll(&mut self, context: &mut Context<'_>, _updated: bool, batch: &mut Batch) -> Next {
        loop {
            match &mut self.phase {
                Phase::Starting(position) => {
                    let position = position.clone();
                    self.phase = Phase::Resuming(Resuming::from(position.clone()));
                    self.announce(position, batch);
                }
                Phase::Opening(reading) => {
                    if let Some(position) = self.subscription.cursor() {
                        self.announce(position, batch);
                        self.report_loss(batch);
                        self.phase = Phase::Live;
                        continue;
                    }
                    let reading = reading.get_or_insert_with(|| read_newest(self.redis.clone(), self.topic));
                    match reading.as_mut().poll(context) {
                        Poll::Pending => return Next::Open,
                        Poll::Ready(Ok(Some(position))) => {
                            self.announce(position.clone(), batch);
                            self.report_loss(batch);
                            self.phase = Phase::Resuming(Resuming::from_newest(position));
                        }
                        // There is no history to resume from, or Redis is unavailable: all events are new ones.
                        Poll::Ready(_) => {
                            batch.event(&answer::position(None));
                            self.report_loss(batch);
                            self.phase = Phase::Live;
                        }
                    }
                }
                Phase::Resuming(resuming) => {
                    match resuming.step(
                        &mut self.subscription,
                        &self.redis,
                        self.topic,
                        self.session,
                        context,
                        batch,
                    ) {
                        Progress::Again => {}
                        Progress::Wait => return Next::Open,
                        Progress::Joined => self.phase = Phase::Live,
                        Progress::Closed => return Next::End,
                        Progress::Lost(reason) => {
                            counter!(SSE_RESUMES, "source" => "reset").increment(1);
                            self.subscription.restart();
                            self.reset(reason, batch);
                            self.phase = Phase::Live;
                        }
                        Progress::Broken => self.phase = Phase::Over,
                    }
                }
                Phase::Live => match self.subscription.read(self.session, batch) {
                    Read::Nothing | Read::Events => return Next::Open,
                    Read::Closed => return Next::End,
                    Read::Reset(reason) => self.reset(reason, batch),
                },
                Phase::Over => return Next::End,
            }
        }
    }

    fn heartbeat(&mut self, batch: &mut Batch) {
        // Moves the client's position past the events of other projects: without this, a project that is quiet for long
        // could not be resumed after its last event is trimmed.
        if matches!(self.phase, Phase::Live)
            && let Some(position) = self.subscription.position()
            && self.announced.as_ref() != Some(&position)
        {
            self.announce(position, batch);
        }
    }
}

impl ChatSource {
    fn announce(&mut self, position: Position, batch: &mut Batch) {
        batch.event(&answer::position(Some(&position)));
        self.announced = Some(position);
    }

    /// Reports that the client's own position was unknown.
    fn report_loss(&mut self, batch: &mut Batch) {
        if std::mem::take(&mut self.is_lost) {
            self.reset(ResetReason::HistoryLost, batch);
        }
    }

    /// Reports that events were missed. The stream continues from its cursor.
    fn reset(&mut self, reason: ResetReason, batch: &mut Batch) {
        let position = self.subscription.position();
        let id = position.as_ref().map(|position| position as &dyn std::fmt::Display);
        batch.event(&answer::reset(id, reason));
    }
}

impl Resuming {
    fn step(
        &mut self,
        subscription: &mut Subscription,
        redis: &Redis,
        topic: TopicKey,
        session: SessionId,
        context: &mut Context<'_>,
        batch: &mut Batch,
    ) -> Progress {
        // Frames of the last page are written before anything else is read.
        while !batch.is_full()
            && let Some(frame) = self.pending.next()
        {
            self.after.id = frame.id;
            match frame.closes {
                Some(closed) if closed != session => {}
                closes => {
                    batch.event(&frame.bytes);
                    if closes.is_some() {
                        return Progress::Closed;
                    }
                }
            }
        }
        if self.pending.len() > 0 {
            return Progress::Wait;
        }
        self.after.id = self.page_end;
        if self.reading.is_none() {
            match subscription.join(&self.after, self.verified) {
                Join::Joined => {
                    let source = if self.from_redis { "redis" } else { "ring" };
                    counter!(SSE_RESUMES, "source" => source).increment(1);
                    return Progress::Joined;
                }
                Join::OtherHistory => return Progress::Lost(ResetReason::HistoryLost),
                // Redis was read to its end, and no event has arrived since.
                Join::Unknown if self.at_end => return Progress::Wait,
                Join::Unknown | Join::NotCovered if self.empty_pages >= MAX_EMPTY_PAGES => {
                    return Progress::Lost(ResetReason::HistoryLost);
                }
                Join::Unknown | Join::NotCovered | Join::Ahead => {}
            }
        }
        let reading = self.reading.get_or_insert_with(|| read_page(redis.clone(), topic, self.after.clone()));
        let page = match reading.as_mut().poll(context) {
            Poll::Pending => return Progress::Wait,
            Poll::Ready(page) => page,
        };
        self.reading = None;
        match page {
            Ok(Page::Events { frames, end, last }) => {
                self.empty_pages = if end == self.after.id { self.empty_pages + 1 } else { 0 };
                (self.pending, self.page_end, self.at_end) = (frames.into_iter(), end, last);
                (self.verified, self.from_redis) = (true, true);
                Progress::Again
            }
            Ok(Page::Lost(reason)) => Progress::Lost(reason),
            Err(error) => {
                tracing::warn!(%error, "missed events cannot be read now; the client has to reconnect");
                Progress::Broken
            }
        }
    }
}

fn read_newest(redis: Redis, (_, project): TopicKey) -> Reading<Option<Position>> {
    Box::pin(async move { resume::newest_position(&redis, chat_shard(project)).await })
}

fn read_page(redis: Redis, topic: TopicKey, after: Position) -> Reading<Page> {
    Box::pin(async move {
        // Acquiring cannot fail, because the semaphore is never closed.
        let _permit = REDIS_READS.acquire().await;
        resume::page(&redis, chat_shard(topic.1), topic, &after).await
    })
}
