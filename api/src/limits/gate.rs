//! Limits what this process alone grants, with governor's buckets (GCRA). Every limit uses it before the shared bucket;
//! limits that are counted in one process use only this.
//!
//! The quota of a governor bucket cannot change, so there is one set of buckets for each quota in use. Memory is
//! bounded: full buckets are dropped, and keys beyond the capacity of a set share buckets. Sharing makes the limit
//! stricter for these keys, never looser.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use governor::{
    DefaultKeyedRateLimiter, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
};
use parking_lot::{Mutex, MutexGuard};

use super::buckets::{Level, Quota, Slot};

/// The number of buckets for the keys without a bucket of their own.
const COMMON_BUCKETS: u64 = 4096;

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
    /// A gate with own buckets for at most `capacity` keys under one quota.
    pub(super) fn new(capacity: usize) -> Self {
        Self { by_quota: Mutex::default(), capacity }
    }

    /// Takes a cell, if this process may still grant one to the key.
    pub(super) fn take(&self, slot: Slot, quota: Quota) -> Level {
        let buckets = self.buckets(quota);
        let key = if buckets.len() < self.capacity {
            BucketKey::Own(slot)
        } else {
            BucketKey::Common(slot.index_in(COMMON_BUCKETS))
        };
        take(&buckets, &key, quota)
    }

    /// Takes a cell from a bucket that many keys have in common, which contains this process's share of the quota.
    pub(super) fn take_from_common(&self, slot: Slot, quota: Quota, processes: u32) -> Level {
        let cells = NonZeroU32::new(quota.cells.get() / processes.max(1)).unwrap_or(NonZeroU32::MIN);
        let quota = Quota { cells, ..quota };
        take(&self.buckets(quota), &BucketKey::Common(slot.index_in(COMMON_BUCKETS)), quota)
    }

    /// Drops full buckets and quotas without buckets.
    pub(super) fn drop_full(&self) {
        let sets: Vec<_> = self.lock().values().cloned().collect();
        for buckets in sets {
            buckets.retain_recent();
            buckets.shrink_to_fit();
        }
        // A set without buckets belongs to a quota that is not in use. It stays while a check is using it.
        self.lock().retain(|_, buckets| !buckets.is_empty() || Arc::strong_count(buckets) > 1);
    }

    fn buckets(&self, quota: Quota) -> Arc<Buckets> {
        let mut by_quota = self.lock();
        let buckets = by_quota.entry(quota).or_insert_with(|| {
            // The quota of a whole window may be used in one burst; then one cell flows back per interval.
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

    /// Takes one cell for each key, and returns the number of admitted takes.
    fn admitted(gate: &Gate, quota: Quota, keys: impl Iterator<Item = u32>) -> usize {
        let slots = buckets::Buckets::new(1);
        let taken = keys.map(|key| gate.take(slots.slot(&key.to_be_bytes(), quota), quota));
        taken.filter(|level| matches!(level, Level::Taken { .. })).count()
    }

    #[test]
    fn takes_beyond_the_quota_are_rejected() {
        let gate = Gate::new(100);
        assert_eq!(admitted(&gate, quota(100), std::iter::repeat_n(1, 150)), 100);
        assert_eq!(admitted(&gate, quota(101), std::iter::once(1)), 1, "a new quota applies immediately");
    }

    #[test]
    fn keys_beyond_the_capacity_share_a_bounded_number_of_buckets() {
        let gate = Gate::new(10);
        let admitted = admitted(&gate, quota(1), 0..20_000);
        let keys = gate.buckets(quota(1)).len();
        assert!(keys as u64 <= 10 + COMMON_BUCKETS, "{keys} keys");
        assert_eq!(admitted, keys);
    }
}
