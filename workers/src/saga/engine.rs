//! Moves one saga by one step.

use std::{collections::HashMap, time::Duration};

use atrium_shared::{
    configuration::ConfigurationStore,
    db::{DbError, OrgTx, Topic},
    ids::{OrgId, SagaId},
    saga::{SagaStatus, StepStatus},
    streams::{Live, Redis},
    telemetry::metrics::{SAGA_STEPS, SAGAS_FINISHED},
};
use metrics::counter;
use redis::{AsyncCommands as _, streams::StreamMaxlen};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    registry,
    step::{Context, Failure, Saga, Step, Verdict},
};
use crate::consumer::{HandleError, Handler, Message};

/// Tries of an action before the saga is given up.
const MAX_ATTEMPTS: i32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Tries of a compensation after which somebody should look. It goes on all the same.
const ALARM_AFTER: i32 = 10;

/// Carries out every saga of the registry.
pub(crate) struct Engine {
    sagas: HashMap<&'static str, Saga>,
    configuration: ConfigurationStore,
    redis: Redis,
}

#[derive(Deserialize)]
struct Wake {
    saga: SagaId,
    wake: Reason,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    Advance,
    Deadline,
}

/// The saga's row, locked.
#[derive(sqlx::FromRow)]
struct Row {
    kind: String,
    status: SagaStatus,
    input: Value,
    overdue: bool,
}

#[derive(sqlx::FromRow)]
struct StepRow {
    position: i32,
    name: String,
    status: StepStatus,
    attempts: i32,
}

impl Engine {
    pub(crate) fn new(configuration: ConfigurationStore, redis: Redis) -> Self {
        let sagas = registry::all()
            .into_iter()
            .map(|saga| (saga.kind, saga))
            .collect();
        Self {
            sagas,
            configuration,
            redis,
        }
    }

    async fn advance(&self, tx: &mut OrgTx, id: SagaId, reason: Reason) -> Result<(), DbError> {
        let Some(row) = lock(tx, id).await? else {
            return Ok(());
        };
        // A kind that this release does not know, of a newer one beside it: an error, so that the message is
        // delivered again, to somebody who does.
        let saga = self.sagas.get(row.kind.as_str()).ok_or(DbError::NotFound)?;
        let mut progress = Progress {
            tx,
            id,
            saga,
            input: &row.input,
        };
        match row.status {
            // Late messages of a saga that has ended.
            SagaStatus::Committed | SagaStatus::Failed => Ok(()),
            SagaStatus::Pending if reason == Reason::Deadline || row.overdue => {
                progress.give_up(None, overdue()).await
            }
            SagaStatus::Pending => progress.forward(&self.configuration).await,
            // The deadline concerns the way forward only: what is taken back takes as long as it takes.
            SagaStatus::Compensating if reason == Reason::Deadline => Ok(()),
            SagaStatus::Compensating => progress.backward().await,
        }
    }
}

impl Handler for Engine {
    const CONSUMER: &'static str = "saga";
    type Effect = SagaId;

    async fn handle(&self, tx: &mut OrgTx, message: &Message) -> Result<SagaId, HandleError> {
        let Wake { saga, wake } = Wake::deserialize(&message.payload)?;
        self.advance(tx, saga, wake).await?;
        Ok(saga)
    }

    /// Wakes the event streams of the operation. They also poll, so a lost hint costs a second.
    async fn committed(&self, org: OrgId, saga: SagaId) {
        let fields = [("org", org.to_string()), ("operation", saga.to_string())];
        let max = StreamMaxlen::Approx(Live::Operation.max_length());
        let added: redis::RedisResult<String> = self
            .redis
            .shared()
            .xadd_maxlen(Live::Operation.to_string(), max, "*", &fields)
            .await;
        if let Err(error) = added {
            tracing::debug!(%error, "an operation's streams were not woken");
        }
    }

