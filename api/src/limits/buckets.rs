//! What this process knows of buckets: the arithmetic of limits (GCRA), and a bounded memory for many keys.
//!
//! A bucket is one number: when it will be full again. A cell taken moves that moment away by the time in which one
//! cell flows back; a bucket that would need more than a whole window is empty. The shared counter keeps the same
//! number, and what it answers is kept here: until a bucket that is empty there has room again, nobody asks.
//!
//! Memory is bounded: full buckets are dropped, and when there are too many, a key is told to share (`gate`).

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    num::NonZeroU32,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

/// Maps that are locked apart.
const SHARDS: usize = 16;
/// Of a large quota, so small a part is taken from the shared bucket at once: the error that it makes, with what
/// every process has taken and not used, stays below anything that can be measured.
const PART: u32 = 2000;

/// A limit: a number of cells, which flow back within the window.
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

    /// How many cells to take from the shared bucket at once.
    pub(super) fn part(self) -> u32 {
        (self.cells.get() / PART).max(1)
    }
}

/// What to count with while the shared counter does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// How many processes there are. Each gives its share: one cell here stands for one in each of them.
    pub(super) processes: u32,
    /// Since when nobody knows what the others give, on the clock of the buckets.
    pub(super) since: Duration,
}

impl Share {
    /// Everything: what a process gives that counts alone.
    pub(super) const ALL: Self = Self { processes: 1, since: Duration::ZERO };
}

/// How a bucket stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// A cell was taken.
    Taken {
        /// How many are left.
        remaining: u32,
        /// How long until all are back.
        full_in: Duration,
    },
    /// There was none.
    Empty {
        /// How long until there is one.
        wait: Duration,
    },
}

/// What this process can say about a bucket by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// All there is to say.
    Level(Level),
    /// There may be a cell: the shared counter knows. The bucket lacks at least this much.
    Maybe { lack: Duration },
    /// There is no room to remember this key.
    Crowd,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When it will be full, on the clock of the buckets.
    full_at: Duration,
    /// Cells that were taken from the shared bucket and not used.
    taken: u32,
}

impl Bucket {
    fn lack(self, now: Duration) -> Duration {
        self.full_at.saturating_sub(now)
    }

    /// Takes a cell that takes `interval` to flow back.
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
        let full_in = self.lack(now);
        let whole = window.saturating_sub(full_in).as_nanos() / interval.as_nanos().max(1);
        let remaining = u32::try_from(whole).unwrap_or(u32::MAX).saturating_add(self.taken);
        Level::Taken { remaining, full_in }
    }

    /// While the shared counter is unavailable. Every cell stands for one in each process, which keeps the sum at the
    /// quota from then on. What others gave just before is not known, so at first all processes but one may give one
    /// share together, and this one its part of that: whatever was given, the sum stays within one share more. But
    /// one cell there always is, or nobody would get in at all.
    fn take_of_share(&mut self, now: Duration, quota: Quota, share: Share) -> Level {
        let interval = (quota.interval() * share.processes).min(quota.window);
        if let Some(others) = share.processes.checked_sub(1).filter(|others| *others > 0) {
            let at_first = (quota.window / others).max(interval);
            self.full_at = self.full_at.max((share.since + quota.window).saturating_sub(at_first));
        }
        self.take(now, quota.window, interval)
    }
}

/// Names a bucket in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u64);

impl Slot {
    /// One of `count`, for keys that share.
    pub(super) fn among(self, count: u64) -> u64 {
        self.0 % count
    }
}

/// Buckets by key. All methods take the present moment, on any clock that only moves forward.
pub(super) struct Buckets {
    shards: [Mutex<HashMap<Slot, Bucket>>; SHARDS],
    // Seeded at random, so that nobody can choose whom to share a bucket with.
    hasher: RandomState,
    shard_capacity: usize,
}

