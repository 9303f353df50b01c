//! Advances one saga by one step, and by the inline steps that follow it.

use std::{ops::ControlFlow, time::Duration};

use atrium_shared::{
    configuration::ConfigurationStore,
    crash_point::{CrashPoint, reached},
    db::{Database, DbError, OrgTx},
    ids::{OrgId, SagaId},
    messages::{OperationEntry, SagaWake, WakeReason},
    saga::{self, SagaStatus, StepStatus},
    streams::Redis,
    telemetry::metrics::{SAGA_STEPS, SAGAS_FINISHED},
};
use metrics::counter;

use super::{
    journal::{CONSUMER, Journal, StepRow, next_to_compensate},
    prepare::{Prepared, prepare},
    registry::Registry,
    step::{Context, Failure, Saga, Step, Verdict},
};
use crate::{
    consumer::{HandleError, Handler, Message, Outcome},
    isolation::Isolation,
};

/// The number of tries of an action before the saga is compensated.
const MAX_ATTEMPTS: i32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The number of tries of a compensation, or of a step after the pivot, after which an operator is alerted. The tries
/// continue.
const ALARM_AFTER: i32 = 10;

/// Runs the sagas of the registry.
pub(crate) struct Engine {
    sagas: Registry,
    /// Whether any step has an effect outside of PostgreSQL. If not, nothing is prepared.
    has_external_effects: bool,
    configuration: ConfigurationStore,
    redis: Redis,
}

impl Engine {
    pub(crate) fn new(configuration: ConfigurationStore, redis: Redis, isolation: &Isolation) -> Self {
        let sagas = Registry::new(&redis, isolation);
        Self { has_external_effects: sagas.has_external_effects(), sagas, configuration, redis }
    }

    /// Returns false if this release does not have the saga's kind, because a newer release that runs at the same time
    /// has started it. The message is delivered again until a worker of that release receives it.
    async fn advance(
        &self,
        tx: &mut OrgTx,
        id: SagaId,
        reason: WakeReason,
        prepared: Prepared,
    ) -> Result<bool, DbError> {
        let mut journal = Journal::new(tx, id);
        let Some(row) = journal.lock().await? else {
            return Ok(true);
        };
        let Some(saga) = self.sagas.saga(&row.kind) else {
            return Ok(false);
        };
        let mut progress = Progress { journal, saga, prepared };
        match row.status {
            // These are late messages of a saga that has ended.
            SagaStatus::Committed | SagaStatus::Failed => {}
            SagaStatus::Pending
                if (reason == WakeReason::Deadline || row.overdue) && !progress.is_past_pivot().await? =>
            {
                let detail = "it was not done before its deadline".to_owned();
                progress.give_up(None, Failure { code: "deadline_exceeded", detail }).await?;
            }
            SagaStatus::Pending => {
                let platform = self.configuration.platform();
                progress.forward(&platform.organization().saga_fail_step).await?;
            }
            // The deadline applies to the actions only. Compensations take as long as they need.
            SagaStatus::Compensating if reason == WakeReason::Deadline => {}
            SagaStatus::Compensating => progress.backward().await?,
        }
        progress.journal.write().await?;
        Ok(true)
    }
}

impl Handler for Engine {
    const CONSUMER: &'static str = CONSUMER;
    type Prepared = Prepared;
    type Effect = SagaId;

    async fn prepare(&self, database: &Database, message: &Message) -> Result<Prepared, HandleError> {
        if !self.has_external_effects {
            return Ok(Prepared::Nothing);
        }
        let SagaWake { saga, wake } = message.read()?;
        Ok(prepare(&self.sagas, database, message.org(), saga, wake).await?)
    }

    async fn handle(
        &self,
        tx: &mut OrgTx,
        message: &Message,
        prepared: Prepared,
    ) -> Result<Outcome<SagaId>, HandleError> {
        let SagaWake { saga, wake } = message.read()?;
        let is_supported = self.advance(tx, saga, wake, prepared).await?;
        Ok(if is_supported { Outcome::Done(saga) } else { Outcome::RetryAfter(MAX_PAUSE) })
    }

    /// Wakes the operation's event streams. They also poll, so a lost hint causes a delay of one second. The hint does
    /// not name the organization, which may just have been purged.
    async fn committed(&self, _org: OrgId, saga: SagaId) {
        if let Err(error) = self.redis.announce(&OperationEntry { operation: saga }).await {
            tracing::debug!(%error, "an operation's streams were not woken");
        }
    }