    /// A message that cannot be handled must not leave its saga waiting: it is compensated.
    async fn give_up(&self, tx: &mut OrgTx, message: &Message, reason: &str) -> Result<(), HandleError> {
        // A message that names no saga leaves none waiting.
        let Ok(Wake { saga: id, .. }) = Wake::deserialize(&message.payload) else {
            return Ok(());
        };
        let Some(row) = lock(tx, id).await? else {
            return Ok(());
        };
        let Some(saga) = self.sagas.get(row.kind.as_str()) else {
            return Ok(());
        };
        if row.status == SagaStatus::Pending {
            tracing::error!(saga = %id, reason, "a saga is given up because a message of it is");
            let failure = Failure {
                code: "internal",
                detail: "an unexpected error; nothing of it remains".to_owned(),
            };
            Progress {
                tx,
                id,
                saga,
                input: &row.input,
            }
            .give_up(None, failure)
            .await?;
        }
        Ok(())
    }
}

/// A saga that is being moved.
struct Progress<'a> {
    tx: &'a mut OrgTx,
    id: SagaId,
    saga: &'a Saga,
    input: &'a Value,
}

impl<'a> Progress<'a> {
    /// Runs the first step that is not done.
    async fn forward(&mut self, configuration: &ConfigurationStore) -> Result<(), DbError> {
        let mut steps = self.steps().await?;
        if steps.is_empty() {
            self.plan().await?;
            steps = self.steps().await?;
        }
        let Some(row) = steps.iter().find(|row| row.status != StepStatus::Done) else {
            return Err(DbError::NotFound);
        };
        let step = self.step(row)?;
        let last = steps.last().is_some_and(|last| last.position == row.position);

        let drill = format!("{}/{}", self.saga.kind, row.name);
        let verdict = if configuration.platform().organization().saga_fail_step == drill {
            Ok(Verdict::Fail(Failure {
                code: "drill",
                detail: format!("saga.fail_step says that {drill} fails"),
            }))
        } else {
            self.attempt(step).await
        };
        match verdict {
            Ok(Verdict::Done(detail)) => {
                self.record(row, StepStatus::Done, detail.as_deref()).await?;
                if last {
                    self.finish(SagaStatus::Committed, "commit").await
                } else {
                    self.wake(None).await
                }
            }
            Ok(Verdict::RetryAfter(pause, detail)) => self.retry(row, Some(pause), &detail).await,
            Ok(Verdict::Fail(failure)) => self.give_up(Some(row), failure).await,
            // The whole message is tried again: nothing can be recorded now.
            Err(error @ DbError::Unavailable(_)) => Err(error),
            Err(error) => {
                tracing::warn!(saga = %self.id, step = row.name, %error, "a step failed");
                self.retry(row, None, "an unexpected error; trying again").await
            }
        }
    }

    /// Compensates the last step that was begun and is not compensated yet.
    async fn backward(&mut self) -> Result<(), DbError> {
        let steps = self.steps().await?;
        let begun = |row: &&StepRow| {
            matches!(
                row.status,
                StepStatus::Running | StepStatus::Done | StepStatus::Failed
            )
        };
        let Some(row) = steps.iter().rev().find(begun) else {
            return self.finish(SagaStatus::Failed, "compensate").await;
        };
        let step = self.step(row)?;
        let compensated = {
            // A savepoint, so that what a failed try did is taken back, and the try itself can still be recorded.
            self.savepoint().await?;
            let context = Context {
                tx: &mut *self.tx,
                saga: self.id,
                input: self.input,
            };
            step.compensate(context).await
        };
        match compensated {
            Ok(()) => {
                self.record(row, StepStatus::Compensated, None).await?;
                let others = steps.iter().filter(begun).count() > 1;
                if others {
                    self.wake(None).await
                } else {
                    self.finish(SagaStatus::Failed, "compensate").await
                }
            }
            Err(error @ DbError::Unavailable(_)) => Err(error),
            Err(error) => {
                self.rollback_to_savepoint().await?;
                let attempts = row.attempts + 1;
                if attempts >= ALARM_AFTER {
                    tracing::error!(saga = %self.id, step = row.name, attempts, %error, "a compensation does not work");
                }
                counter!(SAGA_STEPS, "saga" => self.saga.kind, "step" => step.name(), "outcome" => "compensation_failed")
                    .increment(1);
                self.set_attempts(row, row.status, attempts).await?;
                self.wake(Some(pause_after(attempts))).await
            }
        }
    }

