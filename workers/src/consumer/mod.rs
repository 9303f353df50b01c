//! The one loop behind every role that consumes outbox messages.
//!
//! A message is handled in a transaction of its organization: inbox row, effect, next messages, `consumed_at`,
//! commit; then acknowledged. Whoever dies in between leaves it pending, and it is claimed; whoever gets it twice
//! finds the inbox row. A message that fails again and again goes to the dead letters, where an operator finds it
//! with the reason.

mod handler;
mod message;

use std::{sync::Arc, time::Duration};

use atrium_shared::{
    crash_point::{CrashPoint, reached},
    db::{Database, DbError, OrgTx, Principal},
    lifecycle::Shutdown,
    streams::{Acknowledger, ConsumerGroup, Entry, Inbound, Redis},
    telemetry::metrics::MESSAGES,
};
use metrics::counter;
use tokio::{sync::Semaphore, time::Instant};

pub(crate) use self::{
    handler::{HandleError, Handler, Outcome},
    message::Message,
};

/// Messages that one process handles at once, per stream.
const PERMITS: usize = 16;
/// A message pending for longer belongs to somebody who died. Longer than any handler takes.
const CLAIM_AFTER: Duration = Duration::from_secs(5);
const CLAIM_EVERY: Duration = Duration::from_secs(2);
/// Tries of one delivery, with growing pauses.
const TRIES: u32 = 4;
/// Deliveries after which a message is given up.
const MAX_DELIVERIES: usize = 5;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);
/// The longest pause is so many times as long.
const LONGEST_PAUSE: u32 = 20;

/// A consumer of one inbound stream.
pub(crate) struct Consumer<H> {
    group: ConsumerGroup,
    worker: Arc<Worker<H>>,
}

struct Worker<H> {
    database: Database,
    acknowledger: Acknowledger,
    stream: Inbound,
    handler: H,
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
        let worker =
            Worker { database: database.clone(), acknowledger: group.acknowledger(), stream, handler };
        Self { group, worker: Arc::new(worker) }
    }

    pub(crate) fn spawn(self, name: &'static str, shutdown: &Shutdown) {
        shutdown.spawn_critical(name, self.run(shutdown.clone()));
    }

    async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let permits = Arc::new(Semaphore::new(PERMITS));
        let mut claim_at = Instant::now();
        let mut failures = 0;
        while !shutdown.draining().is_cancelled() {
            // Permits first: what is read and not worked on would lie in this consumer's name, out of others' reach.
            let free = permits.available_permits();
            if free == 0 {
                drop(permits.acquire().await?);
                continue;
            }
            let read = if Instant::now() >= claim_at {
                claim_at = Instant::now() + CLAIM_EVERY;
                self.group.claim(CLAIM_AFTER, free).await
            } else {
                self.group.read(free).await
            };
            let entries = match read {
                Ok(entries) => {
                    failures = 0;
                    entries
                }
                Err(error) => {
                    // Said once, not at every try.
                    if failures == 0 {
                        tracing::warn!(stream = %self.worker.stream, %error, "cannot read; trying again");
                    }
                    failures = (failures + 1).min(LONGEST_PAUSE);
                    tokio::time::sleep(PAUSE_AFTER_FAILURE * failures).await;
                    continue;
                }
            };
            if !entries.is_empty() {
                reached(CrashPoint::ConsumerRead).await;
            }
            for entry in entries {
                let permit = Arc::clone(&permits).acquire_owned().await?;
                let worker = Arc::clone(&self.worker);
                // Tracked by the shutdown: what was begun is brought to its end.
                shutdown.spawn(async move {
                    worker.work(entry).await;
                    drop(permit);
                });
            }
        }
        Ok(())
    }
}

/// How a message's entry was ended.
#[derive(Clone, Copy)]
enum Ended {
    Done,
    Duplicate,
    Postponed,
}

impl Ended {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duplicate => "duplicate",
            Self::Postponed => "postponed",
        }
    }
}

/// Why a message was not handled, and whether it never will be.
struct Failure {
    reason: String,
    permanent: bool,
}

impl<H: Handler> Worker<H> {
    async fn work(self: Arc<Self>, entry: Entry) {
        let Some(message) = Message::decode(&entry) else {
            self.end(self.acknowledger.bury(&entry, "the entry is not a message").await, "dead");
            return;
        };
        let mut pause = Duration::from_millis(50);
        for attempt in 1..=TRIES {
            let Failure { reason, permanent } = match self.try_once(&message).await {
                Ok(ended) => {
                    self.end(self.acknowledger.acknowledge(entry.id).await, ended.name());
                    return reached(CrashPoint::ConsumerAcknowledged).await;
                }
                Err(failure) => failure,
            };
            tracing::warn!(message = %message.id, org = %message.org, attempt, reason, "a message was not handled");
            if permanent {
                return self.give_up(&entry, &message, &reason).await;
            }
            if attempt == TRIES {
                return self.give_up_if_hopeless(&entry, &message, &reason).await;
            }
            tokio::time::sleep(pause).await;
            pause *= 4;
        }
    }

