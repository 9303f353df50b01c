//! One limit: what this process knows and gives by itself first, then the shared bucket, and this process's share when
//! there is none.

use std::{num::NonZeroU32, time::Duration};

use atrium_shared::{
    streams::LimitKeys,
    telemetry::metrics::{RATE_LIMITED, UNSHARED_LIMITS},
};
use metrics::counter;
use sha2::{Digest as _, Sha256};

use super::{
    buckets::{Buckets, Known, Level, Quota},
    gate::Gate,
    shared::Shared,
};
use crate::http::{
    problem::{Code, Problem},
    quota_status::QuotaStatus,
};

/// The most keys that have buckets of their own, in one process and limit. In Redis there are no more than these of
/// all processes together.
const MAX_KEYS: usize = 100_000;

/// A limit by key.
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

    /// Counts against the quota that all processes share.
    pub(super) async fn check(
        &self,
        shared: &Shared,
        key: &[u8],
        cells: NonZeroU32,
    ) -> Result<QuotaStatus, Problem> {
        let quota = Quota { cells, window: self.window };
        let slot = self.buckets.slot(key, quota);
        let now = shared.now();
        let level = match self.buckets.known(slot, quota, now) {
            Known::Level(level) => level,
            Known::Crowd => self.gate.take_in_common(slot, quota, shared.processes()),
            Known::Maybe { lack } => {
                if let empty @ Level::Empty { .. } = self.gate.take(slot, quota) {
                    return self.outcome(quota, empty);
                }
                let keys = LimitKeys::of(self.policy, &digest(self.policy, key, cells));
                match shared.take(&keys, quota, lack).await {
                    Some(taken) => self.buckets.learn(slot, quota, shared.now(), taken.cells, taken.lack),
                    None => {
                        counter!(UNSHARED_LIMITS, "policy" => self.policy).increment(1);
                        self.buckets.take_of_share(slot, quota, shared.now(), shared.share())
                    }
                }
            }
        };
        self.outcome(quota, level)
    }

    /// Counts in this process alone.
    pub(super) fn check_here(&self, key: &[u8], cells: NonZeroU32) -> Result<QuotaStatus, Problem> {
        let quota = Quota { cells, window: self.window };
        self.outcome(quota, self.gate.take(self.buckets.slot(key, quota), quota))
    }

    /// The refusal of who is known to have nothing left. Counts nothing.
    pub(super) fn refusal(&self, now: Duration, key: &[u8], cells: NonZeroU32) -> Option<Problem> {
        let quota = Quota { cells, window: self.window };
        let wait = self.buckets.is_empty(self.buckets.slot(key, quota), quota, now)?;
        self.outcome(quota, Level::Empty { wait }).err()
    }

    pub(super) fn drop_full(&self, now: Duration) {
        self.buckets.drop_full(now);
        self.gate.drop_full();
    }

    /// What to answer at this level: what is left, or a refusal.
    fn outcome(&self, quota: Quota, level: Level) -> Result<QuotaStatus, Problem> {
        match level {
            Level::Taken { remaining, full_in } => {
                Ok(QuotaStatus::new(self.policy, quota.cells, quota.window, remaining, full_in))
            }
            Level::Empty { wait } => {
                counter!(RATE_LIMITED, "policy" => self.policy).increment(1);
                Err(QuotaStatus::refusal(self.policy, self.code, quota.cells, quota.window, wait))
            }
        }
    }
}

/// What stands for a key in Redis, where no address and no id is to be read. The quota belongs to it: who gets another
/// one begins with a full bucket.
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
