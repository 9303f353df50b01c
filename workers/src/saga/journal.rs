//! The journal of a saga: its plan, its steps, its events, and the message that continues it. They are written in the
//! transaction that locks the saga's row, so they are stored together with the effect, or not at all.
//!
//! Tries and events are collected, and written at the end with one statement for all steps of the transaction, because
//! round trips dominate the cost of a saga.

use std::time::Duration;

use atrium_shared::{
    db::{DbError, OrgTx},
    ids::{OrgId, SagaId},
    messages::{SagaWake, WakeReason},
    saga::{self, SagaStatus, StepStatus},
};

use super::step::{Failure, Saga};

/// The engine's name in the inbox.
pub(super) const CONSUMER: &str = "saga";

/// A saga, locked by the transaction that advances it.
pub(super) struct Journal<'a> {
    pub(super) tx: &'a mut OrgTx,
    pub(super) saga: SagaId,
    tries: Vec<Try>,
    events: Vec<Event>,
}

/// One try of the action of a step.
struct Try {
    position: i32,
    status: StepStatus,
    detail: Option<String>,
}

/// An event of the operation's event stream.
struct Event {
    /// The name of the step; none for an event of the saga itself.
    step: Option<String>,
    status: &'static str,
    detail: Option<String>,
}

/// The saga's row.
pub(super) struct SagaRow {
    pub(super) kind: String,
    pub(super) status: SagaStatus,
    pub(super) overdue: bool,
}

/// The row of a step.
pub(super) struct StepRow {
    pub(super) position: i32,
    pub(super) name: String,
    pub(super) status: StepStatus,
    pub(super) attempts: i32,
    pub(super) compensation_attempts: i32,
    pub(super) compensated: bool,
}

impl StepRow {
    /// Whether its action was begun, so that it may have to be compensated.
    pub(super) fn is_begun(&self) -> bool {
        self.status != StepStatus::Pending
    }
}

/// Returns the step to compensate next, and whether it is the last one to compensate. The next one is the last step
/// that was begun and is not compensated. The first step always counts as begun, because its compensation also undoes
/// what the request has stored.
pub(super) fn next_to_compensate(steps: &[StepRow]) -> Option<(&StepRow, bool)> {
    let due = |(at, step): &(usize, &StepRow)| (step.is_begun() || *at == 0) && !step.compensated;
    let mut due = steps.iter().enumerate().filter(due).rev();
    let (_, step) = due.next()?;
    Some((step, due.next().is_none()))
}

impl<'a> Journal<'a> {
    pub(super) fn new(tx: &'a mut OrgTx, saga: SagaId) -> Self {
        Self { tx, saga, tries: Vec::new(), events: Vec::new() }
    }

    /// Locks the saga's row, so that two messages for one saga are handled one after the other.
    pub(super) async fn lock(&mut self) -> Result<Option<SagaRow>, DbError> {
        Ok(sqlx::query_as!(
            SagaRow,
            r#"SELECT kind, status AS "status: SagaStatus", deadline_at < clock_timestamp() AS "overdue!"
                 FROM sagas
                WHERE org_id = $1 AND id = $2 FOR UPDATE"#,
            self.tx.org() as OrgId,
            self.saga as SagaId
        )
        .fetch_optional(self.tx.conn())
        .await?)
    }

    /// Reads the plan. Stores it first if that has not been done.
    pub(super) async fn plan(&mut self, saga: &Saga) -> Result<Vec<StepRow>, DbError> {
        let steps = self.steps().await?;
        if !steps.is_empty() {
            return Ok(steps);
        }
        let (names, retriable): (Vec<&str>, Vec<bool>) =
            saga.steps.iter().map(|step| (step.name(), step.is_retriable())).unzip();
        let mut planned: Vec<StepRow> = sqlx::query_as!(
            StepRow,
            r#"INSERT INTO saga_steps (org_id, saga_id, position, name, retriable)
             SELECT $1, $2, position, name, retriable
               FROM unnest($3::text[], $4::boolean[]) WITH ORDINALITY AS plan (name, retriable, position)
             RETURNING position, name, status AS "status: StepStatus", attempts, compensation_attempts,
                       false AS "compensated!""#,
            self.tx.org() as OrgId,
            self.saga as SagaId,
            &names as &[&str],
            &retriable[..]
        )
        .fetch_all(self.tx.conn())
        .await?;
        planned.sort_by_key(|step| step.position);
        Ok(planned)
    }

    /// Returns the steps in order; empty before the plan is stored.
    pub(super) async fn steps(&mut self) -> Result<Vec<StepRow>, DbError> {
        Ok(sqlx::query_as!(
            StepRow,
            r#"SELECT position, name, status AS "status: StepStatus", attempts, compensation_attempts,
                    compensated_at IS NOT NULL AS "compensated!"
               FROM saga_steps WHERE org_id = $1 AND saga_id = $2 ORDER BY position"#,
            self.tx.org() as OrgId,
            self.saga as SagaId
        )
        .fetch_all(self.tx.conn())
        .await?)
    }

    /// Records that a step's effect outside of PostgreSQL is about to be applied. From now on it must be removed if the
    /// saga is compensated.
    pub(super) async fn begin(&mut self, step: &StepRow) -> Result<(), DbError> {
        if step.is_begun() {
            return Ok(());
        }
        sqlx::query!(
            "UPDATE saga_steps SET status = 'RUNNING', started_at = clock_timestamp()
              WHERE org_id = $1 AND saga_id = $2 AND position = $3",
            self.tx.org() as OrgId,
            self.saga as SagaId,
            step.position
        )
        .execute(self.tx.conn())
        .await?;
        self.record_event(Some(step), StepStatus::Running.name(), None);
        Ok(())
    }

