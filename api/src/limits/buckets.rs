//! The buckets of this process: the arithmetic of limits (GCRA), and a bounded cache for many keys.
//!
//! A bucket is one number: the time at which it will be full. Taking a cell delays that time by one interval, in which
//! a cell flows back. A bucket is empty if it would then need more than a whole window to fill. The shared counter
//! keeps the same number, and its replies are cached here: while a shared bucket is empty, this process does not call
//! Redis for it.
//!
//! Memory is bounded: full buckets are dropped, and keys beyond the capacity share buckets of the `gate`.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

/// The number of maps, each with its own lock.
const SHARDS: usize = 16;
/// One call takes this fraction of a large quota from the shared bucket: 1/2000. It is so small that the cells which
/// processes have taken and not used make no measurable error.
const CALLS_PER_QUOTA: u32 = 2000;

/// The quota of a limit: a number of cells, which flow back within the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Quota {
    pub(super) cells: NonZeroU32,
    pub(super) window: Duration,
}

impl Quota {
    /// The time in which one cell flows back.
    pub(super) fn interval(self) -> Duration {
        self.window / self.cells.get()
    }

    /// The number of cells to take from the shared bucket in one call.
    pub(super) fn batch(self) -> u32 {
        (self.cells.get() / CALLS_PER_QUOTA).max(1)
    }
}

/// The share of this process while the shared counter is unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The number of processes. Each grants its share, so one cell taken here counts as one taken in each process.
    pub(super) processes: u32,
    /// Since when the cells granted by other processes are unknown, on the clock of the buckets.
    pub(super) since: Duration,
}

impl Share {
    /// The whole quota, for a process that counts alone.
    pub(super) const ALL: Self = Self { processes: 1, since: Duration::ZERO };
}

/// The level of a bucket after a take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// A cell was taken.
    Taken {
        /// The number of cells left.
        remaining: u32,
        /// The time until the bucket is full.
        full_in: Duration,
    },
    /// There was no cell.
    Empty {
        /// The time until there is one.
        wait: Duration,
    },
}

/// The result of a check without the shared counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LocalResult {
    /// The level is certain.
    Decided(Level),
    /// There may be a cell, and the shared counter decides. The bucket is full in this time or later.
    Undecided { full_in: Duration },
    /// There is no capacity to track this key.
    Untracked,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When the bucket will be full, on the clock of the buckets.
    full_at: Duration,
    /// Cells that were taken from the shared bucket and not used.
    prefetched: u32,
}

impl Bucket {
    fn full_in(self, now: Duration) -> Duration {
        self.full_at.saturating_sub(now)
    }

    /// Takes a cell that flows back in `interval`.
    fn take(&mut self, now: Duration, window: Duration, interval: Duration) -> Level {
        let full_at = self.full_at.max(now) + interval;
        if full_at <= now + window {
            self.full_at = full_at;
            self.level(now, window, interval)
        } else {
            Level::Empty { wait: full_at - (now + window) }
        }
    }

    fn level(self, now: Duration, window: Duration, interval: Duration) -> Level {
        let full_in = self.full_in(now);
        let whole = window.saturating_sub(full_in).as_nanos() / interval.as_nanos().max(1);
        let remaining = u32::try_from(whole).unwrap_or(u32::MAX).saturating_add(self.prefetched);
        Level::Taken { remaining, full_in }
    }

    /// Takes a cell while the shared counter is unavailable. Every cell counts as one in each process, which keeps the
    /// sum at the quota from then on. The number that other processes granted just before is unknown. So at first, all
    /// processes but one may grant one share together, and each of them an equal part of it: the sum is at most one
    /// share more than the quota in every case. But at least one cell is always available, so that some callers are
    /// admitted.
    fn take_from_share(&mut self, now: Duration, quota: Quota, share: Share) -> Level {
        let interval = (quota.interval() * share.processes).min(quota.window);
        if let Some(others) = share.processes.checked_sub(1).filter(|others| *others > 0) {
            let at_first = (quota.window / others).max(interval);
            self.full_at = self.full_at.max((share.since + quota.window).saturating_sub(at_first));
        }
        self.take(now, quota.window, interval)
    }
}

/// Identifies a bucket in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u64);

impl Slot {
    /// An index below `count`, for keys that share buckets.
    pub(super) fn index_in(self, count: u64) -> u64 {
        self.0 % count
    }
}

/// Buckets by key. Methods that depend on time take the current time of a monotonic clock.
pub(super) struct Buckets {
    shards: [Mutex<HashMap<Slot, Bucket>>; SHARDS],
    // Seeded at random, so that a caller cannot choose with which key to share a bucket.
    hasher: RandomState,
    shard_capacity: usize,
}