    /// In a task of its own, so that a panic is one message's failure and not the consumer's.
    async fn try_once(self: &Arc<Self>, message: &Message) -> Result<Ended, Failure> {
        let (worker, message) = (Arc::clone(self), message.clone());
        match tokio::spawn(async move { worker.handle(&message).await }).await {
            Ok(Ok(ended)) => Ok(ended),
            Ok(Err(error)) => Err(Failure { permanent: error.is_permanent(), reason: error.to_string() }),
            Err(panic) => Err(Failure { permanent: false, reason: panic.to_string() }),
        }
    }

    async fn handle(&self, message: &Message) -> Result<Ended, HandleError> {
        let prepared = self.handler.prepare(&self.database, message).await?;
        reached(CrashPoint::ConsumerBeforeTransaction).await;
        let Some(mut tx) = self.enter(message).await? else {
            return Ok(Ended::Duplicate);
        };
        reached(CrashPoint::ConsumerInInbox).await;
        let pause = match self.handler.handle(&mut tx, message, prepared).await? {
            Outcome::Done(effect) => {
                // Last, since the relay may still hold the row for the length of its own commit.
                if !message.mark_consumed(&mut tx).await? {
                    return Ok(Ended::Duplicate);
                }
                reached(CrashPoint::ConsumerBeforeCommit).await;
                tx.commit().await?;
                reached(CrashPoint::ConsumerCommitted).await;
                self.handler.committed(message.org, effect).await;
                return Ok(Ended::Done);
            }
            Outcome::RetryAfter(pause) => pause,
        };
        // What was done in it is taken back.
        drop(tx);
        let Some(mut tx) = self.enter(message).await? else {
            return Ok(Ended::Duplicate);
        };
        message.postpone(&mut tx, pause).await?;
        if !message.mark_consumed(&mut tx).await? {
            return Ok(Ended::Duplicate);
        }
        tx.commit().await?;
        Ok(Ended::Postponed)
    }

    /// A transaction with the message in the inbox; none when there is nothing to do for it.
    async fn enter(&self, message: &Message) -> Result<Option<OrgTx>, DbError> {
        let mut tx = self.database.org_tx(&Principal::System(H::CONSUMER), message.org).await?;
        match message.enter_inbox(&mut tx, H::CONSUMER).await {
            Ok(fresh) => Ok(fresh.then_some(tx)),
            // The organization went away just now, and with it whatever the message was about.
            Err(DbError::Constraint(name)) if name == "inbox_org_fkey" => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn give_up_if_hopeless(&self, entry: &Entry, message: &Message, reason: &str) {
        match self.acknowledger.deliveries(entry.id).await {
            Ok(deliveries) if deliveries >= MAX_DELIVERIES => self.give_up(entry, message, reason).await,
            // Left pending: it is claimed again when it has been idle for a while.
            _ => counter!(MESSAGES, "topic" => H::CONSUMER, "outcome" => "retry").increment(1),
        }
    }

    async fn give_up(&self, entry: &Entry, message: &Message, reason: &str) {
        tracing::error!(message = %message.id, org = %message.org, reason, "a message is given up");
        match self.mark_given_up(message, reason).await {
            Ok(true) => {
                reached(CrashPoint::ConsumerBeforeBury).await;
                self.end(self.acknowledger.bury(entry, reason).await, "dead");
                reached(CrashPoint::ConsumerBuried).await;
            }
            Ok(false) => self.end(self.acknowledger.acknowledge(entry.id).await, Ended::Duplicate.name()),
            // Left pending, so that giving up is tried again.
            Err(error) => tracing::error!(message = %message.id, %error, "a message cannot even be given up"),
        }
    }

    /// False: somebody else has handled it meanwhile, or given it up before.
    async fn mark_given_up(&self, message: &Message, reason: &str) -> Result<bool, HandleError> {
        let mut tx = self.database.org_tx(&Principal::System(H::CONSUMER), message.org).await?;
        self.handler.give_up(&mut tx, message, reason).await?;
        let marked = message.mark_dead(&mut tx, reason).await?;
        if marked {
            tx.commit().await?;
        }
        Ok(marked)
    }

    fn end(&self, ended: redis::RedisResult<()>, outcome: &'static str) {
        if let Err(error) = ended {
            tracing::debug!(%error, "an entry was not acknowledged; it will come again and be known");
        }
        counter!(MESSAGES, "topic" => H::CONSUMER, "outcome" => outcome).increment(1);
    }
}
