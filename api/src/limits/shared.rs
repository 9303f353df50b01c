//! The buckets that all API processes share, in Redis, and what holds while Redis does not answer.
//!
//! One script takes cells from a bucket, by Redis' own clock. A call has a short time limit. After an error, or a few
//! answers in a row that came too late, calls stop: a heartbeat, which counts the living processes anyway,
//! finds out when Redis is back. So a slow Redis slows a handful of requests, and a dead one none.
//!
//! A flush must not open a door. Every call brings along what its process knows of the bucket, so the script never
//! believes a bucket to be fuller than that. And beside the buckets lies a key that says since when they are whole:
//! when it is gone, so are they, and for one window from then on nobody gets more than one process's share at first.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use atrium_shared::{
    streams::{API_PROCESSES_KEY, LimitKeys, Redis, limit_whole_keys, lua},
    telemetry::metrics::{API_PROCESSES, LIMITS_SHARED, SHARED_LIMIT_SECONDS},
    timings::is_longer,
};
use metrics::{gauge, histogram};
use parking_lot::{Mutex, MutexGuard};
use redis::{RedisError, RedisResult, ScriptInvocation};
use tokio_util::sync::CancellationToken;

use super::buckets::{Quota, Share};

/// How long a call may take. A request waits no longer for its limit.
const TIME_LIMIT: Duration = Duration::from_millis(100);
/// Redis counts as away after this many answers in a row that came too late.
const TOO_LATE: u32 = 3;
/// How often a process says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// The same while Redis is unavailable.
const BEAT_AWAY: Duration = Duration::from_millis(250);
/// A process that has not said that it lives for this long does not.
const SILENT_AFTER: Duration = Duration::from_secs(6);
/// A smaller number of processes is believed after this many beats that count it: right after a flush, not all have
/// reported yet.
const FEWER_BEATS: u32 = 6;

// No process is silent because of two lost beats, nor because of a few that are late.
const _: () = assert!(is_longer(SILENT_AFTER, 3, BEAT.saturating_add(TIME_LIMIT)));
// Redis is found again sooner than a process that beats as usual would find it.
const _: () = assert!(is_longer(BEAT, 1, BEAT_AWAY.saturating_add(TIME_LIMIT)));

/// What all API processes count together.
pub struct Shared {
    redis: Redis,
    process: String,
    started: Instant,
    /// Milliseconds after the start at which Redis became unavailable; 0 while it is available.
    away_since: AtomicU64,
    /// Whether the shared buckets were seen since the start.
    seen: AtomicBool,
    state: Mutex<State>,
}

struct State {
    too_late: u32,
    processes: u32,
    fewer: u32,
}

/// What the script answered.
pub(super) struct Taken {
    pub(super) cells: u32,
    pub(super) lack: Duration,
}

impl Shared {
    /// Counters of this process and its siblings. Redis need not be there.
    #[must_use]
    pub fn new(redis: Redis, process: &str) -> Self {
        Self {
            redis,
            process: process.to_owned(),
            started: Instant::now(),
            away_since: AtomicU64::new(0),
            seen: AtomicBool::new(false),
            state: Mutex::new(State { too_late: 0, processes: 1, fewer: 0 }),
        }
    }

    /// Now, on the clock of the buckets.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The process's name, unique among those that run.
    pub(super) fn process(&self) -> &str {
        &self.process
    }

    /// How many API processes lived when Redis said so last.
    pub(super) fn processes(&self) -> u32 {
        self.state().processes
    }

    /// Whether the shared counters were seen since the start: if they are gone now, they were lost.
    pub(super) fn seen(&self) -> bool {
        self.seen.load(Ordering::Acquire)
    }

    /// What this process may give by itself. A single answer that comes too late was most likely counted, and says
    /// nothing about the others: what this process knows is good enough then.
    pub(super) fn share(&self) -> Share {
        match self.away_since.load(Ordering::Acquire) {
            0 => Share::ALL,
            since => Share { processes: self.processes(), since: Duration::from_millis(since) },
        }
    }

