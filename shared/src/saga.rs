//! The shared view of sagas: the API starts a saga and shows it as an *operation*, the workers run it.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sqlx::types::Json;
use strum::{IntoStaticStr, VariantArray};
use time::OffsetDateTime;

use crate::{
    audit::{self, Action, Change},
    db::{DbError, OrgTx},
    ids::{OrgId, SagaId, UserId},
    messages::{DeletionCertificate, OperationFailure, SagaWake, WakeReason},
};

/// The kind of a saga. During an upgrade, another release may start kinds that this release does not have, so a kind
/// that is read from the database stays text.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    schemars::JsonSchema,
    strum::Display,
    IntoStaticStr,
    VariantArray,
)]
pub enum SagaKind {
    /// Creates an organization.
    #[serde(rename = "organization.create")]
    #[strum(serialize = "organization.create")]
    CreateOrganization,
    /// Deletes an organization.
    #[serde(rename = "organization.delete")]
    #[strum(serialize = "organization.delete")]
    DeleteOrganization,
}

impl SagaKind {
    /// The name, as in SQL and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// How long a saga may take before it is compensated, unless it is started with another deadline.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The status of a saga. COMMITTED and FAILED are final.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    schemars::JsonSchema,
    sqlx::Type,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum SagaStatus {
    /// Its steps are running.
    Pending,
    /// It failed or was canceled; its steps are being compensated.
    Compensating,
    /// Every step is done.
    Committed,
    /// Every step that was started is compensated.
    Failed,
}

impl SagaStatus {
    /// The name, as in SQL and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The status of a step.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    schemars::JsonSchema,
    sqlx::Type,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[sqlx(type_name = "text", rename_all = "SCREAMING_SNAKE_CASE")]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum StepStatus {
    /// Not started.
    Pending,
    /// Started and not done yet; it is retried.
    Running,
    /// It has taken effect.
    Done,
    /// It failed and is not retried.
    Failed,
    /// Its effect is undone.
    Compensated,
}

impl StepStatus {
    /// The name, as in SQL and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// A saga as the API shows it.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct Operation {
    /// The saga's id.
    pub id: SagaId,
    /// The name of a [`SagaKind`].
    #[schemars(with = "SagaKind")]
    pub kind: String,
    /// The organization that it is about.
    pub org_id: OrgId,
    /// Its status.
    pub status: SagaStatus,
    /// Its steps, in order; empty until a worker has planned them.
    pub steps: Vec<OperationStep>,
    /// Why it is compensated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<OperationFailure>,
    /// The time at which the saga is compensated if it has not ended.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub deadline_at: OffsetDateTime,
    /// When it was requested.
    #[serde(with = "time::serde::rfc3339")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub finished_at: Option<OffsetDateTime>,
    /// Only of a deletion whose organization is purged: what was removed, and what a search found afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<DeletionCertificate>,
}

impl Operation {
    /// Whether the saga is or was compensated because it was canceled.
    #[must_use]
    pub fn is_canceled(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| failure.code == CANCELED)
    }
}

/// A step of an operation.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct OperationStep {
    /// Its name, unique within the saga.
    pub name: String,
    /// Its status.
    pub status: StepStatus,
    /// Number of attempts of the action, or of the compensation once that has begun.
    pub attempts: i32,
    /// The time of the first attempt.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub started_at: Option<OffsetDateTime>,
    /// The time at which it reached its status.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub finished_at: Option<OffsetDateTime>,
    /// A text for the user who waits for the operation.
    pub detail: Option<String>,
}

/// A change of the status of a saga or of one of its steps.
#[derive(Clone, Debug)]
pub struct SagaEvent {
    /// 1, 2, 3 … within the saga.
    pub seq: i64,
    /// The step; none for a status of the saga itself.
    pub step: Option<String>,
    /// The step's new status, or the saga's.
    pub status: String,
    /// A text for the user who waits for the operation.
    pub detail: Option<String>,
    /// The time of the change.
    pub at: OffsetDateTime,
}

/// Starts a saga in the transaction of the request: stores its row, its first message, and the message that is
/// delivered at its deadline.
///
/// # Errors
/// When the database does not answer.
pub async fn start(tx: &mut OrgTx, kind: SagaKind, created_by: UserId) -> Result<SagaId, DbError> {
    start_within(tx, kind, created_by, DEADLINE).await
}

/// Like [`start`], with a deadline other than [`DEADLINE`].
///
/// # Errors
/// When the database does not answer.
pub async fn start_within(
    tx: &mut OrgTx,
    kind: SagaKind,
    created_by: UserId,
    deadline: Duration,
) -> Result<SagaId, DbError> {
    let (org, id) = (tx.org(), SagaId::new());
    sqlx::query!(
        "INSERT INTO sagas (org_id, id, kind, created_by, deadline_at)
         VALUES ($1, $2, $3, $4, clock_timestamp() + $5::bigint * interval '1 second')",
        org as OrgId,
        id as SagaId,
        kind.name(),
        created_by as UserId,
        i64::try_from(deadline.as_secs()).unwrap_or(i64::MAX)
    )
    .execute(tx.conn())
    .await?;
    let [immediate, at_deadline] =
        [WakeReason::Advance, WakeReason::Deadline].map(|wake| SagaWake { saga: id, wake });
    tx.enqueue_with_deadline(id, &immediate, &at_deadline, deadline).await?;
    Ok(id)
}

