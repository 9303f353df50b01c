//! The one loop behind every role that consumes outbox messages.
//!
//! A message is handled in a transaction of its organization: inbox row, effect, next messages, `consumed_at`,
//! commit; then acknowledged. Whoever dies in between leaves it pending, and it is claimed; whoever gets it twice
//! finds the inbox row. A message that fails again and again goes to the dead letters, where an operator finds it
//! with the reason.

use std::{future::Future, sync::Arc, time::Duration};

use atrium_shared::{
    crash_point::{CrashPoint, reached},
    db::{Database, DbError, OrgTx, Principal},
    ids::{MessageId, OrgId},
    lifecycle::Shutdown,
    streams::{Acknowledger, ConsumerGroup, Entry, Inbound, Redis},
    telemetry::metrics::MESSAGES,
};
use metrics::counter;
use serde_json::Value;
use tokio::{sync::Semaphore, time::Instant};

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

/// A message from the outbox.
#[derive(Clone)]
pub(crate) struct Message {
    id: MessageId,
    org: OrgId,
    outbox: i64,
    pub(crate) payload: Value,
}

/// Why a message was not handled. Nothing of it happened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandleError {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("the message cannot be understood: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl From<sqlx::Error> for HandleError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// What a role does with a message.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The name in the inbox.
    const CONSUMER: &'static str;
    /// What [`Handler::handle`] passes to [`Handler::committed`].
    type Effect: Send;

    /// The effect, inside the transaction that also marks the message as consumed.
    fn handle(
        &self,
        tx: &mut OrgTx,
        message: &Message,
    ) -> impl Future<Output = Result<Self::Effect, HandleError>> + Send;

    /// What may be done once the effect lasts, and may as well be lost: hints.
    fn committed(&self, org: OrgId, effect: Self::Effect) -> impl Future<Output = ()> + Send;

    /// The message is given up; leaves the organization in a state from which it can go on.
    fn give_up(
        &self,
        tx: &mut OrgTx,
        message: &Message,
        reason: &str,
    ) -> impl Future<Output = Result<(), HandleError>> + Send;
}

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

enum Outcome {
    Done,
    Duplicate,
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
                Ok(outcome) => {
                    let outcome = match outcome {
                        Outcome::Done => "done",
                        Outcome::Duplicate => "duplicate",
                    };
                    self.end(self.acknowledger.acknowledge(entry.id).await, outcome);
                    reached(CrashPoint::ConsumerAcknowledged).await;
                    return;
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
    async fn try_once(self: &Arc<Self>, message: &Message) -> Result<Outcome, Failure> {
        let (worker, message) = (Arc::clone(self), message.clone());
        match tokio::spawn(async move { worker.handle(&message).await }).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(Failure {
                permanent: matches!(error, HandleError::Malformed(_)),
                reason: error.to_string(),
            }),
            Err(panic) => Err(Failure { permanent: false, reason: panic.to_string() }),
        }
    }

    async fn handle(&self, message: &Message) -> Result<Outcome, HandleError> {
        reached(CrashPoint::ConsumerBeforeTransaction).await;
        let mut tx = self.database.org_tx(&Principal::System(H::CONSUMER), message.org).await?;
        let fresh = match message.enter_inbox(&mut tx, H::CONSUMER).await {
            // The organization is gone, and with it whatever the message was about.
            Err(DbError::Constraint(name)) if name == "inbox_org_fkey" => return Ok(Outcome::Duplicate),
            fresh => fresh?,
        };
        if !fresh {
            return Ok(Outcome::Duplicate);
        }
        reached(CrashPoint::ConsumerInInbox).await;
        let effect = self.handler.handle(&mut tx, message).await?;
        // Last, since the relay may still hold the row for the length of its own commit.
        message.mark_consumed(&mut tx).await?;
        reached(CrashPoint::ConsumerBeforeCommit).await;
        tx.commit().await?;
        reached(CrashPoint::ConsumerCommitted).await;
        self.handler.committed(message.org, effect).await;
        Ok(Outcome::Done)
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
            Ok(()) => {
                reached(CrashPoint::ConsumerBeforeBury).await;
                self.end(self.acknowledger.bury(entry, reason).await, "dead");
                reached(CrashPoint::ConsumerBuried).await;
            }
            // Left pending, so that giving up is tried again.
            Err(error) => tracing::error!(message = %message.id, %error, "a message cannot even be given up"),
        }
    }

    async fn mark_given_up(&self, message: &Message, reason: &str) -> Result<(), HandleError> {
        let mut tx = self.database.org_tx(&Principal::System(H::CONSUMER), message.org).await?;
        self.handler.give_up(&mut tx, message, reason).await?;
        message.mark_dead(&mut tx, reason).await?;
        Ok(tx.commit().await?)
    }

    fn end(&self, ended: redis::RedisResult<()>, outcome: &'static str) {
        if let Err(error) = ended {
            tracing::debug!(%error, "an entry was not acknowledged; it will come again and be known");
        }
        counter!(MESSAGES, "topic" => H::CONSUMER, "outcome" => outcome).increment(1);
    }
}

impl Message {
    pub(crate) fn decode(entry: &Entry) -> Option<Self> {
        let field = |name: &str| entry.fields.get(name);
        Some(Self {
            id: field("message")?.parse().ok()?,
            org: field("org")?.parse().ok()?,
            outbox: field("outbox")?.parse().ok()?,
            payload: serde_json::from_str(field("payload")?).ok()?,
        })
    }

    pub(crate) fn org(&self) -> OrgId {
        self.org
    }

    /// Whether this consumer sees the message for the first time.
    pub(crate) async fn enter_inbox(&self, tx: &mut OrgTx, consumer: &str) -> Result<bool, DbError> {
        let entered = sqlx::query(
            "INSERT INTO inbox (org_id, consumer, message_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        )
        .bind(self.org)
        .bind(consumer)
        .bind(self.id)
        .execute(tx.conn())
        .await?;
        Ok(entered.rows_affected() == 1)
    }

    /// Sets the only proof that the message is done.
    pub(crate) async fn mark_consumed(&self, tx: &mut OrgTx) -> Result<(), DbError> {
        sqlx::query("UPDATE outbox SET consumed_at = clock_timestamp() WHERE org_id = $1 AND id = $2")
            .bind(self.org)
            .bind(self.outbox)
            .execute(tx.conn())
            .await?;
        Ok(())
    }

    async fn mark_dead(&self, tx: &mut OrgTx, reason: &str) -> Result<(), DbError> {
        sqlx::query(
            "UPDATE outbox SET dead_at = clock_timestamp(), dead_reason = $3 WHERE org_id = $1 AND id = $2",
        )
        .bind(self.org)
        .bind(self.outbox)
        .bind(reason)
        .execute(tx.conn())
        .await?;
        Ok(())
    }
}
