//! Divides the shards of a role among its processes.
//!
//! A shard's lease alone decides which process works on it. This module only decides how many leases a process tries to
//! take: its *quota*, an even part of all shards, which follows from the process's rank among the live processes. A
//! process that owns more releases the surplus between two batches; a process that owns less takes leases that are
//! free. If processes briefly read different lists, the division is uneven for that time, which does no harm.

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
use crate::timings::{HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT, LIVENESS_TIMEOUT};

/// How long a process waits before it tries again to take a shard that another process owns.
const PAUSE_WITHOUT_LEASE: Duration = Duration::from_millis(400);

/// Limits how many shards of a role this process owns at the same time. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Slots {
    role: &'static str,
    owner: Arc<str>,
    counts: Arc<watch::Sender<Counts>>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    /// How many shards this process should own.
    quota: u16,
    /// How many shards it owns or is trying to take.
    taken: u16,
}

impl Slots {
    /// Registers this process as one that runs `role` and renews the registration while `is_healthy` returns true: a
    /// process that cannot reach its dependencies must not keep shards from processes that can.
    pub(crate) fn spawn<F>(
        role: &'static str,
        shards: u16,
        redis: &Redis,
        process: &str,
        is_healthy: impl Fn() -> F + Send + Sync + 'static,
        shutdown: &Shutdown,
    ) -> Self
    where
        F: Future<Output = bool> + Send,
    {
        // Two processes may be configured with the same name. If both counted as one process, some shards would have no
        // owner.
        let owner = format!("{process}/{:016x}", rand::random::<u64>());
        let slots = Self { role, owner: owner.as_str().into(), counts: Arc::default() };
        let members = Members::new(redis.clone(), role, &owner);
        let (registered, stop) = (slots.clone(), shutdown.draining().clone());
        shutdown.spawn_critical("shares of shards", async move {
            registered.keep_registered(&members, shards, is_healthy, &stop).await;
            Ok(())
        });
        slots
    }

    /// The name of this process in leases, unique to each start of a process.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    async fn keep_registered<F: Future<Output = bool>>(
        &self,
        members: &Members,
        shards: u16,
        is_healthy: impl Fn() -> F,
        stop: &CancellationToken,
    ) {
        let mut last_heartbeat_at = Instant::now();
        loop {
            let started_at = Instant::now();
            let heartbeat = async {
                if is_healthy().await { members.heartbeat(LIVENESS_TIMEOUT).await.ok() } else { None }
            };
            match tokio::time::timeout(HEARTBEAT_TIMEOUT, heartbeat).await.ok().flatten() {
                Some(live) => {
                    last_heartbeat_at = started_at;
                    self.set_quota(quota(shards, &live, &self.owner));
                }
                // By now the other processes no longer count this one.
                None if last_heartbeat_at.elapsed() >= LIVENESS_TIMEOUT => self.set_quota(0),
                None => {}
            }
            if stop.run_until_cancelled(tokio::time::sleep(HEARTBEAT_INTERVAL)).await.is_none() {
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

    /// Waits until this process may try to take one more shard.
    pub(crate) async fn acquire(&self) -> Slot {
        let mut updates = self.counts.subscribe();
        loop {
            if let Some(slot) = self.try_acquire() {
                return slot;
            }
            // This struct owns the sender, so the channel is open.
            let _ = updates.wait_for(|counts| counts.taken < counts.quota).await;
        }
    }

    fn try_acquire(&self) -> Option<Slot> {
        let taken = self.counts.send_if_modified(|counts| {
            let free = counts.taken < counts.quota;
            counts.taken += u16::from(free);
            free
        });
        taken.then(|| Slot { slots: self.clone(), released: false })
    }

    /// Waits before the next try to take a shard whose lease was not available.
    pub(crate) async fn pause(&self, stop: &CancellationToken) {
        let pause = PAUSE_WITHOUT_LEASE.mul_f64(rand::random_range(0.8..1.2));
        let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}

/// Permission to own one shard. Dropping it frees the slot for another shard.
pub(crate) struct Slot {
    slots: Slots,
    released: bool,
}

impl Slot {
    /// Counts the shard as owned until the returned guard is dropped.
    pub(crate) fn owned(&self) -> Owned {
        gauge!(SHARDS_OWNED, "role" => self.slots.role).increment(1.0);
        Owned(self.slots.role)
    }

    /// Whether the shard must be released. Returns true for as many slots as exceed the quota.
    pub(crate) fn is_surplus(&mut self) -> bool {
        if !self.released {
            self.released = self.slots.counts.send_if_modified(|counts| {
                let surplus = counts.taken > counts.quota;
                counts.taken -= u16::from(surplus);
                surplus
            });
        }
        self.released
    }

    /// Waits until the shard must be released.
    pub(crate) async fn surplus(&mut self) {
        let mut updates = self.slots.counts.subscribe();
        while !self.is_surplus() {
            let _ = updates.wait_for(|counts| counts.taken > counts.quota).await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.released {
            self.slots.counts.send_modify(|counts| counts.taken -= 1);
        }
    }
}

/// The guard of a shard that counts as owned.
pub(crate) struct Owned(&'static str);

impl Drop for Owned {
    fn drop(&mut self) {
        gauge!(SHARDS_OWNED, "role" => self.0).decrement(1.0);
    }
}
