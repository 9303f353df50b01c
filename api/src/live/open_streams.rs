//! The event streams that are open in this process, and the one timer that serves them all.
//!
//! A stream has no task and no timer of its own. It registers a waker here and receives *commands*: bits that define
//! what it does when it is polled next. A ring only wakes a stream; a hint also sets a command. The timer visits all
//! streams four times a second. It commands a heartbeat if nothing was written for a while, a warning before the token
//! expires, and the end when the token expires or is revoked or access ends. During a drain it spreads the ends over
//! the drain window.

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

/// How long before its token expires a stream is warned.
pub const TOKEN_EXPIRING_BEFORE: Duration = Duration::from_secs(10);
/// How often the timer visits the streams.
const TICK: Duration = Duration::from_millis(250);
/// How often the timer visits the streams during a drain.
const DRAIN_TICK: Duration = Duration::from_millis(50);
/// How often a stream that depends on hints reads its source without one.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The fraction of the drain window over which the ends of streams are spread; the rest is for the last writes.
const DRAIN_FRACTION: f64 = 0.7;
/// Minimum number of streams that are ended per second, so that the drain of few streams is shorter than its window.
const MIN_DRAIN_RATE: f64 = 200.0;

const HEARTBEAT: u8 = 1;
const UPDATES: u8 = 1 << 1;
const EXPIRING: u8 = 1 << 2;
const DRAIN: u8 = 1 << 3;
const END: u8 = 1 << 4;
/// Set together with `EXPIRING` and never cleared, so that a stream is warned once.
const WARNED: u8 = 1 << 5;

/// The content of a stream; the label of its metrics.
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

/// The commands that a stream received since it was last polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// Nothing was written for a while: write a heartbeat.
    pub heartbeat: bool,
    /// The source may have updates.
    pub updates: bool,
    /// The token expires soon: warn the client.
    pub expiring: bool,
    /// The process drains: write what is pending, then the drain event, and end.
    pub drain: bool,
    /// End immediately.
    pub end: bool,
}

/// The state of one open stream that the timer, the rings and the hints use.
#[derive(Debug)]
pub struct OpenStream {
    kind: StreamKind,
    auth_session: Option<AuthSessionId>,
    expires_at: OffsetDateTime,
    /// `expires_at` on the monotonic clock, so that a change of the system clock ends no stream early or late.
    ends_at: Instant,
    access: AccessGrant,
    /// When that access was checked.
    checked_at: Instant,
    /// The heartbeat interval that the client chose, instead of the configured one.
    heartbeat: Option<Duration>,
    waker: AtomicWaker,
    commands: AtomicU8,
    /// Time of the last write, in milliseconds since the registry was created.
    written_at: AtomicU64,
}

impl OpenStream {
    /// Wakes the stream, so that it is polled.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Notifies the stream that its source may have updates.
    pub fn notify(&self) {
        self.command(UPDATES);
    }

    /// Ends the stream immediately.
    pub fn end(&self) {
        self.command(END);
    }

    /// When the token that opened the stream expires.
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

/// A stream's entry in the registry. Dropping it removes the stream.
#[derive(Debug)]
pub struct Registration {
    stream: Arc<OpenStream>,
    slot: usize,
    streams: OpenStreams,
}

impl Registration {
    /// Takes the commands after registering the waker, so that a command that arrives meanwhile wakes the stream again.
    pub fn take_commands(&self, waker: &Waker) -> Commands {
        self.stream.waker.register(waker);
        let commands = self.stream.commands.fetch_and(DRAIN | END | WARNED, Ordering::AcqRel);
        Commands {
            heartbeat: commands & HEARTBEAT != 0,
            updates: commands & UPDATES != 0,
            expiring: commands & EXPIRING != 0,
            drain: commands & DRAIN != 0,
            end: commands & END != 0,
        }
    }

    /// Records that something was written; the next heartbeat is due one full interval later.
    pub fn record_write(&self) {
        self.stream.written_at.store(self.streams.now_ms(), Ordering::Relaxed);
    }