    /// Records a try of a step's action: done, failed for good, or to be retried.
    pub(super) fn record_try(&mut self, step: &StepRow, status: StepStatus, detail: Option<String>) {
        self.record_event(Some(step), status.name(), detail.clone());
        self.tries.push(Try { position: step.position, status, detail });
    }

    /// Records that a step is compensated. A failed step keeps the status FAILED.
    pub(super) async fn record_compensation(&mut self, step: &StepRow) -> Result<(), DbError> {
        let failed = step.status == StepStatus::Failed;
        let status = if failed { StepStatus::Failed } else { StepStatus::Compensated };
        sqlx::query!(
            "UPDATE saga_steps
                SET status = $4, compensation_attempts = compensation_attempts + 1, compensated_at = clock_timestamp()
              WHERE org_id = $1 AND saga_id = $2 AND position = $3",
            self.tx.org() as OrgId,
            self.saga as SagaId,
            step.position,
            status as StepStatus
        )
        .execute(self.tx.conn())
        .await?;
        if !failed {
            self.record_event(Some(step), status.name(), None);
        }
        Ok(())
    }

    /// Records a compensation that failed and will be retried.
    pub(super) async fn record_failed_compensation(&mut self, step: &StepRow) -> Result<(), DbError> {
        sqlx::query!(
            "UPDATE saga_steps SET compensation_attempts = compensation_attempts + 1
              WHERE org_id = $1 AND saga_id = $2 AND position = $3",
            self.tx.org() as OrgId,
            self.saga as SagaId,
            step.position
        )
        .execute(self.tx.conn())
        .await?;
        Ok(())
    }

    /// Changes the status from PENDING to COMPENSATING, and schedules the first compensation.
    pub(super) async fn start_compensation(&mut self, failure: &Failure) -> Result<(), DbError> {
        saga::start_compensation(self.tx, self.saga, failure.code, &failure.detail).await.map(drop)
    }

    /// Sets the final status. Returns an error unless the saga has the status that precedes it.
    pub(super) async fn finish(&mut self, status: SagaStatus) -> Result<(), DbError> {
        let from =
            if status == SagaStatus::Committed { SagaStatus::Pending } else { SagaStatus::Compensating };
        let finished = sqlx::query!(
            "UPDATE sagas SET status = $3, finished_at = clock_timestamp()
              WHERE org_id = $1 AND id = $2 AND status = $4",
            self.tx.org() as OrgId,
            self.saga as SagaId,
            status as SagaStatus,
            from as SagaStatus
        )
        .execute(self.tx.conn())
        .await?;
        if finished.rows_affected() != 1 {
            return Err(DbError::NotFound);
        }
        self.record_event(None, status.name(), None);
        Ok(())
    }

    /// Schedules the next message of this saga, immediately or after a pause.
    pub(super) async fn wake(&mut self, pause: Option<Duration>) -> Result<(), DbError> {
        let message = SagaWake { saga: self.saga, wake: WakeReason::Advance };
        match pause {
            None => self.tx.enqueue(self.saga, &message).await?,
            Some(pause) => self.tx.enqueue_after(self.saga, &message, pause).await?,
        };
        Ok(())
    }

    /// Sets a savepoint, so that later changes can be rolled back without losing the transaction.
    pub(super) async fn savepoint(&mut self) -> Result<(), DbError> {
        sqlx::query!("SAVEPOINT step").execute(self.tx.conn()).await?;
        Ok(())
    }

    /// Rolls back to the savepoint, also after a failed statement.
    pub(super) async fn rollback_to_savepoint(&mut self) -> Result<(), DbError> {
        sqlx::query!("ROLLBACK TO SAVEPOINT step").execute(self.tx.conn()).await?;
        Ok(())
    }

    fn record_event(&mut self, step: Option<&StepRow>, status: &'static str, detail: Option<String>) {
        self.events.push(Event { step: step.map(|step| step.name.clone()), status, detail });
    }

    /// Writes the collected tries and events. Events are numbered under the lock of the saga's row, hence without gaps.
    pub(super) async fn write(self) -> Result<(), DbError> {
        let Self { tx, saga, tries, events } = self;
        if events.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "WITH tried AS (
                 UPDATE saga_steps AS step
                    SET status = try.status, attempts = attempts + 1, detail = try.detail,
                        started_at = COALESCE(started_at, clock_timestamp()),
                        finished_at = CASE WHEN try.status <> 'RUNNING' THEN clock_timestamp() END
                   FROM unnest($3::int[], $4::text[], $5::text[]) AS try (position, status, detail)
                  WHERE step.org_id = $1 AND step.saga_id = $2 AND step.position = try.position)
             INSERT INTO saga_events (org_id, saga_id, seq, step, status, detail)
             SELECT $1, $2, last.seq + event.nth, event.step, event.status, event.detail
               FROM unnest($6::text[], $7::text[], $8::text[]) WITH ORDINALITY AS event (step, status, detail, nth),
                    (SELECT COALESCE(max(seq), 0) AS seq FROM saga_events WHERE org_id = $1 AND saga_id = $2) AS last
              ORDER BY event.nth",
            tx.org() as OrgId,
            saga as SagaId,
            &tries.iter().map(|each| each.position).collect::<Vec<_>>()[..],
            &tries.iter().map(|each| each.status.name()).collect::<Vec<_>>() as &[&str],
            &tries.iter().map(|each| each.detail.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
            &events.iter().map(|event| event.step.as_deref()).collect::<Vec<_>>() as &[Option<&str>],
            &events.iter().map(|event| event.status).collect::<Vec<_>>() as &[&str],
            &events.iter().map(|event| event.detail.as_deref()).collect::<Vec<_>>() as &[Option<&str>]
        )
        .execute(tx.conn())
        .await?;
        Ok(())
    }
}