    /// Takes as many cells as there are, up to a part of the quota. None when the shared bucket cannot be asked.
    pub(super) async fn take(&self, keys: &LimitKeys, quota: Quota, lack: Duration) -> Option<Taken> {
        let mut call = lua::LIMITS_TAKE.prepare_invoke();
        call.key(&keys.counter)
            .key(&keys.whole)
            .arg(microseconds(quota.window))
            .arg(microseconds(quota.interval()))
            .arg(quota.part())
            .arg(microseconds(lack))
            .arg(u8::from(self.seen()))
            .arg(microseconds((quota.window / self.processes()).max(quota.interval())));
        let begun = Instant::now();
        let (cells, lack): (u32, u64) = self.call(&call).await?;
        histogram!(SHARED_LIMIT_SECONDS).record(begun.elapsed());
        Some(Taken { cells, lack: Duration::from_micros(lack) })
    }

    /// Calls a script, unless Redis is unavailable. None when it does not answer in time.
    pub(super) async fn call<T: redis::FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Option<T> {
        if self.away_since.load(Ordering::Acquire) != 0 {
            return None;
        }
        self.try_call(call).await
    }

    async fn try_call<T: redis::FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Option<T> {
        let mut connection = self.redis.shared();
        let answer = tokio::time::timeout(TIME_LIMIT, call.invoke_async(&mut connection)).await;
        match answer {
            Ok(Ok(answer)) => {
                self.answered();
                Some(answer)
            }
            Ok(Err(error)) => self.failed(Some(&error)),
            Err(_too_late) => self.failed(None),
        }
    }

    /// Says that this process lives, and counts those that do, until the process stops.
    pub(super) async fn keep_beating(&self, stop: &CancellationToken) {
        loop {
            self.beat().await;
            let away = self.away_since.load(Ordering::Acquire) != 0;
            let pause = tokio::time::sleep(if away { BEAT_AWAY } else { BEAT });
            if stop.run_until_cancelled(pause).await.is_none() {
                let leave = async {
                    let mut connection = self.redis.shared();
                    redis::cmd("ZREM")
                        .arg(API_PROCESSES_KEY)
                        .arg(&self.process)
                        .query_async(&mut connection)
                        .await
                };
                // Whoever does not say so is found silent.
                let _: Result<RedisResult<()>, _> = tokio::time::timeout(TIME_LIMIT, leave).await;
                return;
            }
        }
    }

    async fn beat(&self) {
        if !self.seen()
            && let Err(error) = self.found().await
        {
            let _: Option<()> = self.failed(Some(&error));
            return;
        }
        let mut call = lua::LIMITS_BEAT.prepare_invoke();
        call.key(API_PROCESSES_KEY).arg(&self.process).arg(SILENT_AFTER.as_millis() as u64);
        let Some(living) = self.try_call(&call).await else { return };
        gauge!(LIMITS_SHARED).set(1.0);
        let mut state = self.state();
        gauge!(API_PROCESSES).set(living);
        let fewer = if living < state.processes { state.fewer + 1 } else { 0 };
        if fewer == 0 || fewer >= FEWER_BEATS {
            (state.processes, state.fewer) = (living, 0);
        } else {
            state.fewer = fewer;
        }
    }

    /// Marks the buckets of a new deployment as whole: whoever comes first has lost nothing.
    async fn found(&self) -> RedisResult<()> {
        for key in limit_whole_keys() {
            let found = async {
                let mut connection = self.redis.shared();
                redis::cmd("SET").arg(key).arg(0).arg("NX").query_async::<()>(&mut connection).await
            };
            tokio::time::timeout(TIME_LIMIT, found).await.map_err(std::io::Error::from)??;
        }
        self.seen.store(true, Ordering::Release);
        Ok(())
    }

    fn answered(&self) {
        if self.away_since.swap(0, Ordering::AcqRel) != 0 {
            tracing::info!("limits are shared again");
        }
        self.state().too_late = 0;
    }

    fn failed<T>(&self, error: Option<&RedisError>) -> Option<T> {
        let mut state = self.state();
        state.too_late = state.too_late.saturating_add(1);
        let now = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX).max(1);
        if (error.is_some() || state.too_late >= TOO_LATE)
            && self.away_since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            gauge!(LIMITS_SHARED).set(0.0);
            let processes = state.processes;
            tracing::warn!(
                error = error.map(tracing::field::display),
                processes,
                "limits are not shared: each process gives its part"
            );
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// With the digits of a nanosecond: the cells of a large quota flow back within a few microseconds.
fn microseconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1e6)
}