    /// A message that cannot be handled must not leave its saga waiting: the saga is compensated.
    async fn give_up(&self, tx: &mut OrgTx, message: &Message, reason: &str) -> Result<(), HandleError> {
        // No saga waits for a message that does not name one.
        let Ok(SagaWake { saga: id, .. }) = message.read() else {
            return Ok(());
        };
        let mut journal = Journal::new(tx, id);
        let Some(row) = journal.lock().await? else {
            return Ok(());
        };
        let Some(saga) = self.sagas.saga(&row.kind) else {
            return Ok(());
        };
        let prepared = Prepared::Nothing;
        let mut progress = Progress { journal, saga, prepared };
        match row.status {
            SagaStatus::Committed | SagaStatus::Failed => {}
            SagaStatus::Pending if !progress.is_past_pivot().await? => {
                tracing::error!(saga = %id, reason, "a saga is given up because a message of it is");
                let detail = "an unexpected error; nothing of it remains".to_owned();
                progress.give_up(None, Failure { code: "internal", detail }).await?;
            }
            // A compensation, or an action after the pivot, must succeed, so it is tried again.
            SagaStatus::Pending | SagaStatus::Compensating => {
                tracing::error!(saga = %id, reason, "a message is given up, and its saga goes on with another");
                progress.journal.wake(Some(MAX_PAUSE)).await?;
            }
        }
        Ok(progress.journal.write().await?)
    }
}

/// A saga that is being advanced.
struct Progress<'a> {
    journal: Journal<'a>,
    saga: &'a Saga,
    prepared: Prepared,
}

impl<'a> Progress<'a> {
    /// Runs the first step that is not done, and in the same transaction the inline steps that follow it. `drill` names
    /// a step, as `<saga>/<step>`, that is made to fail.
    async fn forward(&mut self, drill: &str) -> Result<(), DbError> {
        let steps = self.journal.plan(self.saga).await?;
        let first = steps.iter().position(|row| row.status != StepStatus::Done).ok_or(DbError::NotFound)?;
        for (nth, row) in steps[first..].iter().enumerate() {
            let step = self.step(row)?;
            if nth > 0 && !step.is_inline() {
                return self.journal.wake(None).await;
            }
            if self.forward_by_one(step, row, drill).await?.is_break() {
                return Ok(());
            }
        }
        self.finish(SagaStatus::Committed).await
    }

