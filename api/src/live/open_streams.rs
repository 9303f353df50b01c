//! The event streams that are open in this process, and the one timer that serves them all.
//!
//! A stream has no task and no timer of its own. It leaves a waker here, and gets *commands*: bits that say what to do
//! when it runs next. Whoever has news (a ring, a hint) sets nothing and only wakes it; the timer goes over all
//! streams a few times a second and asks for a heartbeat where nothing was written for a while, a warning and the end
//! where a token runs out or was revoked, and, when the process drains, the ends spread over the drain window.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use atrium_shared::{
    clock,
    configuration::ConfigurationStore,
    identity::Revocations,
    ids::{AuthSessionId, OrgId, ProjectId},
    lifecycle::Shutdown,
    telemetry::metrics::SSE_STREAMS,
};
use futures_util::task::AtomicWaker;
use metrics::gauge;
use parking_lot::{Mutex, MutexGuard};
use strum::{IntoStaticStr, VariantArray};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{
    access::{AccessGrant, EndedAccess},
    slots::Slots,
};
use crate::http::caller::Credential;

/// How long before its token expires a stream is told.
pub const TOKEN_EXPIRING_BEFORE: Duration = Duration::from_secs(10);
/// How often the timer goes over the streams.
const TICK: Duration = Duration::from_millis(250);
/// The same while the process drains.
const DRAIN_TICK: Duration = Duration::from_millis(50);
/// How often a stream that reads a database reads it without a hint.
const POLL: Duration = Duration::from_secs(1);
/// How much of the drain window the ends of streams are spread over; the rest is for writing them out.
const DRAIN_SHARE: f64 = 0.7;
/// With few streams the drain is shorter than its window: never slower than this many a second.
const DRAIN_RATE: f64 = 200.0;

const HEARTBEAT: u8 = 1;
const NEWS: u8 = 1 << 1;
const EXPIRING: u8 = 1 << 2;
const DRAIN: u8 = 1 << 3;
const END: u8 = 1 << 4;
/// Commands that were given once and stay in force: they are not given again.
const WARNED: u8 = 1 << 5;

/// What a stream carries; the label of its metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum StreamKind {
    /// A project's chat.
    Chat,
    /// The steps of an operation.
    Operation,
    /// The revisions of an organization's configuration.
    Config,
}

/// What a stream was told to do since it ran last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Nothing was written for a while: say that the stream is alive.
    pub heartbeat: bool,
    /// What the stream reads from may have something new.
    pub news: bool,
    /// The token ends soon: tell.
    pub expiring: bool,
    /// The process stops: write what is pending, tell, and end.
    pub drain: bool,
    /// End at once.
    pub end: bool,
}

/// What the timer, the rings and the hints know of one open stream.
#[derive(Debug)]
pub struct OpenStream {
    kind: StreamKind,
    auth_session: Option<AuthSessionId>,
    expires_at: OffsetDateTime,
    /// The same by the monotonic clock: when the other one is set, a stream ends neither early nor late.
    ends_at: Instant,
    access: AccessGrant,
    /// When that access was looked up.
    checked_at: Instant,
    waker: AtomicWaker,
    commands: AtomicU8,
    /// Milliseconds since the registry was made.
    written_at: AtomicU64,
}

impl OpenStream {
    /// Something happened: the stream should run.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// What the stream reads from may have something new.
    pub fn news(&self) {
        self.command(NEWS);
    }

    /// Ends the stream at once.
    pub fn end(&self) {
        self.command(END);
    }

    /// When the token that opened the stream ends.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    fn command(&self, command: u8) {
        self.commands.fetch_or(command, Ordering::AcqRel);
        self.waker.wake();
    }

    fn has(&self, command: u8) -> bool {
        self.commands.load(Ordering::Acquire) & command != 0
    }
}

/// A stream's own end of the registry. Leaves it when dropped.
#[derive(Debug)]
pub struct Registration {
    stream: Arc<OpenStream>,
    slot: usize,
    streams: OpenStreams,
}

