//! What this process gives by itself, whatever the others do: governor's buckets (GCRA). It is the first gate of every
//! limit, and the only one of those that count in one process.
//!
//! A bucket knows its quota for life, so there is one set of buckets for each quota in use. Memory is bounded: full
//! buckets are dropped, and keys that a set has no room for share buckets. Sharing is stricter for the many, never
//! looser.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use governor::{
    DefaultKeyedRateLimiter, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
};
use parking_lot::{Mutex, MutexGuard};

use super::buckets::{Level, Quota, Slot};

/// Buckets for all the keys without one of their own.
const COMMON: u64 = 4096;

type Buckets = DefaultKeyedRateLimiter<BucketKey, StateInformationMiddleware>;

#[derive(Clone, PartialEq, Eq, Hash)]
enum BucketKey {
    Own(Slot),
    Common(u64),
}

pub(super) struct Gate {
    by_quota: Mutex<HashMap<Quota, Arc<Buckets>>>,
    capacity: usize,
}

impl Gate {
    /// Room for `capacity` keys under one quota.
    pub(super) fn new(capacity: usize) -> Self {
        Self { by_quota: Mutex::default(), capacity }
    }

    /// Takes a cell, if this process has one left for the key.
    pub(super) fn take(&self, slot: Slot, quota: Quota) -> Level {
        let buckets = self.buckets(quota);
        let key = if buckets.len() < self.capacity {
            BucketKey::Own(slot)
        } else {
            BucketKey::Common(slot.among(COMMON))
        };
        take(&buckets, &key, quota)
    }

    /// Takes a cell of a bucket that many keys have in common, of this process's share of the quota.
    pub(super) fn take_in_common(&self, slot: Slot, quota: Quota, processes: u32) -> Level {
        let cells = NonZeroU32::new(quota.cells.get() / processes.max(1)).unwrap_or(NonZeroU32::MIN);
        let quota = Quota { cells, ..quota };
        take(&self.buckets(quota), &BucketKey::Common(slot.among(COMMON)), quota)
    }

    /// Forgets what is full again.
    pub(super) fn drop_full(&self) {
        let sets: Vec<_> = self.lock().values().cloned().collect();
        for buckets in sets {
            buckets.retain_recent();
            buckets.shrink_to_fit();
        }
        // A quota that nobody has now. A check under way holds the set, which then stays.
        self.lock().retain(|_, buckets| !buckets.is_empty() || Arc::strong_count(buckets) > 1);
    }

    fn buckets(&self, quota: Quota) -> Arc<Buckets> {
        let mut by_quota = self.lock();
        let buckets = by_quota.entry(quota).or_insert_with(|| {
            // A whole window's quota at once, and then one each share of the window.
            let governed = governor::Quota::with_period(quota.interval())
                .unwrap_or_else(|| governor::Quota::per_second(quota.cells))
                .allow_burst(quota.cells);
            Arc::new(RateLimiter::keyed(governed).with_middleware())
        });
        Arc::clone(buckets)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Quota, Arc<Buckets>>> {
        self.by_quota.lock()
    }
}

fn take(buckets: &Buckets, key: &BucketKey, quota: Quota) -> Level {
    match buckets.check_key(key) {
        Ok(state) => {
            let remaining = state.remaining_burst_capacity();
            let full_in = quota.interval() * quota.cells.get().saturating_sub(remaining);
            Level::Taken { remaining, full_in }
        }
        Err(not_until) => Level::Empty { wait: not_until.wait_time_from(DefaultClock::default().now()) },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::buckets, *};

    fn quota(cells: u32) -> Quota {
        Quota { cells: NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN), window: Duration::from_secs(60) }
    }

    /// How many takes were admitted, one for each of the keys.
    fn admitted(gate: &Gate, quota: Quota, keys: impl Iterator<Item = u32>) -> usize {
        let slots = buckets::Buckets::new(1);
        let taken = keys.map(|key| gate.take(slots.slot(&key.to_be_bytes(), quota), quota));
        taken.filter(|level| matches!(level, Level::Taken { .. })).count()
    }

    #[test]
    fn a_quota_is_given_and_no_more() {
        let gate = Gate::new(100);
        assert_eq!(admitted(&gate, quota(100), std::iter::repeat_n(1, 150)), 100);
        assert_eq!(admitted(&gate, quota(101), std::iter::once(1)), 1, "a new quota holds at once");
    }

    #[test]
    fn many_keys_share_buckets_and_memory_stays() {
        let gate = Gate::new(10);
        let admitted = admitted(&gate, quota(1), 0..20_000);
        let keys = gate.buckets(quota(1)).len();
        assert!(keys as u64 <= 10 + COMMON, "{keys} keys");
        assert_eq!(admitted, keys);
    }
}