impl std::hash::Hash for Slot {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl Buckets {
    /// Buckets for at most `capacity` keys.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            shard_capacity: capacity.div_ceil(SHARDS),
        }
    }

    /// The bucket of this key under this quota; a key whose quota changes starts with a full bucket. Two keys with the
    /// same slot would share a bucket, which is negligible with 64 bits.
    pub(super) fn slot(&self, key: &[u8], quota: Quota) -> Slot {
        Slot(self.hasher.hash_one((key, quota.cells)))
    }

    /// Checks a bucket without the shared counter. Takes a prefetched cell, if there is one.
    pub(super) fn check_local(&self, slot: Slot, quota: Quota, now: Duration) -> LocalResult {
        let mut shard = self.shard(slot);
        if !shard.contains_key(&slot) && shard.len() >= self.shard_capacity {
            return LocalResult::Untracked;
        }
        let bucket = shard.entry(slot).or_default();
        if let Some(left) = bucket.prefetched.checked_sub(1) {
            bucket.prefetched = left;
            return LocalResult::Decided(bucket.level(now, quota.window, quota.interval()));
        }
        // The cell is taken from a copy only: the shared counter decides whether one is taken.
        let mut copy = *bucket;
        match copy.take(now, quota.window, quota.interval()) {
            Level::Taken { .. } => LocalResult::Undecided { full_in: bucket.full_in(now) },
            empty @ Level::Empty { .. } => LocalResult::Decided(empty),
        }
    }

    /// The time until there is a cell, if the bucket is cached as empty.
    pub(super) fn wait_if_empty(&self, slot: Slot, quota: Quota, now: Duration) -> Option<Duration> {
        let mut bucket = self.shard(slot).get(&slot).copied().filter(|bucket| bucket.prefetched == 0)?;
        match bucket.take(now, quota.window, quota.interval()) {
            Level::Empty { wait } => Some(wait),
            Level::Taken { .. } => None,
        }
    }

    /// Caches a reply of the shared counter: `cells` were taken, and the bucket is full in `full_in`.
    pub(super) fn record(
        &self,
        slot: Slot,
        quota: Quota,
        now: Duration,
        cells: u32,
        full_in: Duration,
    ) -> Level {
        let mut shard = self.shard(slot);
        let bucket = shard.entry(slot).or_default();
        // Replies may arrive out of order; the one with the lowest level counts.
        bucket.full_at = bucket.full_at.max(now + full_in);
        match cells.checked_sub(1) {
            Some(unused) => {
                bucket.prefetched += unused;
                bucket.level(now, quota.window, quota.interval())
            }
            None => Level::Empty { wait: (full_in + quota.interval()).saturating_sub(quota.window) },
        }
    }

    /// Takes a cell from this process's share, without the shared counter.
    pub(super) fn take_from_share(&self, slot: Slot, quota: Quota, now: Duration, share: Share) -> Level {
        self.shard(slot).entry(slot).or_default().take_from_share(now, quota, share)
    }

    /// Drops full buckets.
    pub(super) fn drop_full(&self, now: Duration) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.retain(|_, bucket| bucket.full_at > now);
            if shard.len() * 4 < shard.capacity() {
                shard.shrink_to_fit();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn shard(&self, slot: Slot) -> MutexGuard<'_, HashMap<Slot, Bucket>> {
        // The high bits, because the map uses the low ones.
        self.shards[(slot.0 >> 60) as usize % SHARDS].lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);
    const NOW: Duration = Duration::from_secs(1000);

    fn quota(cells: u32) -> Quota {
        Quota { cells: NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN), window: WINDOW }
    }

    fn admitted(count: usize, mut take: impl FnMut() -> Level) -> usize {
        (0..count).filter(|_| matches!(take(), Level::Taken { .. })).count()
    }

    #[test]
    fn a_burst_up_to_the_quota_is_admitted_and_cells_flow_back() {
        let mut bucket = Bucket::default();
        let interval = quota(100).interval();
        assert_eq!(admitted(150, || bucket.take(NOW, WINDOW, interval)), 100);
        assert_eq!(bucket.take(NOW, WINDOW, interval), Level::Empty { wait: interval });
        assert_eq!(admitted(150, || bucket.take(NOW + WINDOW / 2, WINDOW, interval)), 50);
        assert_eq!(admitted(150, || bucket.take(NOW + WINDOW * 9, WINDOW, interval)), 100);
    }

    #[test]
    fn shares_of_any_number_of_processes_add_up_to_the_quota() {
        for processes in [1, 2, 3, 10] {
            let share = Share { processes, since: Duration::ZERO };
            let sum: usize = (0..processes)
                .map(|_| {
                    let mut bucket = Bucket::default();
                    admitted(200, || bucket.take_from_share(NOW, quota(100), share))
                })
                .sum();
            let processes = processes as usize;
            assert!((100 - processes..=100).contains(&sum), "{sum} of {processes} processes");
        }
    }

    #[test]
    fn at_most_one_share_more_is_granted_after_the_shared_counter_fails() {
        for processes in [2_u32, 3, 10] {
            let share = Share { processes, since: NOW };
            // One process has granted the whole quota; the others do not know of it.
            let granted_unaware = |_| {
                let mut bucket = Bucket::default();
                let granted = admitted(200, || bucket.take_from_share(NOW, quota(100), share));
                assert!(granted >= 1, "at least one cell is available");
                granted
            };
            let excess: usize = (1..processes).map(granted_unaware).sum();
            assert!(
                excess <= 100_usize.div_ceil(processes as usize),
                "{excess} more with {processes} processes"
            );
            let mut aware = Bucket { full_at: NOW + WINDOW, prefetched: 0 };
            assert_eq!(admitted(200, || aware.take_from_share(NOW, quota(100), share)), 0);
        }
    }

    #[test]
    fn a_quota_below_the_number_of_processes_still_grants_one_cell() {
        let mut bucket = Bucket::default();
        let share = Share { processes: 50, since: NOW };
        assert_eq!(admitted(10, || bucket.take_from_share(NOW, quota(10), share)), 1);
    }

    #[test]
    fn replies_of_the_shared_counter_are_cached() {
        let buckets = Buckets::new(100);
        let slot = buckets.slot(b"caller", quota(100));
        assert_eq!(
            buckets.check_local(slot, quota(100), NOW),
            LocalResult::Undecided { full_in: Duration::ZERO }
        );
        let interval = quota(100).interval();
        let level = buckets.record(slot, quota(100), NOW, 1, interval * 40);
        assert_eq!(level, Level::Taken { remaining: 60, full_in: interval * 40 });
        let empty = Level::Empty { wait: interval };
        assert_eq!(buckets.record(slot, quota(100), NOW, 0, WINDOW), empty);
        assert_eq!(buckets.check_local(slot, quota(100), NOW), LocalResult::Decided(empty));
        assert_eq!(buckets.wait_if_empty(slot, quota(100), NOW), Some(interval));
        // An older reply that arrives later does not refill the bucket.
        buckets.record(slot, quota(100), NOW, 1, interval * 70);
        assert_eq!(buckets.check_local(slot, quota(100), NOW), LocalResult::Decided(empty));
        assert!(matches!(
            buckets.check_local(slot, quota(100), NOW + interval),
            LocalResult::Undecided { .. }
        ));
    }

    #[test]
    fn prefetched_cells_are_used_without_the_shared_counter() {
        let buckets = Buckets::new(100);
        let large = quota(10_000);
        let slot = buckets.slot(b"caller", large);
        assert_eq!(large.batch(), 5);
        buckets.record(slot, large, NOW, 5, large.interval() * 5);
        for left in (9_995..9_999).rev() {
            let full_in = large.interval() * 5;
            assert_eq!(
                buckets.check_local(slot, large, NOW),
                LocalResult::Decided(Level::Taken { remaining: left, full_in })
            );
        }
        assert!(matches!(buckets.check_local(slot, large, NOW), LocalResult::Undecided { .. }));
    }

    #[test]
    fn a_new_quota_applies_immediately() {
        let buckets = Buckets::new(100);
        let slot = buckets.slot(b"caller", quota(1));
        buckets.record(slot, quota(1), NOW, 0, WINDOW);
        assert!(matches!(
            buckets.check_local(slot, quota(1), NOW),
            LocalResult::Decided(Level::Empty { .. })
        ));
        let slot = buckets.slot(b"caller", quota(5));
        assert!(matches!(buckets.check_local(slot, quota(5), NOW), LocalResult::Undecided { .. }));
    }

    #[test]
    fn keys_beyond_the_capacity_are_untracked_and_memory_is_bounded() {
        let buckets = Buckets::new(160);
        let mut admitted = 0;
        for key in 0..200_000_u32 {
            let slot = buckets.slot(&key.to_be_bytes(), quota(1));
            let level = match buckets.check_local(slot, quota(1), NOW) {
                LocalResult::Untracked => continue,
                _ => buckets.record(slot, quota(1), NOW, 1, WINDOW),
            };
            admitted += usize::from(matches!(level, Level::Taken { .. }));
        }
        assert_eq!(buckets.len(), 160);
        assert_eq!(admitted, 160);
        // A key that was tracked before the capacity was reached keeps its own bucket.
        let first = buckets.slot(&0_u32.to_be_bytes(), quota(1));
        assert!(matches!(
            buckets.check_local(first, quota(1), NOW),
            LocalResult::Decided(Level::Empty { .. })
        ));
        buckets.drop_full(NOW + WINDOW);
        assert_eq!(buckets.len(), 0);
    }
}
