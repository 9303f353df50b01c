//! Handles one entry from its delivery to its end, which is one of: handled, duplicate, postponed, left pending, dead
//! letter.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use atrium_shared::{
    crash_point::{CrashPoint, reached},
    db::{Database, DbError, OrgTx, Principal, in_time},
    streams::{Acknowledger, Entry, StreamId},
    telemetry::metrics::MESSAGES,
};
use metrics::counter;
use strum::IntoStaticStr;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    handler::{HandleError, Handler, Outcome},
    message::Message,
};
use crate::timings::{CLAIM_AFTER, RENEW_INTERVAL, TRY_TIMEOUT};

/// The number of tries for one delivery, with growing pauses between them.
const MAX_TRIES: u32 = 4;
/// The number of deliveries after which a message becomes a dead letter.
const MAX_DELIVERIES: usize = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// A try is abandoned when this many consecutive checks find no transaction for it. One is not enough, because the
/// transaction may be about to enter the message in the inbox, or may just have been committed.
const MAX_MISSED_CHECKS: u32 = 2;

pub(super) struct Worker<H> {
    database: Database,
    acknowledger: Acknowledger,
    handler: H,
}

/// How the handling of an entry ended.
#[derive(Clone, Copy, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Ended {
    Done,
    Duplicate,
    Postponed,
}

/// The reason that a try failed.
enum Failure {
    /// A dependency of every message is unavailable, which is no reason to make this one a dead letter.
    Outage(String),
    /// An error that the message may have caused.
    Fault(String),
    /// An error that the message has certainly caused.
    Permanent(String),
}

impl From<HandleError> for Failure {
    fn from(error: HandleError) -> Self {
        let reason = error.to_string();
        match error {
            error if error.is_outage() => Self::Outage(reason),
            error if error.is_permanent() => Self::Permanent(reason),
            _ => Self::Fault(reason),
        }
    }
}

impl<H: Handler> Worker<H> {
    pub(super) fn new(database: Database, acknowledger: Acknowledger, handler: H) -> Self {
        Self { database, acknowledger, handler }
    }

