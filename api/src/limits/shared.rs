//! The buckets that all API processes share, in Redis, and the detection of failures of Redis.
//!
//! A script takes cells from a bucket, by the clock of Redis. A call has a short time limit. After an error, or a few
//! timeouts in a row, the process makes no calls until a heartbeat succeeds; heartbeats also count the live processes.
//! So a slow Redis delays only a few requests, and an unavailable one delays none.
//!
//! After a flush the limits must still hold. Every call contains the level of the bucket that its process has cached,
//! and the script never assumes a fuller bucket. A key next to the buckets contains the time since when they are
//! complete. If that key is missing, the buckets were lost, and for one window from then on a caller can take at most
//! one process's share at first.

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

/// Time limit of a call, and so the longest that a request waits for its limit.
const TIME_LIMIT: Duration = Duration::from_millis(100);
/// Redis counts as unavailable after this many timeouts in a row.
const MAX_TIMEOUTS: u32 = 3;
/// Heartbeat interval of a process.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Heartbeat interval while Redis is unavailable.
const RECOVERY_INTERVAL: Duration = Duration::from_millis(250);
/// A process without a heartbeat for this long is no longer counted.
const LIVENESS_TIMEOUT: Duration = Duration::from_secs(6);
/// A lower number of processes is adopted only after this many heartbeats in a row have returned one, because just
/// after a flush not all processes have sent a heartbeat yet.
const MIN_LOWER_COUNTS: u32 = 6;

// A process still counts after two lost heartbeats, and after a few late ones.
const _: () = assert!(is_longer(LIVENESS_TIMEOUT, 3, HEARTBEAT_INTERVAL.saturating_add(TIME_LIMIT)));
// The recovery of Redis is detected sooner than with the usual heartbeat interval.
const _: () = assert!(is_longer(HEARTBEAT_INTERVAL, 1, RECOVERY_INTERVAL.saturating_add(TIME_LIMIT)));

/// The counters that all API processes share.
pub struct Shared {
    redis: Redis,
    process: String,
    started: Instant,
    /// Milliseconds after the start at which Redis became unavailable; 0 while it is available.
    unavailable_since: AtomicU64,
    /// Whether the shared buckets were found or marked as complete since the start.
    seen: AtomicBool,
    state: Mutex<State>,
}

struct State {
    /// Timeouts in a row.
    timeouts: u32,
    processes: u32,
    /// How many heartbeats in a row returned fewer processes than `processes`.
    lower_counts: u32,
}

/// The reply of the script.
pub(super) struct Taken {
    pub(super) cells: u32,
    /// The time until the bucket is full.
    pub(super) full_in: Duration,
}

impl Shared {
    /// The shared counters, for the process with this name. Redis may be unavailable.
    #[must_use]
    pub fn new(redis: Redis, process: &str) -> Self {
        Self {
            redis,
            process: process.to_owned(),
            started: Instant::now(),
            unavailable_since: AtomicU64::new(0),
            seen: AtomicBool::new(false),
            state: Mutex::new(State { timeouts: 0, processes: 1, lower_counts: 0 }),
        }
    }

    /// Now, on the clock of the buckets.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The process's name, unique among the running processes.
    pub(super) fn process(&self) -> &str {
        &self.process
    }

    /// The number of live API processes, according to the heartbeats.
    pub(super) fn processes(&self) -> u32 {
        self.state().processes
    }

    /// Whether the shared counters were found since the start. If they are missing later, they were lost.
    pub(super) fn has_seen_counters(&self) -> bool {
        self.seen.load(Ordering::Acquire)
    }

    /// The share that this process may grant by itself. After a single timeout, that is what the cached level allows:
    /// the call was most likely counted, and it does not show that Redis is unavailable to the other processes.
    pub(super) fn share(&self) -> Share {
        match self.unavailable_since.load(Ordering::Acquire) {
            0 => Share::ALL,
            since => Share { processes: self.processes(), since: Duration::from_millis(since) },
        }
    }

    /// Takes the available cells, up to one batch. `None` if the shared bucket is unavailable.
    pub(super) async fn take(&self, keys: &LimitKeys, quota: Quota, full_in: Duration) -> Option<Taken> {
        let mut call = lua::LIMITS_TAKE.prepare_invoke();
        call.key(&keys.counter)
            .key(&keys.whole)
            .arg(microseconds(quota.window))
            .arg(microseconds(quota.interval()))
            .arg(quota.batch())
            .arg(microseconds(full_in))
            .arg(u8::from(self.has_seen_counters()))
            .arg(microseconds((quota.window / self.processes()).max(quota.interval())));
        let started_at = Instant::now();
        let (cells, full_in): (u32, u64) = self.call(&call).await?;
        histogram!(SHARED_LIMIT_SECONDS).record(started_at.elapsed());
        Some(Taken { cells, full_in: Duration::from_micros(full_in) })
    }