impl Registration {
    /// Takes the commands, after leaving a waker: what comes in between wakes the stream again.
    pub fn take_commands(&self, waker: &Waker) -> Commands {
        self.stream.waker.register(waker);
        let commands = self.stream.commands.fetch_and(DRAIN | END | WARNED, Ordering::AcqRel);
        Commands {
            heartbeat: commands & HEARTBEAT != 0,
            news: commands & NEWS != 0,
            expiring: commands & EXPIRING != 0,
            drain: commands & DRAIN != 0,
            end: commands & END != 0,
        }
    }

    /// Something was written, so the next heartbeat is a full interval away.
    pub fn written(&self) {
        self.stream.written_at.store(self.streams.now_ms(), Ordering::Relaxed);
    }

    /// The stream, for those who wake it.
    #[must_use]
    pub fn stream(&self) -> &Arc<OpenStream> {
        &self.stream
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        gauge!(SSE_STREAMS, "kind" => <&str>::from(self.stream.kind)).decrement(1.0);
        self.streams.lock().remove(self.slot);
    }
}

/// All open streams of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OpenStreams {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: Mutex<Slots<Arc<OpenStream>>>,
    made_at: Instant,
    shutdown: Shutdown,
    done: CancellationToken,
}

impl OpenStreams {
    /// A registry without streams.
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            inner: Arc::new(Inner {
                slots: Mutex::default(),
                made_at: Instant::now(),
                shutdown,
                done: CancellationToken::new(),
            }),
        }
    }

    /// Whether the process drains: new streams are sent elsewhere.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.shutdown.draining().is_cancelled()
    }

    /// Cancelled when the process has drained and no stream is left to serve.
    #[must_use]
    pub fn done(&self) -> &CancellationToken {
        &self.inner.done
    }

    /// Adds a stream that was opened with this token, for what `org` and `project` name, which the caller had access
    /// to at `checked_at`.
    #[must_use]
    pub fn register(
        &self,
        kind: StreamKind,
        credential: Credential,
        (org, project): (OrgId, Option<ProjectId>),
        checked_at: Instant,
    ) -> Registration {
        let left = credential.expires_at - clock::now();
        let stream = Arc::new(OpenStream {
            kind,
            ends_at: Instant::now() + Duration::try_from(left).unwrap_or_default(),
            auth_session: credential.auth_session,
            expires_at: credential.expires_at,
            access: AccessGrant { org, principal: credential.principal, project },
            checked_at,
            waker: AtomicWaker::new(),
            commands: AtomicU8::new(0),
            written_at: AtomicU64::new(self.now_ms()),
        });
        gauge!(SSE_STREAMS, "kind" => <&str>::from(kind)).increment(1.0);
        let slot = self.lock().insert(Arc::clone(&stream));
        if self.is_draining() {
            // Too late for its share of the drain.
            stream.command(DRAIN);
        }
        Registration { stream, slot, streams: self.clone() }
    }

    /// How many streams are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Serves the streams until the process stops and the last one was told.
    ///
    /// # Errors
    /// Never; the signature is that of a critical task.
    pub async fn serve(
        self,
        configuration: ConfigurationStore,
        revocations: Revocations,
        ended: EndedAccess,
        drain: Duration,
    ) -> anyhow::Result<()> {
        let shutdown = self.inner.shutdown.clone();
        let _done = self.inner.done.clone().drop_guard();
        let mut revoked = revocations.subscribe();
        let mut ticks = tokio::time::interval(TICK);
        let mut polled_at = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let heartbeat = configuration.platform().organization().sse_heartbeat();
                    let poll = polled_at.elapsed() >= POLL;
                    if poll {
                        polled_at = Instant::now();
                    }
                    self.tick(Instant::now(), heartbeat, poll);
                    self.end_where_access_ended(&ended);
                    // Who was let in just before the revocation came may have registered just after it.
                    self.end_revoked(|auth_session| revocations.is_revoked(auth_session));
                }
                Ok(()) = revoked.changed() => self.end_revoked(|auth_session| revocations.is_revoked(auth_session)),
                () = shutdown.draining().cancelled() => break,
            }
        }
        // What a token opened still ends with it, but within the drain that is a matter of seconds.
        let spread = drain.mul_f64(DRAIN_SHARE).min(Duration::from_secs_f64(self.len() as f64 / DRAIN_RATE));
        self.drain(spread).await;
        while !self.is_empty() {
            // A client that does not read keeps its stream until then.
            if shutdown.force().is_cancelled() {
                self.lock().iter().for_each(|stream| stream.end());
                break;
            }
            tokio::time::sleep(DRAIN_TICK).await;
        }
        Ok(())
    }

    /// Gives every stream the commands that are due now.
    fn tick(&self, now: Instant, heartbeat: Duration, poll: bool) {
        // A tick earlier rather than later: the interval is a promise.
        let quiet = u64::try_from(heartbeat.saturating_sub(TICK).as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.now_ms();
        for stream in self.lock().iter() {
            let left = stream.ends_at.saturating_duration_since(now);
            if left.is_zero() {
                stream.end();
            } else if left <= TOKEN_EXPIRING_BEFORE && !stream.has(WARNED) {
                stream.command(EXPIRING | WARNED);
            }
            if now_ms.saturating_sub(stream.written_at.load(Ordering::Relaxed)) >= quiet
                && !stream.has(HEARTBEAT)
            {
                stream.command(HEARTBEAT);
            }
            if poll && stream.kind != StreamKind::Chat {
                stream.news();
            }
        }
    }

    /// Ends the streams whose sign-in session was revoked.
    fn end_revoked(&self, is_revoked: impl Fn(AuthSessionId) -> bool) {
        for stream in self.lock().iter().filter(|stream| stream.auth_session.is_some_and(&is_revoked)) {
            stream.end();
        }
    }

    /// Ends the streams of those who have lost access to what they show. At every tick, not at every end that is
    /// learned: a stream may come just after the end that it should have seen.
    fn end_where_access_ended(&self, ended: &EndedAccess) {
        for stream in self.lock().iter() {
            let over = match stream.kind {
                StreamKind::Operation => ended.has_ended_for_one(&stream.access, stream.checked_at),
                StreamKind::Chat | StreamKind::Config => ended.has_ended(&stream.access, stream.checked_at),
            };
            if over {
                stream.end();
            }
        }
    }

    /// Tells all streams to go, a share at every tick.
    async fn drain(&self, spread: Duration) {
        let (begun_at, total) = (Instant::now(), self.len());
        loop {
            let share = if spread.is_zero() { 1.0 } else { begun_at.elapsed().div_duration_f64(spread) };
            if share >= 1.0 {
                break;
            }
            let due = (total as f64 * share).ceil() as usize;
            let left: Vec<_> = self.lock().iter().filter(|stream| !stream.has(DRAIN)).cloned().collect();
            let told = total.saturating_sub(left.len());
            for stream in left.iter().take(due.saturating_sub(told)) {
                stream.command(DRAIN);
            }
            tokio::time::sleep(DRAIN_TICK).await;
        }
        self.lock().iter().for_each(|stream| stream.command(DRAIN));
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.inner.made_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Slots<Arc<OpenStream>>> {
        self.inner.slots.lock()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn credential(expires_in: Duration) -> Credential {
        let expires_at = clock::now() + expires_in;
        Credential { principal: Uuid::now_v7(), auth_session: Some(AuthSessionId::new()), expires_at }
    }

    fn register(streams: &OpenStreams, kind: StreamKind) -> Registration {
        register_as(streams, kind, credential(Duration::from_secs(900)))
    }

    fn register_as(streams: &OpenStreams, kind: StreamKind, credential: Credential) -> Registration {
        streams.register(kind, credential, (OrgId::new(), None), Instant::now())
    }

    fn commands(registration: &Registration) -> Commands {
        registration.take_commands(Waker::noop())
    }

    const QUIET: Duration = Duration::from_secs(15);

    #[test]
    fn a_token_that_runs_out_warns_once_and_then_ends() {
        let streams = OpenStreams::new(Shutdown::new());
        let registration = register(&streams, StreamKind::Chat);
        let end = registration.stream().ends_at;
        streams.tick(end - Duration::from_secs(11), QUIET, false);
        assert_eq!(commands(&registration), Commands::default());
        streams.tick(end - Duration::from_secs(10), QUIET, false);
        assert_eq!(commands(&registration), Commands { expiring: true, ..Commands::default() });
        streams.tick(end - Duration::from_secs(1), QUIET, false);
        assert_eq!(commands(&registration), Commands::default(), "told once");
        streams.tick(end, QUIET, false);
        assert!(commands(&registration).end);
        assert!(commands(&registration).end, "an end holds");
    }

    #[test]
    fn a_quiet_stream_gets_a_heartbeat_and_a_busy_one_does_not() {
        let streams = OpenStreams::new(Shutdown::new());
        let [quiet, busy] = [(); 2].map(|()| register(&streams, StreamKind::Chat));
        let interval = TICK + Duration::from_millis(40);
        std::thread::sleep(Duration::from_millis(60));
        busy.written();
        streams.tick(Instant::now(), interval, false);
        assert!(commands(&quiet).heartbeat && !commands(&busy).heartbeat);
        quiet.written();
        streams.tick(Instant::now(), interval, false);
        assert!(!commands(&quiet).heartbeat);
    }

    #[test]
    fn a_poll_is_for_those_who_read_what_no_ring_holds() {
        let streams = OpenStreams::new(Shutdown::new());
        let kinds = [StreamKind::Chat, StreamKind::Operation, StreamKind::Config];
        let open = kinds.map(|kind| register(&streams, kind));
        streams.tick(Instant::now(), QUIET, true);
        assert_eq!(open.each_ref().map(|stream| commands(stream).news), [false, true, true]);
        assert_eq!(open.each_ref().map(|stream| commands(stream).news), [false; 3], "taken");
    }

    #[test]
    fn a_revoked_sign_in_ends_its_streams_and_no_others() {
        let streams = OpenStreams::new(Shutdown::new());
        let (revoked, other) = (credential(Duration::from_secs(900)), credential(Duration::from_secs(900)));
        let its = [(); 2].map(|()| register_as(&streams, StreamKind::Chat, revoked));
        let others = register_as(&streams, StreamKind::Chat, other);
        streams.end_revoked(|auth_session| Some(auth_session) == revoked.auth_session);
        assert!(its.iter().all(|stream| commands(stream).end) && !commands(&others).end);
        streams.end_revoked(|auth_session| Some(auth_session) == other.auth_session);
        assert!(commands(&others).end);
    }

    #[tokio::test]
    async fn a_drain_is_spread_and_reaches_everybody() {
        let streams = OpenStreams::new(Shutdown::new());
        let open: Vec<_> = (0..200).map(|_| register(&streams, StreamKind::Chat)).collect();
        let told = || open.iter().filter(|stream| stream.stream().has(DRAIN)).count();
        let begun = Instant::now();
        let drain = tokio::spawn({
            let streams = streams.clone();
            async move { streams.drain(Duration::from_secs(1)).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!((40..=160).contains(&told()), "{} told half-way", told());
        drain.await.expect("it does not panic");
        assert!(begun.elapsed() < Duration::from_secs(2) && told() == 200);
        assert!(commands(&open[0]).drain);
    }

    #[test]
    fn a_stream_that_comes_during_the_drain_is_told_at_once() {
        let shutdown = Shutdown::new();
        let streams = OpenStreams::new(shutdown.clone());
        shutdown.draining().cancel();
        assert!(streams.is_draining());
        assert!(commands(&register(&streams, StreamKind::Config)).drain);
    }

    #[test]
    fn who_leaves_is_forgotten() {
        let streams = OpenStreams::new(Shutdown::new());
        let registration = register(&streams, StreamKind::Chat);
        assert_eq!(streams.len(), 1);
        drop(registration);
        assert!(streams.is_empty());
    }
}