    /// Runs an action behind a savepoint; unless it is done, what it did in the database is taken back.
    async fn attempt(&mut self, step: &dyn Step) -> Result<Verdict, DbError> {
        self.savepoint().await?;
        let context = Context {
            tx: &mut *self.tx,
            saga: self.id,
            input: self.input,
        };
        let verdict = step.run(context).await;
        if !matches!(verdict, Ok(Verdict::Done(_)) | Err(DbError::Unavailable(_))) {
            self.rollback_to_savepoint().await?;
        }
        verdict
    }

    async fn retry(&mut self, row: &StepRow, pause: Option<Duration>, detail: &str) -> Result<(), DbError> {
        let attempts = row.attempts + 1;
        if attempts >= MAX_ATTEMPTS {
            let detail = format!("it did not work in {attempts} tries");
            return self
                .give_up(
                    Some(row),
                    Failure {
                        code: "step_failed",
                        detail,
                    },
                )
                .await;
        }
        self.set_attempts(row, StepStatus::Running, attempts).await?;
        self.event(Some(&row.name), StepStatus::Running.name(), Some(detail))
            .await?;
        self.wake(Some(pause.unwrap_or_else(|| pause_after(attempts))))
            .await
    }

    /// Turns around: from here on, what was done is taken back.
    async fn give_up(&mut self, at: Option<&StepRow>, failure: Failure) -> Result<(), DbError> {
        if let Some(row) = at {
            self.record(row, StepStatus::Failed, Some(&failure.detail))
                .await?;
        }
        let failure = json!({ "code": failure.code, "detail": failure.detail });
        let turned = sqlx::query(
            "UPDATE sagas SET status = 'COMPENSATING', failure = $3
              WHERE org_id = $1 AND id = $2 AND status = 'PENDING'",
        )
        .bind(self.tx.org())
        .bind(self.id)
        .bind(failure)
        .execute(self.tx.conn())
        .await?;
        if turned.rows_affected() == 1 {
            self.wake(None).await
        } else {
            Ok(())
        }
    }

    /// The final compare-and-set: from the state that the row lock has shown, and only from that one.
    async fn finish(&mut self, status: SagaStatus, last: &'static str) -> Result<(), DbError> {
        let from = if status == SagaStatus::Committed {
            SagaStatus::Pending
        } else {
            SagaStatus::Compensating
        };
        let finished = sqlx::query(
            "UPDATE sagas SET status = $3, finished_at = clock_timestamp()
              WHERE org_id = $1 AND id = $2 AND status = $4",
        )
        .bind(self.tx.org())
        .bind(self.id)
        .bind(status)
        .bind(from)
        .execute(self.tx.conn())
        .await?;
        if finished.rows_affected() != 1 {
            return Err(DbError::NotFound);
        }
        self.event(None, status.name(), None).await?;
        counter!(SAGAS_FINISHED, "saga" => self.saga.kind, "status" => status.name()).increment(1);
        tracing::info!(saga = %self.id, org = %self.tx.org(), kind = self.saga.kind, status = status.name(), last, "a saga ended");
        Ok(())
    }

    async fn steps(&mut self) -> Result<Vec<StepRow>, DbError> {
        Ok(sqlx::query_as(
            "SELECT position, name, status, attempts FROM saga_steps
              WHERE org_id = $1 AND saga_id = $2 ORDER BY position",
        )
        .bind(self.tx.org())
        .bind(self.id)
        .fetch_all(self.tx.conn())
        .await?)
    }

    async fn plan(&mut self) -> Result<(), DbError> {
        let names: Vec<&str> = self.saga.steps.iter().map(|step| step.name()).collect();
        sqlx::query(
            "INSERT INTO saga_steps (org_id, saga_id, position, name)
             SELECT $1, $2, position, name FROM unnest($3::text[]) WITH ORDINALITY AS plan (name, position)",
        )
        .bind(self.tx.org())
        .bind(self.id)
        .bind(names)
        .execute(self.tx.conn())
        .await?;
        Ok(())
    }

