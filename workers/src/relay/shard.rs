//! One shard: wait for its lease, publish and sweep while it is ours, give it back.

use std::{sync::Arc, time::Duration};

use atrium_shared::{
    db::in_time,
    messages::Topic,
    streams::{Inbound, Redis},
};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    fenced::{self, Added},
    lease::Lease,
    publish::{BatchOutcome, publish_batch},
    sweep::Sweeper,
};
use crate::{
    shards::{Slot, Slots},
    timings::RELAY_POLL,
};

/// A batch that takes longer hangs, on a connection whose other end is gone. All waits that end by themselves are shorter.
const BATCH_LIMIT: Duration = Duration::from_secs(10);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);

pub(super) struct Shard {
    number: u16,
    pool: PgPool,
    redis: Redis,
    slots: Slots,
    /// There is something to publish.
    news: Arc<Notify>,
}

impl Shard {
    pub(super) fn new(number: u16, pool: PgPool, redis: Redis, slots: Slots, news: Arc<Notify>) -> Self {
        Self { number, pool, redis, slots, news }
    }

    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        while let Some(slot) = stop.run_until_cancelled(self.slots.slot()).await {
            if !self.own(slot, &stop).await {
                self.slots.pause(&stop).await;
            }
        }
        Ok(())
    }

    /// Works for as long as the shard is ours. False: somebody else has it, or nobody can tell.
    async fn own(&self, mut slot: Slot, stop: &CancellationToken) -> bool {
        let mut lease = match in_time(Lease::acquire(&self.pool, self.number, self.slots.owner())).await {
            Ok(Some(lease)) => lease,
            Ok(None) => return false,
            Err(error) => {
                tracing::debug!(shard = self.number, %error, "a relay shard's lease cannot be asked for");
                return false;
            }
        };
        tracing::debug!(shard = self.number, token = lease.token, "owning a relay shard");
        let owned = slot.owned();
        let sweeper = Sweeper::new(self.number, &self.pool, &self.redis, &self.news);
        let kept = tokio::select! {
            kept = self.publish(&mut lease, &mut slot, stop) => kept,
            never = sweeper.run() => match never {},
        };
        drop(owned);
        if !kept {
            tracing::warn!(shard = self.number, "a relay shard went to somebody else");
        } else if let Err(error) = in_time(lease.release()).await {
            tracing::debug!(shard = self.number, %error, "a lease was not given back; it ends by itself");
        }
        kept
    }

    /// Publishes until the process stops or the shard is due to somebody else. What stands in the outbox then is
    /// published by the next owner; a batch is never cut in half. False: the lease was lost.
    async fn publish(&self, lease: &mut Lease, slot: &mut Slot, stop: &CancellationToken) -> bool {
        if let Some(token) = self.raise_fences(lease).await
            && matches!(in_time(lease.advance(token)).await, Ok(false))
        {
            return false;
        }
        while !stop.is_cancelled() && !slot.is_surplus() {
            let failed = match self.publish_once(lease).await {
                Ok(None) => return false,
                Ok(Some(BatchOutcome { more: true, failed: None, .. })) => continue,
                Ok(Some(BatchOutcome { failed: None, .. })) => false,
                Ok(Some(BatchOutcome { failed: Some(error), .. })) => {
                    tracing::warn!(shard = self.number, %error, "a stream takes no messages; trying again");
                    true
                }
                Err(error) => {
                    tracing::warn!(shard = self.number, %error, "messages cannot be published; trying again");
                    true
                }
            };
            let pause = async {
                if failed {
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                } else {
                    let poll = RELAY_POLL.mul_f64(rand::random_range(0.8..1.2));
                    let _ = tokio::time::timeout(poll, self.news.notified()).await;
                }
            };
            tokio::select! {
                () = pause => {}
                () = stop.cancelled() => {}
                () = slot.surplus() => {}
            }
        }
        true
    }

    /// One batch, and a new token where that is needed. None: the lease was lost.
    async fn publish_once(&self, lease: &mut Lease) -> Result<Option<BatchOutcome>, sqlx::Error> {
        let batch = match tokio::time::timeout(BATCH_LIMIT, publish_batch(lease, &self.redis)).await {
            Ok(batch) => batch?,
            // PostgreSQL or Redis hangs: nobody knows what was done.
            Err(_) => return Ok(in_time(lease.advance(0)).await?.then(BatchOutcome::default)),
        };
        match batch {
            Some(batch) if batch.may_be_late() || batch.outdated_by.is_some() => {
                Ok(in_time(lease.advance(batch.outdated_by.unwrap_or(0))).await?.then_some(batch))
            }
            batch => Ok(batch),
        }
    }

    /// Refuses from now on what former owners still want to add. Returns the highest token that is higher than ours. A
    /// stream that does not answer keeps its fence as it is until something is published there.
    async fn raise_fences(&self, lease: &Lease) -> Option<i64> {
        let mut highest = None;
        let streams = Topic::ALL.map(|topic| Inbound::of_shard(topic, self.number));
        let calls = streams.map(|stream| fenced::add(&self.redis, stream, self.number, lease.token, []));
        for answer in futures_util::future::join_all(calls).await {
            match answer {
                Ok(Added::Entries(_)) => {}
                Ok(Added::Refused(token)) => highest = highest.max(Some(token)),
                Err(error) => tracing::debug!(shard = self.number, %error, "a fence cannot be raised yet"),
            }
        }
        highest
    }
}
