//! Runs one shard: waits for its lease, handles batches while the worker owns it, and releases it.

use std::time::Duration;

use atrium_shared::{
    crash_point::{CrashPoint, reached},
    db::{Database, in_time},
    streams::{ConsumerGroup, Entry, Inbound, Redis, StreamId, chat_lease_key},
};
use tokio_util::sync::CancellationToken;

use super::{
    batch::Batch,
    count,
    interrupted::Interrupted,
    lease::{FormerLease, Lease},
    publish,
};
use crate::{
    consumer::Message,
    shards::{Slot, Slots},
};

/// The maximum number of entries in a batch.
const BATCH: usize = 200;
const NOT_UNDERSTOOD: &str = "the entry is neither an action nor a notice";

pub(super) struct Shard {
    number: u16,
    database: Database,
    redis: Redis,
    slots: Slots,
    group: ConsumerGroup,
    /// The lease that this process had when its ownership was interrupted.
    former: Option<FormerLease>,
}

impl Shard {
    pub(super) fn new(number: u16, database: Database, redis: Redis, slots: Slots, process: &str) -> Self {
        let group = ConsumerGroup::new(redis.clone(), Inbound::Chat(number), process);
        Self { number, database, redis, slots, group, former: None }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        while let Some(slot) = stop.run_until_cancelled(self.slots.acquire()).await {
            if !self.own(slot, &stop).await {
                self.slots.pause(&stop).await;
            }
        }
        Ok(())
    }

    /// Handles batches for as long as this process owns the shard. Returns false if another process owns it, or if the
    /// lease cannot be requested.
    async fn own(&mut self, mut slot: Slot, stop: &CancellationToken) -> bool {
        let former = self.former.take();
        let mut lease =
            match Lease::acquire(&self.redis, self.number, self.slots.owner(), former.as_ref()).await {
                Ok(Some(lease)) => lease,
                Ok(None) => return false,
                Err(error) => {
                    self.former = former;
                    tracing::debug!(shard = self.number, %error, "a chat shard's lease cannot be asked for");
                    return false;
                }
            };
        tracing::debug!(shard = self.number, "owning a chat shard");
        let owned = slot.owned();
        let result = self.run_batches(&mut lease, &mut slot, stop).await;
        drop(owned);
        if let Err(Interrupted::Redis(_)) = result {
            self.former = Some(lease.into_former());
        } else if let Err(error) = lease.release().await {
            tracing::debug!(shard = self.number, %error, "a lease was not released; it will expire");
        }
        match result {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(shard = self.number, %error, "work on a chat shard was interrupted");
                false
            }
        }
    }

    async fn run_batches(
        &mut self,
        lease: &mut Lease,
        slot: &mut Slot,
        stop: &CancellationToken,
    ) -> Result<(), Interrupted> {
        reached(CrashPoint::ChatLeaseTaken).await;
        // Entries that were delivered to a predecessor and not finished come before all new ones. They can be claimed
        // regardless of their idle time, because the owner of the lease is their only consumer.
        loop {
            let pending = self.group.claim(Duration::ZERO, BATCH).await?;
            if pending.is_empty() {
                break;
            }
            self.handle_batch(pending, lease).await?;
            if !lease.renew().await? {
                return Err(Interrupted::LostLease);
            }
        }
        let mut seen = StreamId { ms: 0, seq: 0 };
        while !stop.is_cancelled() && !slot.is_surplus() {
            reached(CrashPoint::ChatBeforeRenewal).await;
            if !lease.renew().await? {
                return Err(Interrupted::LostLease);
            }
            reached(CrashPoint::ChatBeforeRead).await;
            let entries = self.group.read_leased(BATCH, &chat_lease_key(self.number), &lease.token).await?;
            let entries = entries.ok_or(Interrupted::LostLease)?;
            match entries.iter().map(|entry| entry.id).max() {
                Some(last) => seen = last,
                // If an entry was found and still cannot be read, the group has skipped it, which the janitor repairs.
                None => seen = self.group.wait(seen).await?.unwrap_or(seen),
            }
            self.handle_batch(entries, lease).await?;
        }
        Ok(())
    }

    async fn handle_batch(&mut self, entries: Vec<Entry>, lease: &mut Lease) -> Result<(), Interrupted> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::decode(entries);
        for entry in batch.undecodable.drain(..) {
            tracing::error!(shard = self.number, id = %entry.id, "an entry of the chat cannot be understood");
            // The outbox row is marked as well. Otherwise the sweeper would count its message as lost and publish it
            // again.
            if let Some(message) = Message::decode(&entry) {
                count::give_up(&self.database, &message, NOT_UNDERSTOOD).await?;
            }
            self.group.acknowledger().dead_letter(entry.id, NOT_UNDERSTOOD).await?;
        }
        in_time(count::count_actions(&self.database, &mut batch, lease.history())).await?;
        reached(CrashPoint::ChatCounted).await;
        if let Some(published) = publish::publish(&self.redis, self.number, lease, &batch).await? {
            lease.last_event = published;
        }
        reached(CrashPoint::ChatPublished).await;
        in_time(count::settle_notices(&self.database, &batch)).await?;
        Ok(())
    }
}
