//! One limit. A check uses this process's cached levels and its own gate first, then the shared bucket, or this
//! process's share while the shared bucket is unavailable.

use std::{num::NonZeroU32, time::Duration};

use atrium_shared::{
    streams::LimitKeys,
    telemetry::metrics::{RATE_LIMITED, UNSHARED_LIMITS},
};
use metrics::counter;
use sha2::{Digest as _, Sha256};

use super::{
    buckets::{Buckets, Level, LocalResult, Quota},
    gate::Gate,
    shared::Shared,
};
use crate::http::{
    problem::{Code, Problem},
    quota_status::QuotaStatus,
};

/// Maximum number of keys with buckets of their own, for each process and limit. Redis has at most the buckets of these
/// keys of all processes.
const MAX_KEYS: usize = 100_000;

/// A limit for each key.
pub(super) struct Limiter {
    policy: &'static str,
    code: Code,
    window: Duration,
    buckets: Buckets,
    gate: Gate,
}

impl Limiter {
    pub(super) fn new(policy: &'static str, code: Code, window: Duration) -> Self {
        Self { policy, code, window, buckets: Buckets::new(MAX_KEYS), gate: Gate::new(MAX_KEYS) }
    }

    /// Counts a request against the quota that all processes share.
    pub(super) async fn check(
        &self,
        shared: &Shared,
        key: &[u8],
        cells: NonZeroU32,
    ) -> Result<QuotaStatus, Problem> {
        let quota = Quota { cells, window: self.window };
        let slot = self.buckets.slot(key, quota);
        let now = shared.now();
        let level = match self.buckets.check_local(slot, quota, now) {
            LocalResult::Decided(level) => level,
            LocalResult::Untracked => self.gate.take_from_common(slot, quota, shared.processes()),
            LocalResult::Undecided { full_in } => {
                if let empty @ Level::Empty { .. } = self.gate.take(slot, quota) {
                    return self.outcome(quota, empty);
                }
                let keys = LimitKeys::of(self.policy, &digest(self.policy, key, cells));
                match shared.take(&keys, quota, full_in).await {
                    Some(taken) => self.buckets.record(slot, quota, shared.now(), taken.cells, taken.full_in),
                    None => {
                        counter!(UNSHARED_LIMITS, "policy" => self.policy).increment(1);
                        self.buckets.take_from_share(slot, quota, shared.now(), shared.share())
                    }
                }
            }
        };
        self.outcome(quota, level)
    }

    /// Counts a request in this process alone.
    pub(super) fn check_in_process(&self, key: &[u8], cells: NonZeroU32) -> Result<QuotaStatus, Problem> {
        let quota = Quota { cells, window: self.window };
        self.outcome(quota, self.gate.take(self.buckets.slot(key, quota), quota))
    }

    /// The rejection of a key whose bucket is cached as empty. Counts nothing.
    pub(super) fn rejection(&self, now: Duration, key: &[u8], cells: NonZeroU32) -> Option<Problem> {
        let quota = Quota { cells, window: self.window };
        let wait = self.buckets.wait_if_empty(self.buckets.slot(key, quota), quota, now)?;
        self.outcome(quota, Level::Empty { wait }).err()
    }

    pub(super) fn drop_full(&self, now: Duration) {
        self.buckets.drop_full(now);
        self.gate.drop_full();
    }

    /// The result of a check at this level: the quota status, or a rejection.
    fn outcome(&self, quota: Quota, level: Level) -> Result<QuotaStatus, Problem> {
        match level {
            Level::Taken { remaining, full_in } => {
                Ok(QuotaStatus::new(self.policy, quota.cells, quota.window, remaining, full_in))
            }
            Level::Empty { wait } => {
                counter!(RATE_LIMITED, "policy" => self.policy).increment(1);
                Err(QuotaStatus::rejection(self.policy, self.code, quota.cells, quota.window, wait))
            }
        }
    }
}

/// Replaces a key in Redis, so that addresses and ids cannot be read there. The digest includes the quota, so a key
/// whose quota changes starts with a full bucket.
pub(super) fn digest(policy: &str, key: &[u8], cells: NonZeroU32) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(policy.as_bytes());
    hash.update([0]);
    hash.update(cells.get().to_be_bytes());
    hash.update(key);
    let mut digest = [0; 16];
    digest.copy_from_slice(&hash.finalize()[..16]);
    digest
}