/// Starts the compensation of a PENDING saga. Returns whether it was PENDING. The caller must ensure that the saga has
/// not passed its pivot, because the steps after the pivot cannot be undone.
///
/// # Errors
/// When the database does not answer.
pub async fn start_compensation(
    tx: &mut OrgTx,
    id: SagaId,
    code: &str,
    detail: &str,
) -> Result<bool, DbError> {
    let org = tx.org();
    let failure = OperationFailure { code: code.to_owned(), detail: detail.to_owned() };
    let updated = sqlx::query!(
        "UPDATE sagas SET status = 'COMPENSATING', failure = $3, turned_around_at = clock_timestamp()
          WHERE org_id = $1 AND id = $2 AND status = 'PENDING'",
        org as OrgId,
        id as SagaId,
        Json(failure) as _
    )
    .execute(tx.conn())
    .await?;
    if updated.rows_affected() == 0 {
        return Ok(false);
    }
    tx.enqueue(id, &SagaWake { saga: id, wake: WakeReason::Advance }).await?;
    Ok(true)
}

/// The failure code of a saga that was canceled.
pub const CANCELED: &str = "canceled";

/// Cancels a saga: its steps are compensated. Returns true also if the saga was canceled before. Returns false when it
/// is too late: the saga has ended, has passed its pivot, or is compensated for another reason.
///
/// # Errors
/// [`DbError::NotFound`] when there is no such saga.
pub async fn cancel(tx: &mut OrgTx, id: SagaId) -> Result<bool, DbError> {
    let org = tx.org();
    // A step locks this row while it runs, so no step starts before this transaction ends.
    let saga = sqlx::query!(
        r#"SELECT kind, status AS "status: SagaStatus", COALESCE(failure->>'code' = $3, false) AS "is_canceled!"
             FROM sagas
            WHERE org_id = $1 AND id = $2 FOR UPDATE"#,
        org as OrgId,
        id as SagaId,
        CANCELED
    )
    .fetch_one(tx.conn())
    .await?;
    if saga.status != SagaStatus::Pending || is_past_pivot(tx, id).await? {
        return Ok(saga.is_canceled);
    }
    start_compensation(tx, id, CANCELED, "it was canceled").await?;
    let change = Change::new(Action::OperationCanceled, "operation", id);
    audit::record(tx, change.after(json!({ "kind": saga.kind }))).await?;
    Ok(true)
}

/// Whether a step after the pivot has started.
///
/// # Errors
/// When the database does not answer.
pub async fn is_past_pivot(tx: &mut OrgTx, id: SagaId) -> Result<bool, DbError> {
    let org = tx.org();
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM saga_steps
                         WHERE org_id = $1 AND saga_id = $2 AND retriable AND status <> 'PENDING') AS "exists!""#,
        org as OrgId,
        id as SagaId
    )
    .fetch_one(tx.conn())
    .await?)
}

/// An operation with its steps.
///
/// # Errors
/// [`DbError::NotFound`] when there is no such saga.
pub async fn operation(tx: &mut OrgTx, id: SagaId) -> Result<Operation, DbError> {
    let org_id = tx.org();
    let saga = sqlx::query!(
        r#"SELECT kind, status AS "status: SagaStatus", failure AS "failure: Json<OperationFailure>", deadline_at,
                  created_at, finished_at
             FROM sagas WHERE org_id = $1 AND id = $2"#,
        org_id as OrgId,
        id as SagaId
    )
    .fetch_one(tx.conn())
    .await?;
    let steps = sqlx::query_as!(
        OperationStep,
        r#"SELECT name, status AS "status: StepStatus", attempts, started_at, finished_at, detail FROM saga_steps
            WHERE org_id = $1 AND saga_id = $2 ORDER BY position"#,
        org_id as OrgId,
        id as SagaId
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(Operation {
        id,
        kind: saga.kind,
        org_id,
        status: saga.status,
        steps,
        failure: saga.failure.map(|Json(failure)| failure),
        deadline_at: saga.deadline_at,
        created_at: saga.created_at,
        finished_at: saga.finished_at,
        certificate: None,
    })
}

/// The events of a saga after event `seq`, oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn events_after(tx: &mut OrgTx, id: SagaId, seq: i64) -> Result<Vec<SagaEvent>, DbError> {
    let org = tx.org();
    Ok(sqlx::query_as!(
        SagaEvent,
        "SELECT seq, step, status, detail, at FROM saga_events
          WHERE org_id = $1 AND saga_id = $2 AND seq > $3 ORDER BY seq",
        org as OrgId,
        id as SagaId,
        seq
    )
    .fetch_all(tx.conn())
    .await?)
}
