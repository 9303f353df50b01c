//! The loop of every role that consumes outbox messages.
//!
//! A message is handled in a transaction of its organization, which contains the inbox row, the effect, the next
//! messages and `consumed_at`. After the commit, its entry is acknowledged. If a worker dies before that, the entry
//! stays pending and another worker claims it; if a message is delivered twice, the second handling finds the inbox
//! row. Heartbeats prevent an entry from being claimed while it is handled. A message that fails repeatedly becomes a
//! dead letter, with its reason, for an operator.

mod handler;
mod heartbeat;
mod message;
mod work;

use std::{sync::Arc, time::Duration};

use atrium_shared::{
    crash_point::{CrashPoint, reached},
    db::Database,
    lifecycle::Shutdown,
    streams::{ConsumerGroup, Entry, Inbound, Redis},
};
use tokio::{sync::Semaphore, time::Instant};

pub(crate) use self::{
    handler::{HandleError, Handler, Outcome},
    message::Message,
};
use self::{heartbeat::ActiveEntries, work::Worker};
use crate::timings::CLAIM_AFTER;

/// The number of messages of a stream that one process handles concurrently.
const PERMITS: u32 = 16;
const CLAIM_INTERVAL: Duration = Duration::from_secs(2);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// The longest pause is this many times the first one.
const MAX_PAUSE_FACTOR: u32 = 20;

/// A consumer of one inbound stream.
pub(crate) struct Consumer<H> {
    group: ConsumerGroup,
    stream: Inbound,
    active: ActiveEntries,
    permits: Arc<Semaphore>,
    worker: Arc<Worker<H>>,
}

impl<H: Handler> Consumer<H> {
    pub(crate) fn new(
        database: &Database,
        redis: &Redis,
        stream: Inbound,
        process: &str,
        handler: H,
    ) -> Self {
        let group = ConsumerGroup::new(redis.clone(), stream, process);
        let worker = Worker::new(database.clone(), group.acknowledger(), handler);
        Self {
            group,
            stream,
            active: ActiveEntries::default(),
            permits: Arc::new(Semaphore::new(PERMITS as usize)),
            worker: Arc::new(worker),
        }
    }

    pub(crate) fn spawn(self, name: &'static str, shutdown: &Shutdown) {
        let (active, acknowledger) = (self.active.clone(), self.group.acknowledger());
        let consume = self.run(shutdown.clone());
        shutdown.spawn_critical(name, async move {
            tokio::select! {
                result = consume => result,
                never = active.send_heartbeats(&acknowledger) => match never {},
            }
        });
    }

    async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut claim_at = Instant::now();
        let mut failures = 0;
        while !shutdown.draining().is_cancelled() {
            // Permits come first: an entry that is read and not yet handled would be pending for this consumer, where
            // no other consumer could handle it.
            let free = self.permits.available_permits();
            if free == 0 {
                drop(self.permits.acquire().await?);
                continue;
            }
            let read = if Instant::now() >= claim_at {
                claim_at = Instant::now() + CLAIM_INTERVAL;
                self.group.claim(CLAIM_AFTER, free).await
            } else {
                self.group.read(free).await
            };
            match read {
                Ok(entries) => {
                    failures = 0;
                    if !entries.is_empty() {
                        reached(CrashPoint::ConsumerRead).await;
                    }
                    for entry in entries {
                        self.begin(entry, &shutdown).await?;
                    }
                }
                Err(error) => {
                    // Logged once, not at every try.
                    if failures == 0 {
                        tracing::warn!(stream = %self.stream, %error, "cannot read; trying again");
                    }
                    failures = (failures + 1).min(MAX_PAUSE_FACTOR);
                    tokio::time::sleep(PAUSE_AFTER_FAILURE * failures).await;
                }
            }
        }
        // When all permits are returned, no entry is being handled.
        drop(self.permits.acquire_many(PERMITS).await?);
        if let Err(error) = self.group.leave().await {
            tracing::debug!(stream = %self.stream, %error, "the group was not left; a janitor does it");
        }
        Ok(())
    }

    /// Handles an entry in a task that the shutdown waits for, so that work in progress is finished.
    async fn begin(&self, entry: Entry, shutdown: &Shutdown) -> anyhow::Result<()> {
        // The consumer has claimed its own entry, because heartbeats could not be sent.
        let Some(active) = self.active.insert(entry.id) else {
            return Ok(());
        };
        let permit = Arc::clone(&self.permits).acquire_owned().await?;
        let (worker, stop) = (Arc::clone(&self.worker), shutdown.draining().clone());
        shutdown.spawn(async move {
            worker.work(entry, &stop).await;
            drop((active, permit));
        });
        Ok(())
    }
}