    /// Runs one step. Returns `Break` if the next step is not run now; the continuation of the saga is then already
    /// stored.
    async fn forward_by_one(
        &mut self,
        step: &dyn Step,
        row: &StepRow,
        drill: &str,
    ) -> Result<ControlFlow<()>, DbError> {
        let verdict =
            if drill.strip_prefix(self.saga.kind.name()).is_some_and(|rest| rest == format!("/{}", row.name))
            {
                Ok(Verdict::Fail(Failure {
                    code: "drill",
                    detail: format!("saga.fail_step says that {drill} fails"),
                }))
            } else if step.external_effect().is_some() {
                match std::mem::take(&mut self.prepared) {
                    Prepared::Applied(position, Verdict::Done(_)) if position == row.position => {
                        self.attempt(step).await
                    }
                    Prepared::Applied(position, verdict) if position == row.position => Ok(verdict),
                    // Another step was due when the effect was prepared.
                    _ => return self.journal.wake(None).await.map(ControlFlow::Break),
                }
            } else {
                self.attempt(step).await
            };
        match verdict {
            Ok(Verdict::Done(detail)) => {
                self.journal.record_try(row, StepStatus::Done, detail);
                self.count(row, "done");
                return Ok(ControlFlow::Continue(()));
            }
            Ok(Verdict::Erased) => {
                self.count(row, "done");
                self.count_end(SagaStatus::Committed);
            }
            Ok(Verdict::RetryAfter(pause, detail)) => self.retry(step, row, pause, &detail).await?,
            Ok(Verdict::Fail(failure)) if step.is_retriable() => {
                self.retry(step, row, pause_after(row.attempts), &failure.detail).await?;
            }
            Ok(Verdict::Fail(failure)) => self.give_up(Some(row), failure).await?,
            // Nothing can be recorded now, so the whole message is tried again.
            Err(error @ DbError::Unavailable(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(saga = %self.journal.saga, step = row.name, %error, "a step failed");
                self.retry(step, row, pause_after(row.attempts), "an unexpected error; trying again").await?;
            }
        }
        Ok(ControlFlow::Break(()))
    }

    /// Compensates one step.
    async fn backward(&mut self) -> Result<(), DbError> {
        let steps = self.journal.plan(self.saga).await?;
        let Some((row, is_last)) = next_to_compensate(&steps) else {
            return self.finish(SagaStatus::Failed).await;
        };
        let step = self.step(row)?;
        if step.external_effect().is_some() {
            match std::mem::take(&mut self.prepared) {
                Prepared::Removed(position, Ok(())) if position == row.position => {}
                Prepared::Removed(position, Err(error)) if position == row.position => {
                    return self.retry_compensation(row, &error).await;
                }
                // Another step was due when the effect was prepared.
                _ => return self.journal.wake(None).await,
            }
        }
        self.journal.savepoint().await?;
        reached(CrashPoint::SagaBeforeCompensation).await;
        let compensated = step.compensate(self.context()).await;
        reached(CrashPoint::SagaAfterCompensation).await;
        match compensated {
            Ok(()) => {
                self.journal.record_compensation(row).await?;
                self.count(row, "compensated");
                if is_last { self.finish(SagaStatus::Failed).await } else { self.journal.wake(None).await }
            }
            Err(error @ DbError::Unavailable(_)) => Err(error),
            Err(error) => {
                self.journal.rollback_to_savepoint().await?;
                self.retry_compensation(row, &error.to_string()).await
            }
        }
    }

    async fn retry_compensation(&mut self, row: &StepRow, error: &str) -> Result<(), DbError> {
        self.journal.record_failed_compensation(row).await?;
        self.count(row, "compensation_failed");
        let attempts = row.compensation_attempts + 1;
        if attempts >= ALARM_AFTER {
            let saga = self.journal.saga;
            tracing::error!(%saga, step = row.name, attempts, error, "a compensation does not work");
        }
        self.journal.wake(Some(pause_after(row.compensation_attempts))).await
    }

    /// Runs an action after a savepoint, and rolls back to it unless the action is done.
    async fn attempt(&mut self, step: &dyn Step) -> Result<Verdict, DbError> {
        self.journal.savepoint().await?;
        reached(CrashPoint::SagaBeforeStep).await;
        let verdict = step.run(self.context()).await;
        reached(CrashPoint::SagaAfterStep).await;
        if !matches!(verdict, Ok(Verdict::Done(_) | Verdict::Erased) | Err(DbError::Unavailable(_))) {
            self.journal.rollback_to_savepoint().await?;
        }
        verdict
    }

    async fn retry(
        &mut self,
        step: &dyn Step,
        row: &StepRow,
        pause: Duration,
        detail: &str,
    ) -> Result<(), DbError> {
        let attempts = row.attempts + 1;
        if step.is_retriable() {
            if attempts >= ALARM_AFTER {
                let saga = self.journal.saga;
                tracing::error!(%saga, step = row.name, attempts, detail, "a step that has to work does not");
            }
        } else if attempts >= MAX_ATTEMPTS {
            let detail = format!("it did not work in {MAX_ATTEMPTS} tries");
            return self.give_up(Some(row), Failure { code: "step_failed", detail }).await;
        }
        self.journal.record_try(row, StepStatus::Running, Some(detail.to_owned()));
        self.count(row, "retry");
        self.journal.wake(Some(pause)).await
    }

    /// Starts the compensation of the saga, after a failure of the step `at` if that is given.
    async fn give_up(&mut self, at: Option<&StepRow>, failure: Failure) -> Result<(), DbError> {
        if let Some(row) = at {
            self.journal.record_try(row, StepStatus::Failed, Some(failure.detail.clone()));
            self.count(row, "failed");
        }
        self.journal.start_compensation(&failure).await
    }

    async fn is_past_pivot(&mut self) -> Result<bool, DbError> {
        saga::is_past_pivot(self.journal.tx, self.journal.saga).await
    }

    async fn finish(&mut self, status: SagaStatus) -> Result<(), DbError> {
        reached(CrashPoint::SagaFinish).await;
        self.journal.finish(status).await?;
        self.count_end(status);
        Ok(())
    }

    fn count_end(&self, status: SagaStatus) {
        let (kind, status) = (self.saga.kind.name(), status.name());
        counter!(SAGAS_FINISHED, "saga" => kind, "status" => status).increment(1);
        tracing::info!(saga = %self.journal.saga, org = %self.journal.tx.org(), kind, status, "a saga ended");
    }

    /// Returns the implementation of a planned step. The plan of another release may name a step that this release
    /// lacks.
    fn step(&self, row: &StepRow) -> Result<&'a dyn Step, DbError> {
        let saga: &'a Saga = self.saga;
        let step = saga.steps.iter().find(|step| step.name() == row.name);
        step.map(|step| &**step).ok_or(DbError::NotFound)
    }

    fn context(&mut self) -> Context<'_> {
        Context { tx: &mut *self.journal.tx, saga: self.journal.saga }
    }

    fn count(&self, row: &StepRow, outcome: &'static str) {
        counter!(SAGA_STEPS, "saga" => self.saga.kind.name(), "step" => row.name.clone(), "outcome" => outcome)
            .increment(1);
    }
}

/// Returns a pause that doubles with every try, up to a limit.
fn pause_after(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(0).min(10);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(MAX_PAUSE)
}