impl std::hash::Hash for Slot {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl Buckets {
    /// Room for `capacity` keys.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            shards: Default::default(),
            hasher: RandomState::new(),
            shard_capacity: capacity.div_ceil(SHARDS),
        }
    }

    /// The bucket of this key under this quota: who gets another quota begins with a full one. Two keys in one slot
    /// share a bucket; with 64 bits it does not happen.
    pub(super) fn slot(&self, key: &[u8], quota: Quota) -> Slot {
        Slot(self.hasher.hash_one((key, quota.cells)))
    }

    /// What is known without asking anybody. Takes a cell if there is one to take.
    pub(super) fn known(&self, slot: Slot, quota: Quota, now: Duration) -> Known {
        let mut shard = self.shard(slot);
        if !shard.contains_key(&slot) && shard.len() >= self.shard_capacity {
            return Known::Crowd;
        }
        let bucket = shard.entry(slot).or_default();
        if let Some(left) = bucket.taken.checked_sub(1) {
            bucket.taken = left;
            return Known::Level(bucket.level(now, quota.window, quota.interval()));
        }
        // Only tried: what is taken is for the shared counter to say.
        let mut tried = *bucket;
        match tried.take(now, quota.window, quota.interval()) {
            Level::Taken { .. } => Known::Maybe { lack: bucket.lack(now) },
            empty @ Level::Empty { .. } => Known::Level(empty),
        }
    }

    /// Whether this process knows that there is no cell, and how long until there is one.
    pub(super) fn is_empty(&self, slot: Slot, quota: Quota, now: Duration) -> Option<Duration> {
        let mut bucket = self.shard(slot).get(&slot).copied().filter(|bucket| bucket.taken == 0)?;
        match bucket.take(now, quota.window, quota.interval()) {
            Level::Empty { wait } => Some(wait),
            Level::Taken { .. } => None,
        }
    }

    /// Takes in what the shared counter said: `cells` were taken, and the bucket now lacks `lack`.
    pub(super) fn learn(&self, slot: Slot, quota: Quota, now: Duration, cells: u32, lack: Duration) -> Level {
        let mut shard = self.shard(slot);
        let bucket = shard.entry(slot).or_default();
        // Answers may come out of order; a bucket is never fuller than the emptiest of them says.
        bucket.full_at = bucket.full_at.max(now + lack);
        match cells.checked_sub(1) {
            Some(more) => {
                bucket.taken += more;
                bucket.level(now, quota.window, quota.interval())
            }
            None => Level::Empty { wait: (lack + quota.interval()).saturating_sub(quota.window) },
        }
    }

    /// Takes a cell without asking anybody, of this process's share.
    pub(super) fn take_of_share(&self, slot: Slot, quota: Quota, now: Duration, share: Share) -> Level {
        self.shard(slot).entry(slot).or_default().take_of_share(now, quota, share)
    }

    /// Forgets what is full again.
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
        // The high bits; the map uses the low ones.
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
    fn a_quota_is_admitted_at_once_and_then_flows_back() {
        let mut bucket = Bucket::default();
        let interval = quota(100).interval();
        assert_eq!(admitted(150, || bucket.take(NOW, WINDOW, interval)), 100);
        assert_eq!(bucket.take(NOW, WINDOW, interval), Level::Empty { wait: interval });
        assert_eq!(admitted(150, || bucket.take(NOW + WINDOW / 2, WINDOW, interval)), 50);
        assert_eq!(admitted(150, || bucket.take(NOW + WINDOW * 9, WINDOW, interval)), 100);
    }

    #[test]
    fn shares_add_up_to_the_quota_however_many_processes_there_are() {
        for processes in [1, 2, 3, 10] {
            let share = Share { processes, since: Duration::ZERO };
            let sum: usize = (0..processes)
                .map(|_| {
                    let mut bucket = Bucket::default();
                    admitted(200, || bucket.take_of_share(NOW, quota(100), share))
                })
                .sum();
            let processes = processes as usize;
            assert!((100 - processes..=100).contains(&sum), "{sum} of {processes} processes");
        }
    }

    #[test]
    fn just_after_the_shared_counter_went_away_at_most_one_share_more_is_given() {
        for processes in [2_u32, 3, 10] {
            let share = Share { processes, since: NOW };
            // One process has given everything; the others have not heard of it.
            let unaware = |_| {
                let mut bucket = Bucket::default();
                let given = admitted(200, || bucket.take_of_share(NOW, quota(100), share));
                assert!(given >= 1, "nobody is locked out");
                given
            };
            let more: usize = (1..processes).map(unaware).sum();
            assert!(more <= 100_usize.div_ceil(processes as usize), "{more} more with {processes} processes");
            let mut aware = Bucket { full_at: NOW + WINDOW, taken: 0 };
            assert_eq!(admitted(200, || aware.take_of_share(NOW, quota(100), share)), 0);
        }
    }

    #[test]
    fn a_quota_smaller_than_the_number_of_processes_still_lets_somebody_in() {
        let mut bucket = Bucket::default();
        let share = Share { processes: 50, since: NOW };
        assert_eq!(admitted(10, || bucket.take_of_share(NOW, quota(10), share)), 1);
    }

    #[test]
    fn what_the_shared_counter_said_is_known_from_then_on() {
        let buckets = Buckets::new(100);
        let slot = buckets.slot(b"somebody", quota(100));
        assert_eq!(buckets.known(slot, quota(100), NOW), Known::Maybe { lack: Duration::ZERO });
        let interval = quota(100).interval();
        let level = buckets.learn(slot, quota(100), NOW, 1, interval * 40);
        assert_eq!(level, Level::Taken { remaining: 60, full_in: interval * 40 });
        let empty = Level::Empty { wait: interval };
        assert_eq!(buckets.learn(slot, quota(100), NOW, 0, WINDOW), empty);
        assert_eq!(buckets.known(slot, quota(100), NOW), Known::Level(empty));
        assert_eq!(buckets.is_empty(slot, quota(100), NOW), Some(interval));
        // An answer that was overtaken does not open it again.
        buckets.learn(slot, quota(100), NOW, 1, interval * 70);
        assert_eq!(buckets.known(slot, quota(100), NOW), Known::Level(empty));
        assert!(matches!(buckets.known(slot, quota(100), NOW + interval), Known::Maybe { .. }));
    }

    #[test]
    fn cells_taken_ahead_are_used_without_asking() {
        let buckets = Buckets::new(100);
        let large = quota(10_000);
        let slot = buckets.slot(b"somebody", large);
        assert_eq!(large.part(), 5);
        buckets.learn(slot, large, NOW, 5, large.interval() * 5);
        for left in (9_995..9_999).rev() {
            let full_in = large.interval() * 5;
            assert_eq!(
                buckets.known(slot, large, NOW),
                Known::Level(Level::Taken { remaining: left, full_in })
            );
        }
        assert!(matches!(buckets.known(slot, large, NOW), Known::Maybe { .. }));
    }

    #[test]
    fn a_new_quota_holds_at_once() {
        let buckets = Buckets::new(100);
        let slot = buckets.slot(b"somebody", quota(1));
        buckets.learn(slot, quota(1), NOW, 0, WINDOW);
        assert!(matches!(buckets.known(slot, quota(1), NOW), Known::Level(Level::Empty { .. })));
        let slot = buckets.slot(b"somebody", quota(5));
        assert!(matches!(buckets.known(slot, quota(5), NOW), Known::Maybe { .. }));
    }

    #[test]
    fn many_keys_share_buckets_and_memory_stays() {
        let buckets = Buckets::new(160);
        let mut admitted = 0;
        for key in 0..200_000_u32 {
            let slot = buckets.slot(&key.to_be_bytes(), quota(1));
            let level = match buckets.known(slot, quota(1), NOW) {
                Known::Crowd => continue,
                _ => buckets.learn(slot, quota(1), NOW, 1, WINDOW),
            };
            admitted += usize::from(matches!(level, Level::Taken { .. }));
        }
        assert_eq!(buckets.len(), 160);
        assert_eq!(admitted, 160);
        // Who was there before the crowd is judged alone.
        let first = buckets.slot(&0_u32.to_be_bytes(), quota(1));
        assert!(matches!(buckets.known(first, quota(1), NOW), Known::Level(Level::Empty { .. })));
        buckets.drop_full(NOW + WINDOW);
        assert_eq!(buckets.len(), 0);
    }
}