    pub(super) async fn work(self: Arc<Self>, entry: Entry, stop: &CancellationToken) {
        let Some(message) = Message::decode(&entry) else {
            tracing::error!(id = %entry.id, consumer = H::CONSUMER, "an entry is not a message");
            return self.dead_letter(entry.id, "the entry is not a message").await;
        };
        let (mut faults, mut outages, mut pause) = (0, 0, FIRST_PAUSE);
        loop {
            match self.try_once(&message).await {
                Ok(ended) => {
                    match ended {
                        Ended::Duplicate => self.end_settled(entry.id, &message).await,
                        Ended::Done | Ended::Postponed => self.acknowledge(entry.id, ended).await,
                    }
                    return reached(CrashPoint::ConsumerAcknowledged).await;
                }
                Err(Failure::Outage(reason)) => {
                    // Logged once, not at every try.
                    if outages == 0 {
                        tracing::warn!(message = %message.id, org = %message.org, reason, "a message waits");
                    }
                    outages += 1;
                }
                Err(Failure::Fault(reason)) => {
                    faults += 1;
                    tracing::warn!(message = %message.id, org = %message.org, faults, reason, "a message was not handled");
                    if faults == MAX_TRIES {
                        return self.give_up_after_max_deliveries(entry.id, &message, &reason).await;
                    }
                }
                Err(Failure::Permanent(reason)) => return self.give_up(entry.id, &message, &reason).await,
            }
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return self.hand_over(entry.id).await;
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Runs one try in its own task, so that a panic fails one message and not the consumer.
    ///
    /// A connection to PostgreSQL can die without notice, and then the result never arrives. Therefore a long try is
    /// checked over another connection: if its transaction no longer exists, the try is abandoned.
    async fn try_once(self: &Arc<Self>, message: &Message) -> Result<Ended, Failure> {
        let in_transaction = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn({
            let (worker, message, in_transaction) =
                (Arc::clone(self), message.clone(), Arc::clone(&in_transaction));
            async move { tokio::time::timeout(TRY_TIMEOUT, worker.handle(&message, &in_transaction)).await }
        });
        let mut task = AbortOnDropHandle::new(task);
        let mut ticks = tokio::time::interval_at(Instant::now() + RENEW_INTERVAL, RENEW_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = 0;
        let ended = loop {
            tokio::select! {
                ended = &mut task => break ended,
                _ = ticks.tick() => {
                    self.renew(message).await;
                    let is_missing = in_transaction.load(Ordering::Relaxed) && self.has_no_tx(message).await;
                    missed = if is_missing { missed + 1 } else { 0 };
                    if missed == MAX_MISSED_CHECKS {
                        return Err(Failure::Outage("PostgreSQL knows nothing of its transaction".to_owned()));
                    }
                }
            }
        };
        match ended {
            Ok(Ok(handled)) => Ok(handled?),
            Ok(Err(elapsed)) => Err(Failure::Fault(elapsed.to_string())),
            Err(panic) => Err(Failure::Fault(panic.to_string())),
        }
    }

    async fn renew(&self, message: &Message) {
        let renewed = in_time(async {
            let mut tx = self.begin(message).await?;
            message.renew(&mut tx).await?;
            tx.commit().await
        });
        if let Err(error) = renewed.await {
            tracing::debug!(message = %message.id, %error, "a message was not renewed; a copy of it may come");
        }
    }

    /// Whether no transaction contains the message. Returns false if that cannot be checked.
    async fn has_no_tx(&self, message: &Message) -> bool {
        let is_being_handled = in_time(async {
            // The check uses a connection outside the pool, because every connection of the pool may be dead, with a
            // try waiting for it.
            let tx =
                self.database.org_tx_on_new_connection(&Principal::System(H::CONSUMER), message.org).await?;
            message.is_being_handled(tx, H::CONSUMER).await
        });
        !is_being_handled.await.unwrap_or(true)
    }

    /// `in_transaction` is true while the inbox shows whether the try is still running.
    async fn handle(&self, message: &Message, in_transaction: &AtomicBool) -> Result<Ended, HandleError> {
        let prepared = self.handler.prepare(&self.database, message).await?;
        reached(CrashPoint::ConsumerBeforeTransaction).await;
        in_transaction.store(true, Ordering::Relaxed);
        let Some(mut tx) = self.enter(message).await? else {
            return Ok(Ended::Duplicate);
        };
        reached(CrashPoint::ConsumerInInbox).await;
        let pause = match self.handler.handle(&mut tx, message, prepared).await? {
            Outcome::Done(effect) => {
                // This update comes last, because the relay may lock the row until its own commit.
                if !message.mark_consumed(&mut tx).await? {
                    return Ok(Ended::Duplicate);
                }
                reached(CrashPoint::ConsumerBeforeCommit).await;
                tx.commit().await?;
                in_transaction.store(false, Ordering::Relaxed);
                reached(CrashPoint::ConsumerCommitted).await;
                self.handler.committed(message.org, effect).await;
                return Ok(Ended::Done);
            }
            Outcome::RetryAfter(pause) => pause,
        };
        // Dropping the transaction rolls it back.
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

    /// Begins a transaction with the message in the inbox. Returns `None` if there is nothing to do for it.
    async fn enter(&self, message: &Message) -> Result<Option<OrgTx>, DbError> {
        let mut tx = self.begin(message).await?;
        match message.enter_inbox(&mut tx, H::CONSUMER).await {
            Ok(is_new) => Ok(is_new.then_some(tx)),
            // The organization was just deleted, with everything that the message refers to.
            Err(DbError::Constraint(name)) if name == "inbox_org_fkey" => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn begin(&self, message: &Message) -> Result<OrgTx, DbError> {
        self.database.org_tx(&Principal::System(H::CONSUMER), message.org).await
    }

    async fn give_up_after_max_deliveries(&self, id: StreamId, message: &Message, reason: &str) {
        match self.acknowledger.deliveries(id).await {
            Ok(Some(deliveries)) if deliveries >= MAX_DELIVERIES => self.give_up(id, message, reason).await,
            Ok(None) => count::<H>("lost"),
            // The entry is left pending, and is claimed again after it has been idle for a while.
            _ => count::<H>("retry"),
        }
    }

    /// Gives the message up, if PostgreSQL permits it: another consumer may have handled the message meanwhile.
    async fn give_up(&self, id: StreamId, message: &Message, reason: &str) {
        match in_time(self.mark_given_up(message, reason)).await {
            Ok(true) => {
                tracing::error!(message = %message.id, org = %message.org, reason, "a message is given up");
                reached(CrashPoint::ConsumerBeforeDeadLetter).await;
                self.dead_letter(id, reason).await;
                reached(CrashPoint::ConsumerDeadLettered).await;
            }
            Ok(false) => self.end_settled(id, message).await,
            // The entry is left pending, so that giving up is tried again.
            Err(error) => {
                tracing::error!(message = %message.id, %error, "a message cannot even be given up");
                count::<H>("retry");
            }
        }
    }

    /// Returns false if another worker has meanwhile handled the message or given it up.
    async fn mark_given_up(&self, message: &Message, reason: &str) -> Result<bool, HandleError> {
        let mut tx = self.begin(message).await?;
        self.handler.give_up(&mut tx, message, reason).await?;
        let marked = message.mark_dead(&mut tx, reason).await?;
        if marked {
            tx.commit().await?;
        }
        Ok(marked)
    }

    /// Ends the entry of a message that is already consumed or a dead letter. The worker that marked it as a dead
    /// letter may have died before it added the entry to the stream of dead letters.
    async fn end_settled(&self, id: StreamId, message: &Message) {
        let dead_reason = in_time(async {
            let mut tx = self.begin(message).await?;
            message.dead_reason(&mut tx).await
        });
        match dead_reason.await {
            Ok(Some(reason)) => self.dead_letter(id, &reason).await,
            Ok(None) => self.acknowledge(id, Ended::Duplicate).await,
            Err(error) => {
                tracing::debug!(message = %message.id, %error, "a known message was not ended; it will come again");
                count::<H>("retry");
            }
        }
    }

    async fn acknowledge(&self, id: StreamId, ended: Ended) {
        if let Err(error) = self.acknowledger.acknowledge(id).await {
            tracing::debug!(%error, "an entry was not acknowledged; it will come again and be known");
        }
        count::<H>(ended.into());
    }

    async fn dead_letter(&self, id: StreamId, reason: &str) {
        match self.acknowledger.dead_letter(id, reason).await {
            Ok(true) => count::<H>("dead"),
            Ok(false) => count::<H>("lost"),
            Err(error) => {
                tracing::warn!(%id, %error, "a dead letter was not moved; it will come again");
                count::<H>("retry");
            }
        }
    }

    async fn hand_over(&self, id: StreamId) {
        if let Err(error) = self.acknowledger.hand_over(id, CLAIM_AFTER).await {
            tracing::debug!(%error, "an entry was not handed over; it is claimed later");
        }
        count::<H>("handed_over");
    }
}

fn count<H: Handler>(outcome: &'static str) {
    counter!(MESSAGES, "topic" => H::CONSUMER, "outcome" => outcome).increment(1);
}
