//! How the processes of a role divide its shards.
//!
//! Who works on a shard is decided by the shard's lease, and by nothing here. What is decided here is how many leases
//! a process asks for: its *quota*, an even part of all shards, from its rank among the processes that live. Whoever
//! owns more gives the surplus back, between two batches; whoever owns less takes what is free. Processes that see
//! different lists for a moment divide unevenly for that moment, and do no harm.

mod members;
mod quota;

use std::{future::Future, sync::Arc, time::Duration};

use atrium_shared::{
    lifecycle::Shutdown,
    streams::Redis,
    telemetry::metrics::{SHARDS_DUE, SHARDS_OWNED},
};
use metrics::gauge;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{members::Members, quota::quota};
use crate::timings::{BEAT, BEAT_LIMIT, SILENT_AFTER};

/// How long a process waits before it tries again to get a shard that somebody else has.
const PAUSE_WITHOUT_LEASE: Duration = Duration::from_millis(400);

/// A process's part of a role's shards. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Share {
    role: &'static str,
    owner: Arc<str>,
    counts: Arc<watch::Sender<Counts>>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    /// How many shards are this process's due.
    quota: u16,
    /// How many it owns, or tries to get at this moment.
    taken: u16,
}

impl Share {
    /// Announces this process among those that play `role`, as long as `works` says that it could do its work: one that
    /// is cut off from what it needs must not keep shards from those that are not.
    pub(crate) fn spawn<F>(
        role: &'static str,
        shards: u16,
        redis: &Redis,
        process: &str,
        works: impl Fn() -> F + Send + Sync + 'static,
        shutdown: &Shutdown,
    ) -> Self
    where
        F: Future<Output = bool> + Send,
    {
        // A name may be given twice by mistake. Two that were taken for one would leave shards to nobody.
        let owner = format!("{process}/{:016x}", rand::random::<u64>());
        let share = Self { role, owner: owner.as_str().into(), counts: Arc::default() };
        let members = Members::new(redis.clone(), role, &owner);
        let (announced, stop) = (share.clone(), shutdown.draining().clone());
        shutdown.spawn_critical("shares of shards", async move {
            announced.announce(&members, shards, works, &stop).await;
            Ok(())
        });
        share
    }

    /// What this process calls itself in leases. Unique for each start of each process.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    async fn announce<F: Future<Output = bool>>(
        &self,
        members: &Members,
        shards: u16,
        works: impl Fn() -> F,
        stop: &CancellationToken,
    ) {
        let mut heard_at = Instant::now();
        loop {
            let began_at = Instant::now();
            let beat = async { if works().await { members.beat(SILENT_AFTER).await.ok() } else { None } };
            match tokio::time::timeout(BEAT_LIMIT, beat).await.ok().flatten() {
                Some(living) => {
                    heard_at = began_at;
                    self.set_quota(quota(shards, &living, &self.owner));
                }
                // By now the others have stopped to count this process.
                None if heard_at.elapsed() >= SILENT_AFTER => self.set_quota(0),
                None => {}
            }
            if stop.run_until_cancelled(tokio::time::sleep(BEAT)).await.is_none() {
                break;
            }
        }
        if let Err(error) = members.leave().await {
            tracing::debug!(role = self.role, %error, "the others will notice by themselves that this process is gone");
        }
    }

    fn set_quota(&self, quota: u16) {
        gauge!(SHARDS_DUE, "role" => self.role).set(f64::from(quota));
        self.counts.send_if_modified(|counts| std::mem::replace(&mut counts.quota, quota) != quota);
    }

    /// Waits until this process may try to get one more shard.
    pub(crate) async fn slot(&self) -> Slot {
        let mut news = self.counts.subscribe();
        loop {
            if let Some(slot) = self.take() {
                return slot;
            }
            // The sender is ours, so it is not gone.
            let _ = news.wait_for(|counts| counts.taken < counts.quota).await;
        }
    }

    fn take(&self) -> Option<Slot> {
        let taken = self.counts.send_if_modified(|counts| {
            let free = counts.taken < counts.quota;
            counts.taken += u16::from(free);
            free
        });
        taken.then(|| Slot { share: self.clone(), given_back: false })
    }

    /// Waits before the next try to get a shard that could not be had.
    pub(crate) async fn pause(&self, stop: &CancellationToken) {
        let pause = PAUSE_WITHOUT_LEASE.mul_f64(rand::random_range(0.8..1.2));
        let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// One of the shards that a process may own. Dropping it makes room for another.
pub(crate) struct Slot {
    share: Share,
    given_back: bool,
}

impl Slot {
    /// The shard is owned until what this returns is dropped.
    pub(crate) fn owned(&self) -> Owned {
        gauge!(SHARDS_OWNED, "role" => self.share.role).increment(1.0);
        Owned(self.share.role)
    }

    /// Whether the shard must go to somebody else. Says so for as many shards as are too many.
    pub(crate) fn is_surplus(&mut self) -> bool {
        if !self.given_back {
            self.given_back = self.share.counts.send_if_modified(|counts| {
                let surplus = counts.taken > counts.quota;
                counts.taken -= u16::from(surplus);
                surplus
            });
        }
        self.given_back
    }

    /// Returns when the shard must go to somebody else.
    pub(crate) async fn surplus(&mut self) {
        let mut news = self.share.counts.subscribe();
        while !self.is_surplus() {
            let _ = news.wait_for(|counts| counts.taken > counts.quota).await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.given_back {
            self.share.counts.send_modify(|counts| counts.taken -= 1);
        }
    }
}

/// A shard that counts as owned.
pub(crate) struct Owned(&'static str);

impl Drop for Owned {
    fn drop(&mut self) {
        gauge!(SHARDS_OWNED, "role" => self.0).decrement(1.0);
    }
}