    /// Calls a script, unless Redis is unavailable. `None` after an error or a timeout, too.
    pub(super) async fn call<T: redis::FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Option<T> {
        if self.unavailable_since.load(Ordering::Acquire) != 0 {
            return None;
        }
        self.try_call(call).await
    }

    async fn try_call<T: redis::FromRedisValue>(&self, call: &ScriptInvocation<'_>) -> Option<T> {
        let mut connection = self.redis.shared();
        let reply = tokio::time::timeout(TIME_LIMIT, call.invoke_async(&mut connection)).await;
        match reply {
            Ok(Ok(reply)) => {
                self.record_success();
                Some(reply)
            }
            Ok(Err(error)) => self.record_failure(Some(&error)),
            Err(_elapsed) => self.record_failure(None),
        }
    }

    /// Sends heartbeats, which also count the live processes, until the process stops.
    pub(super) async fn send_heartbeats(&self, stop: &CancellationToken) {
        loop {
            self.send_heartbeat().await;
            let unavailable = self.unavailable_since.load(Ordering::Acquire) != 0;
            let pause = tokio::time::sleep(if unavailable { RECOVERY_INTERVAL } else { HEARTBEAT_INTERVAL });
            if stop.run_until_cancelled(pause).await.is_none() {
                let deregister = async {
                    let mut connection = self.redis.shared();
                    redis::cmd("ZREM")
                        .arg(API_PROCESSES_KEY)
                        .arg(&self.process)
                        .query_async(&mut connection)
                        .await
                };
                // If this fails, the process is removed after `LIVENESS_TIMEOUT`.
                let _: Result<RedisResult<()>, _> = tokio::time::timeout(TIME_LIMIT, deregister).await;
                return;
            }
        }
    }

    async fn send_heartbeat(&self) {
        if !self.has_seen_counters()
            && let Err(error) = self.mark_complete().await
        {
            let _: Option<()> = self.record_failure(Some(&error));
            return;
        }
        let mut call = lua::LIMITS_BEAT.prepare_invoke();
        call.key(API_PROCESSES_KEY).arg(&self.process).arg(LIVENESS_TIMEOUT.as_millis() as u64);
        let Some(live) = self.try_call(&call).await else { return };
        gauge!(LIMITS_SHARED).set(1.0);
        let mut state = self.state();
        gauge!(API_PROCESSES).set(live);
        let lower_counts = if live < state.processes { state.lower_counts + 1 } else { 0 };
        if lower_counts == 0 || lower_counts >= MIN_LOWER_COUNTS {
            (state.processes, state.lower_counts) = (live, 0);
        } else {
            state.lower_counts = lower_counts;
        }
    }

    /// Marks the buckets of a new deployment as complete; the first process has lost none.
    async fn mark_complete(&self) -> RedisResult<()> {
        for key in limit_whole_keys() {
            let mark = async {
                let mut connection = self.redis.shared();
                redis::cmd("SET").arg(key).arg(0).arg("NX").query_async::<()>(&mut connection).await
            };
            tokio::time::timeout(TIME_LIMIT, mark).await.map_err(std::io::Error::from)??;
        }
        self.seen.store(true, Ordering::Release);
        Ok(())
    }

    fn record_success(&self) {
        if self.unavailable_since.swap(0, Ordering::AcqRel) != 0 {
            tracing::info!("limits are shared again");
        }
        self.state().timeouts = 0;
    }

    fn record_failure<T>(&self, error: Option<&RedisError>) -> Option<T> {
        let mut state = self.state();
        state.timeouts = state.timeouts.saturating_add(1);
        let now = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX).max(1);
        if (error.is_some() || state.timeouts >= MAX_TIMEOUTS)
            && self.unavailable_since.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire).is_ok()
        {
            gauge!(LIMITS_SHARED).set(0.0);
            let processes = state.processes;
            tracing::warn!(
                error = error.map(tracing::field::display),
                processes,
                "limits are not shared: each process grants its share"
            );
        }
        None
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Microseconds with three decimals, because a cell of a large quota flows back within a few microseconds.
fn microseconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1e6)
}