    /// The code of a planned step. A plan of another release may name one that this release does not have.
    fn step(&self, row: &StepRow) -> Result<&'a dyn Step, DbError> {
        let saga: &'a Saga = self.saga;
        let named = saga.steps.iter().find(|step| step.name() == row.name);
        named.map(|step| &**step).ok_or(DbError::NotFound)
    }

    async fn record(
        &mut self,
        row: &StepRow,
        status: StepStatus,
        detail: Option<&str>,
    ) -> Result<(), DbError> {
        sqlx::query(
            "UPDATE saga_steps
                SET status = $4, attempts = attempts + 1, started_at = COALESCE(started_at, clock_timestamp()),
                    finished_at = clock_timestamp(), detail = $5
              WHERE org_id = $1 AND saga_id = $2 AND position = $3",
        )
        .bind(self.tx.org())
        .bind(self.id)
        .bind(row.position)
        .bind(status)
        .bind(detail)
        .execute(self.tx.conn())
        .await?;
        self.event(Some(&row.name), status.name(), detail).await?;
        let step = self.step(row)?.name();
        let outcome = match status {
            StepStatus::Done => "done",
            StepStatus::Compensated => "compensated",
            _ => "failed",
        };
        counter!(SAGA_STEPS, "saga" => self.saga.kind, "step" => step, "outcome" => outcome).increment(1);
        Ok(())
    }

    async fn set_attempts(
        &mut self,
        row: &StepRow,
        status: StepStatus,
        attempts: i32,
    ) -> Result<(), DbError> {
        sqlx::query(
            "UPDATE saga_steps
                SET status = $4, attempts = $5, started_at = COALESCE(started_at, clock_timestamp())
              WHERE org_id = $1 AND saga_id = $2 AND position = $3",
        )
        .bind(self.tx.org())
        .bind(self.id)
        .bind(row.position)
        .bind(status)
        .bind(attempts)
        .execute(self.tx.conn())
        .await?;
        Ok(())
    }

    /// Numbered under the saga's row lock, hence without gaps.
    async fn event(&mut self, step: Option<&str>, status: &str, detail: Option<&str>) -> Result<(), DbError> {
        sqlx::query(
            "INSERT INTO saga_events (org_id, saga_id, seq, step, status, detail)
             SELECT $1, $2, COALESCE(max(seq), 0) + 1, $3, $4, $5 FROM saga_events WHERE org_id = $1 AND saga_id = $2",
        )
        .bind(self.tx.org())
        .bind(self.id)
        .bind(step)
        .bind(status)
        .bind(detail)
        .execute(self.tx.conn())
        .await?;
        Ok(())
    }

    /// Comes back to this saga, at once or after a pause.
    async fn wake(&mut self, pause: Option<Duration>) -> Result<(), DbError> {
        let message = json!({ "saga": self.id, "wake": "advance" });
        match pause {
            None => self.tx.enqueue(Topic::Saga, self.id.uuid(), &message).await?,
            Some(pause) => {
                self.tx
                    .enqueue_after(Topic::Saga, self.id.uuid(), &message, pause)
                    .await?
            }
        };
        Ok(())
    }

    async fn savepoint(&mut self) -> Result<(), DbError> {
        sqlx::query("SAVEPOINT step").execute(self.tx.conn()).await?;
        Ok(())
    }

    async fn rollback_to_savepoint(&mut self) -> Result<(), DbError> {
        sqlx::query("ROLLBACK TO SAVEPOINT step")
            .execute(self.tx.conn())
            .await?;
        Ok(())
    }
}

async fn lock(tx: &mut OrgTx, id: SagaId) -> Result<Option<Row>, DbError> {
    let org = tx.org();
    Ok(sqlx::query_as(
        "SELECT kind, status, input, deadline_at < clock_timestamp() AS overdue FROM sagas
          WHERE org_id = $1 AND id = $2 FOR UPDATE",
    )
    .bind(org)
    .bind(id)
    .fetch_optional(tx.conn())
    .await?)
}

fn overdue() -> Failure {
    Failure {
        code: "deadline_exceeded",
        detail: "it was not done before its deadline".to_owned(),
    }
}

fn pause_after(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(0).min(10);
    (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
}
