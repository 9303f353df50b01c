//! Runs one shard: waits for its lease, publishes and sweeps while the relay owns it, and releases it.

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

/// A batch that takes longer is stuck on a half-open connection. All waits that end on their own are shorter.
const BATCH_LIMIT: Duration = Duration::from_secs(10);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);

pub(super) struct Shard {
    number: u16,
    pool: PgPool,
    redis: Redis,
    slots: Slots,
    /// Notified when there is something to publish.
    wake_up: Arc<Notify>,
}

impl Shard {
    pub(super) fn new(number: u16, pool: PgPool, redis: Redis, slots: Slots, wake_up: Arc<Notify>) -> Self {
        Self { number, pool, redis, slots, wake_up }
    }

    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        while let Some(slot) = stop.run_until_cancelled(self.slots.acquire()).await {
            if !self.own(slot, &stop).await {
                self.slots.pause(&stop).await;
            }
        }
        Ok(())
    }

    /// Publishes for as long as this process owns the shard. Returns false if another process owns it, or if the lease
    /// cannot be requested.
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
        let sweeper = Sweeper::new(self.number, &self.pool, &self.redis, &self.wake_up);
        let is_owner = tokio::select! {
            is_owner = self.publish(&mut lease, &mut slot, stop) => is_owner,
            never = sweeper.run() => match never {},
        };
        drop(owned);
        if !is_owner {
            tracing::warn!(shard = self.number, "another process took the lease on a relay shard");
        } else if let Err(error) = in_time(lease.release()).await {
            tracing::debug!(shard = self.number, %error, "a lease was not released; it will expire");
        }
        is_owner
    }

    /// Publishes until the process stops or the shard is surplus. The next owner publishes the rest of the outbox; a
    /// batch is always completed. Returns false if the lease was lost.
    async fn publish(&self, lease: &mut Lease, slot: &mut Slot, stop: &CancellationToken) -> bool {
        if let Some(token) = self.raise_fencing_tokens(lease).await
            && matches!(in_time(lease.advance(token)).await, Ok(false))
        {
            return false;
        }
        while !stop.is_cancelled() && !slot.is_surplus() {
            let failed = match self.publish_once(lease).await {
                Ok(None) => return false,
                Ok(Some(BatchOutcome { is_full: true, failed: None, .. })) => continue,
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
                    let _ = tokio::time::timeout(poll, self.wake_up.notified()).await;
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

    /// Publishes one batch, and takes a new token if that is needed. Returns `None` if the lease was lost.
    async fn publish_once(&self, lease: &mut Lease) -> Result<Option<BatchOutcome>, sqlx::Error> {
        let batch = match tokio::time::timeout(BATCH_LIMIT, publish_batch(lease, &self.redis)).await {
            Ok(batch) => batch?,
            // PostgreSQL or Redis hangs, so it is unknown whether the batch was published.
            Err(_) => return Ok(in_time(lease.advance(0)).await?.then(BatchOutcome::default)),
        };
        match batch {
            Some(batch) if batch.may_still_run() || batch.higher_token.is_some() => {
                Ok(in_time(lease.advance(batch.higher_token.unwrap_or(0))).await?.then_some(batch))
            }
            batch => Ok(batch),
        }
    }

    /// Makes Redis reject the late entries of former owners. Returns the highest token that is higher than that of the
    /// lease. A stream that does not reply keeps its lower token until something is published to it.
    async fn raise_fencing_tokens(&self, lease: &Lease) -> Option<i64> {
        let mut highest = None;
        let streams = Topic::ALL.map(|topic| Inbound::of_shard(topic, self.number));
        let calls = streams.map(|stream| fenced::add(&self.redis, stream, self.number, lease.token, []));
        for reply in futures_util::future::join_all(calls).await {
            match reply {
                Ok(Added::Entries(_)) => {}
                Ok(Added::Rejected(token)) => highest = highest.max(Some(token)),
                Err(error) => {
                    tracing::debug!(shard = self.number, %error, "the fencing token cannot be raised yet");
                }
            }
        }
        highest
    }
}