    /// The stream, for the code that wakes it.
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
    created_at: Instant,
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
                created_at: Instant::now(),
                shutdown,
                done: CancellationToken::new(),
            }),
        }
    }

    /// Whether the process drains. New streams then have to connect to another process.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.shutdown.draining().is_cancelled()
    }

    /// Canceled when the process has drained and no stream needs to be served.
    #[must_use]
    pub fn done(&self) -> &CancellationToken {
        &self.inner.done
    }

    /// Adds a stream that was opened with this token, about an organization and possibly one of its projects, to which
    /// the caller had access at `checked_at`. `heartbeat` overrides the configured interval.
    #[must_use]
    pub fn register(
        &self,
        kind: StreamKind,
        credential: Credential,
        (org, project): (OrgId, Option<ProjectId>),
        checked_at: Instant,
        heartbeat: Option<Duration>,
    ) -> Registration {
        let remaining = credential.expires_at - clock::now();
        let stream = Arc::new(OpenStream {
            kind,
            ends_at: Instant::now() + Duration::try_from(remaining).unwrap_or_default(),
            auth_session: credential.auth_session,
            expires_at: credential.expires_at,
            access: AccessGrant { org, principal: credential.principal, project },
            checked_at,
            heartbeat,
            waker: AtomicWaker::new(),
            commands: AtomicU8::new(0),
            written_at: AtomicU64::new(self.now_ms()),
        });
        gauge!(SSE_STREAMS, "kind" => <&str>::from(kind)).increment(1.0);
        let slot = self.lock().insert(Arc::clone(&stream));
        if self.is_draining() {
            // The drain may have visited all streams already.
            stream.command(DRAIN);
        }
        Registration { stream, slot, streams: self.clone() }
    }

    /// The number of open streams.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no stream is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Serves the streams until the process has drained and all of them have been ended.
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
                    let poll = polled_at.elapsed() >= POLL_INTERVAL;
                    if poll {
                        polled_at = Instant::now();
                    }
                    self.tick(Instant::now(), heartbeat, poll);
                    self.end_where_access_ended(&ended);
                    // A client that was authenticated just before a revocation was read may have registered its
                    // stream just after it.
                    self.end_revoked(|auth_session| revocations.is_revoked(auth_session));
                }
                Ok(()) = revoked.changed() => self.end_revoked(|auth_session| revocations.is_revoked(auth_session)),
                () = shutdown.draining().cancelled() => break,
            }
        }
        // Expired tokens and ended access are no longer checked, because the drain takes only seconds.
        let spread =
            drain.mul_f64(DRAIN_FRACTION).min(Duration::from_secs_f64(self.len() as f64 / MIN_DRAIN_RATE));
        self.drain(spread).await;
        while !self.is_empty() {
            // A client that does not read keeps its stream open until the forced end.
            if shutdown.force().is_cancelled() {
                self.lock().iter().for_each(|stream| stream.end());
                break;
            }
            tokio::time::sleep(DRAIN_TICK).await;
        }
        Ok(())
    }

    /// Sends every stream the commands that are due.
    fn tick(&self, now: Instant, heartbeat: Duration, poll: bool) {
        // One tick early, because clients rely on the interval.
        let idle_ms =
            |interval: Duration| u64::try_from(interval.saturating_sub(TICK).as_millis()).unwrap_or(u64::MAX);
        let now_ms = self.now_ms();
        for stream in self.lock().iter() {
            let remaining = stream.ends_at.saturating_duration_since(now);
            if remaining.is_zero() {
                stream.end();
            } else if remaining <= TOKEN_EXPIRING_BEFORE && !stream.has(WARNED) {
                stream.command(EXPIRING | WARNED);
            }
            if now_ms.saturating_sub(stream.written_at.load(Ordering::Relaxed))
                >= idle_ms(stream.heartbeat.unwrap_or(heartbeat))
                && !stream.has(HEARTBEAT)
            {
                stream.command(HEARTBEAT);
            }
            if poll && stream.kind != StreamKind::Chat {
                stream.notify();
            }
        }
    }

    /// Ends the streams whose sign-in session was revoked.
    fn end_revoked(&self, is_revoked: impl Fn(AuthSessionId) -> bool) {
        for stream in self.lock().iter().filter(|stream| stream.auth_session.is_some_and(&is_revoked)) {
            stream.end();
        }
    }

    /// Ends the streams whose callers have lost access. This runs at every tick and not only when an end of access is
    /// read, because a stream may be registered just after the end that concerns it was read.
    fn end_where_access_ended(&self, ended: &EndedAccess) {
        for stream in self.lock().iter() {
            let has_ended = match stream.kind {
                StreamKind::Operation => ended.has_ended_for_principal(&stream.access, stream.checked_at),
                StreamKind::Chat | StreamKind::Config => ended.has_ended(&stream.access, stream.checked_at),
            };
            if has_ended {
                stream.end();
            }
        }
    }

    /// Sends all streams the drain command, to some of them at every tick.
    async fn drain(&self, spread: Duration) {
        let (started_at, total) = (Instant::now(), self.len());
        loop {
            let progress = if spread.is_zero() { 1.0 } else { started_at.elapsed().div_duration_f64(spread) };
            if progress >= 1.0 {
                break;
            }
            let due = (total as f64 * progress).ceil() as usize;
            let remaining: Vec<_> = self.lock().iter().filter(|stream| !stream.has(DRAIN)).cloned().collect();
            let notified = total.saturating_sub(remaining.len());
            for stream in remaining.iter().take(due.saturating_sub(notified)) {
                stream.command(DRAIN);
            }
            tokio::time::sleep(DRAIN_TICK).await;
        }
        self.lock().iter().for_each(|stream| stream.command(DRAIN));
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.inner.created_at.elapsed().as_millis()).unwrap_or(u64::MAX)
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
        streams.register(kind, credential, (OrgId::new(), None), Instant::now(), None)
    }

    fn commands(registration: &Registration) -> Commands {
        registration.take_commands(Waker::noop())
    }

    const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

    #[test]
    fn an_expiring_token_warns_once_and_then_ends_the_stream() {
        let streams = OpenStreams::new(Shutdown::new());
        let registration = register(&streams, StreamKind::Chat);
        let end = registration.stream().ends_at;
        streams.tick(end - Duration::from_secs(11), HEARTBEAT_INTERVAL, false);
        assert_eq!(commands(&registration), Commands::default());
        streams.tick(end - Duration::from_secs(10), HEARTBEAT_INTERVAL, false);
        assert_eq!(commands(&registration), Commands { expiring: true, ..Commands::default() });
        streams.tick(end - Duration::from_secs(1), HEARTBEAT_INTERVAL, false);
        assert_eq!(commands(&registration), Commands::default(), "warned once");
        streams.tick(end, HEARTBEAT_INTERVAL, false);
        assert!(commands(&registration).end);
        assert!(commands(&registration).end, "the end command persists");
    }

    #[test]
    fn only_idle_streams_receive_a_heartbeat() {
        let streams = OpenStreams::new(Shutdown::new());
        let [quiet, busy] = [(); 2].map(|()| register(&streams, StreamKind::Chat));
        let interval = TICK + Duration::from_millis(40);
        std::thread::sleep(Duration::from_millis(60));
        busy.record_write();
        streams.tick(Instant::now(), interval, false);
        assert!(commands(&quiet).heartbeat && !commands(&busy).heartbeat);
        quiet.record_write();
        streams.tick(Instant::now(), interval, false);
        assert!(!commands(&quiet).heartbeat);
    }

    #[test]
    fn a_client_can_choose_its_heartbeat_interval() {
        let streams = OpenStreams::new(Shutdown::new());
        let about = (OrgId::new(), None);
        let chosen = TICK + Duration::from_millis(40);
        let credential = credential(Duration::from_secs(900));
        let own = streams.register(StreamKind::Chat, credential, about, Instant::now(), Some(chosen));
        let configured = register(&streams, StreamKind::Chat);
        std::thread::sleep(Duration::from_millis(60));
        streams.tick(Instant::now(), HEARTBEAT_INTERVAL, false);
        assert!(commands(&own).heartbeat && !commands(&configured).heartbeat);
    }

    #[test]
    fn a_poll_notifies_only_streams_without_a_ring() {
        let streams = OpenStreams::new(Shutdown::new());
        let kinds = [StreamKind::Chat, StreamKind::Operation, StreamKind::Config];
        let open = kinds.map(|kind| register(&streams, kind));
        streams.tick(Instant::now(), HEARTBEAT_INTERVAL, true);
        assert_eq!(open.each_ref().map(|stream| commands(stream).updates), [false, true, true]);
        assert_eq!(
            open.each_ref().map(|stream| commands(stream).updates),
            [false; 3],
            "commands are taken once"
        );
    }

    #[test]
    fn a_revoked_sign_in_session_ends_only_its_own_streams() {
        let streams = OpenStreams::new(Shutdown::new());
        let (revoked, other) = (credential(Duration::from_secs(900)), credential(Duration::from_secs(900)));
        let of_revoked = [(); 2].map(|()| register_as(&streams, StreamKind::Chat, revoked));
        let others = register_as(&streams, StreamKind::Chat, other);
        streams.end_revoked(|auth_session| Some(auth_session) == revoked.auth_session);
        assert!(of_revoked.iter().all(|stream| commands(stream).end) && !commands(&others).end);
        streams.end_revoked(|auth_session| Some(auth_session) == other.auth_session);
        assert!(commands(&others).end);
    }

    #[tokio::test]
    async fn a_drain_is_spread_and_reaches_every_stream() {
        let streams = OpenStreams::new(Shutdown::new());
        let open: Vec<_> = (0..200).map(|_| register(&streams, StreamKind::Chat)).collect();
        let notified = || open.iter().filter(|stream| stream.stream().has(DRAIN)).count();
        let started_at = Instant::now();
        let drain = tokio::spawn({
            let streams = streams.clone();
            async move { streams.drain(Duration::from_secs(1)).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!((40..=160).contains(&notified()), "{} notified half-way", notified());
        drain.await.expect("it does not panic");
        assert!(started_at.elapsed() < Duration::from_secs(2) && notified() == 200);
        assert!(commands(&open[0]).drain);
    }

    #[test]
    fn a_stream_registered_during_a_drain_is_drained_immediately() {
        let shutdown = Shutdown::new();
        let streams = OpenStreams::new(shutdown.clone());
        shutdown.draining().cancel();
        assert!(streams.is_draining());
        assert!(commands(&register(&streams, StreamKind::Config)).drain);
    }

    #[test]
    fn a_dropped_registration_removes_the_stream() {
        let streams = OpenStreams::new(Shutdown::new());
        let registration = register(&streams, StreamKind::Chat);
        assert_eq!(streams.len(), 1);
        drop(registration);
        assert!(streams.is_empty());
    }
}
