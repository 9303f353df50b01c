//! The one loop behind every role that consumes outbox messages.
//!
//! A message is handled in a transaction of its organization: inbox row, effect, next messages, `consumed_at`,
//! commit; then acknowledged. Whoever dies in between leaves it pending, and it is claimed; whoever gets it twice
//! finds the inbox row. While it is worked on, heartbeats keep it from being claimed. A message that fails again and
//! again goes to the dead letters, where an operator finds it with the reason.

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
use self::{heartbeat::InHand, work::Worker};
use crate::timings::CLAIM_AFTER;

/// Messages that one process handles at once, per stream.
const PERMITS: u32 = 16;
const CLAIM_EVERY: Duration = Duration::from_secs(2);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// The longest pause is this many times as long.
const MAX_PAUSE: u32 = 20;

/// A consumer of one inbound stream.
pub(crate) struct Consumer<H> {
    group: ConsumerGroup,
    stream: Inbound,
    in_hand: InHand,
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
            in_hand: InHand::default(),
            permits: Arc::new(Semaphore::new(PERMITS as usize)),
            worker: Arc::new(worker),
        }
    }

    pub(crate) fn spawn(self, name: &'static str, shutdown: &Shutdown) {
        let (in_hand, acknowledger) = (self.in_hand.clone(), self.group.acknowledger());
        let consume = self.run(shutdown.clone());
        shutdown.spawn_critical(name, async move {
            tokio::select! {
                ended = consume => ended,
                never = in_hand.beat(&acknowledger) => match never {},
            }
        });
    }

    async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut claim_at = Instant::now();
        let mut failures = 0;
        while !shutdown.draining().is_cancelled() {
            // Permits first: what is read and not worked on would lie in this consumer's name, out of others' reach.
            let free = self.permits.available_permits();
            if free == 0 {
                drop(self.permits.acquire().await?);
                continue;
            }
            let read = if Instant::now() >= claim_at {
                claim_at = Instant::now() + CLAIM_EVERY;
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
                    // Said once, not at every try.
                    if failures == 0 {
                        tracing::warn!(stream = %self.stream, %error, "cannot read; trying again");
                    }
                    failures = (failures + 1).min(MAX_PAUSE);
                    tokio::time::sleep(PAUSE_AFTER_FAILURE * failures).await;
                }
            }
        }
        // When all permits are back, nothing is in hand.
        drop(self.permits.acquire_many(PERMITS).await?);
        if let Err(error) = self.group.leave().await {
            tracing::debug!(stream = %self.stream, %error, "the group was not left; a janitor does it");
        }
        Ok(())
    }

    /// Works on an entry in a task that the shutdown waits for: what was begun is brought to its end.
    async fn begin(&self, entry: Entry, shutdown: &Shutdown) -> anyhow::Result<()> {
        // Claimed from ourselves, when heartbeats could not be sent.
        let Some(hold) = self.in_hand.hold(entry.id) else {
            return Ok(());
        };
        let permit = Arc::clone(&self.permits).acquire_owned().await?;
        let (worker, stop) = (Arc::clone(&self.worker), shutdown.draining().clone());
        shutdown.spawn(async move {
            worker.work(entry, &stop).await;
            drop((hold, permit));
        });
        Ok(())
    }
}
