//! One shard: wait for its lease, work while it is ours, give it back.

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
    lease::{Lease, Left},
    publish,
};
use crate::{
    consumer::Message,
    shards::{Slot, Slots},
};

/// Entries worked on at once.
const BATCH: usize = 200;
const NOT_UNDERSTOOD: &str = "the entry is neither an action nor a notice";

pub(super) struct Shard {
    number: u16,
    database: Database,
    redis: Redis,
    slots: Slots,
    group: ConsumerGroup,
    /// Where this process left the live stream when its ownership was interrupted.
    left: Option<Left>,
}

impl Shard {
    pub(super) fn new(number: u16, database: Database, redis: Redis, slots: Slots, process: &str) -> Self {
        let group = ConsumerGroup::new(redis.clone(), Inbound::Chat(number), process);
        Self { number, database, redis, slots, group, left: None }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        while let Some(slot) = stop.run_until_cancelled(self.slots.slot()).await {
            if !self.own(slot, &stop).await {
                self.slots.pause(&stop).await;
            }
        }
        Ok(())
    }

    /// Works for as long as the shard is ours. False: somebody else has it, or nobody can tell.
    async fn own(&mut self, mut slot: Slot, stop: &CancellationToken) -> bool {
        let left = self.left.take();
        let mut lease =
            match Lease::acquire(&self.redis, self.number, self.slots.owner(), left.as_ref()).await {
                Ok(Some(lease)) => lease,
                Ok(None) => return false,
                Err(error) => {
                    self.left = left;
                    tracing::debug!(shard = self.number, %error, "a chat shard's lease cannot be asked for");
                    return false;
                }
            };
        tracing::debug!(shard = self.number, "owning a chat shard");
        let owned = slot.owned();
        let ended = self.work(&mut lease, &mut slot, stop).await;
        drop(owned);
        if let Err(Interrupted::Redis(_)) = ended {
            self.left = Some(lease.leave());
        } else if let Err(error) = lease.release().await {
            tracing::debug!(shard = self.number, %error, "a lease was not given back; it ends by itself");
        }
        match ended {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(shard = self.number, %error, "work on a chat shard was interrupted");
                false
            }
        }
    }

    async fn work(
        &mut self,
        lease: &mut Lease,
        slot: &mut Slot,
        stop: &CancellationToken,
    ) -> Result<(), Interrupted> {
        reached(CrashPoint::ChatLeaseTaken).await;
        // What a predecessor was given and did not finish stands before everything new. The lease makes it ours,
        // however short ago it was given.
        loop {
            let left = self.group.claim(Duration::ZERO, BATCH).await?;
            if left.is_empty() {
                break;
            }
            self.work_on(left, lease).await?;
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
                // If it cannot be taken, it stands behind what the group was given, which is for the janitor to mend.
                None => seen = self.group.wait(seen).await?.unwrap_or(seen),
            }
            self.work_on(entries, lease).await?;
        }
        Ok(())
    }

    async fn work_on(&mut self, entries: Vec<Entry>, lease: &mut Lease) -> Result<(), Interrupted> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::decode(entries);
        for entry in batch.undecodable.drain(..) {
            tracing::error!(shard = self.number, id = %entry.id, "an entry of the chat cannot be understood");
            // With only its entry moved, a message of the outbox would count as lost, and be published again.
            if let Some(message) = Message::decode(&entry) {
                count::give_up(&self.database, &message, NOT_UNDERSTOOD).await?;
            }
            self.group.acknowledger().dead_letter(entry.id, NOT_UNDERSTOOD).await?;
        }
        in_time(count::count_actions(&self.database, &mut batch, lease.history())).await?;
        reached(CrashPoint::ChatCounted).await;
        if let Some(published) = publish::publish(&self.redis, self.number, lease, &batch).await? {
            lease.tip = published;
        }
        reached(CrashPoint::ChatPublished).await;
        in_time(count::settle_notices(&self.database, &batch)).await?;
        Ok(())
    }
}
