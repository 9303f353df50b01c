//! Changes of an organization's status after its creation: suspend and resume, delete and restore.
//!
//! A suspended organization, or one that is being deleted, can be read and exported, not changed; it has no live
//! streams. A deletion is a saga: it waits for the end of the grace period, during which it can be canceled, and then
//! purges the organization. A certificate remains, and the operation is then shown from this certificate.

use std::time::Duration;

use serde_json::json;
use sqlx::types::Json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::OrganizationError;
use crate::{
    audit::{self, Action, Change},
    db::{DbError, OrgTx, UserTx},
    ids::{OrgId, SagaId, UserId},
    messages::DeletionCertificate,
    saga::{self, Operation, SagaKind, SagaStatus},
    tenancy::OrgStatus,
};

/// Who suspends or resumes an organization.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    serde::Serialize,
    schemars::JsonSchema,
    sqlx::Type,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SuspendedBy {
    /// An owner.
    Owner,
    /// An operator. No owner can resume the organization.
    Operator,
}

/// How long after the grace period the purge may still start. Long, because workers may be down for days.
const PURGE_ALLOWANCE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Locks the organization's row, which serializes changes of its status and of its members. Returns its status.
///
/// # Errors
/// [`DbError::NotFound`] when it does not exist.
pub async fn lock(tx: &mut OrgTx) -> Result<(OrgStatus, Option<SuspendedBy>), DbError> {
    let org = tx.org();
    let row = sqlx::query!(
        r#"SELECT status AS "status: OrgStatus", suspended_by AS "suspended_by: SuspendedBy" FROM orgs
            WHERE id = $1 FOR NO KEY UPDATE"#,
        org as OrgId
    )
    .fetch_one(tx.conn())
    .await?;
    Ok((row.status, row.suspended_by))
}

/// Suspends the organization and ends its live streams. Only an operator states a reason. An operator's suspension
/// replaces an owner's.
///
/// # Errors
/// [`OrganizationError::NotReady`] or [`OrganizationError::Deleting`] when its status does not allow this.
pub async fn suspend(tx: &mut OrgTx, by: SuspendedBy, reason: Option<&str>) -> Result<(), OrganizationError> {
    let org = tx.org();
    match lock(tx).await? {
        (OrgStatus::Suspended, current) if current == Some(SuspendedBy::Operator) || current == Some(by) => {
            return Ok(());
        }
        (OrgStatus::Suspended, _) => {}
        (status, _) => status.require_open()?,
    }
    sqlx::query!(
        "UPDATE orgs SET status = 'SUSPENDED', suspended_by = $2, version = version + 1, updated_at = clock_timestamp()
          WHERE id = $1",
        org as OrgId,
        by as SuspendedBy
    )
    .execute(tx.conn())
    .await?;
    tx.revoke_access(None, None).await?;
    let change = Change::new(Action::OrganizationSuspended, "organization", org);
    Ok(audit::record(tx, change.after(json!({ "suspended_by": by, "reason": reason }))).await?)
}

/// Resumes a suspended organization.
///
/// # Errors
/// [`OrganizationError::Suspended`] for an owner when an operator has suspended it; [`OrganizationError::NotReady`] or
/// [`OrganizationError::Deleting`] when its status does not allow this.
pub async fn resume(tx: &mut OrgTx, by: SuspendedBy, reason: Option<&str>) -> Result<(), OrganizationError> {
    let org = tx.org();
    match lock(tx).await? {
        (OrgStatus::Suspended, Some(SuspendedBy::Operator)) if by == SuspendedBy::Owner => {
            return Err(OrganizationError::Suspended);
        }
        (OrgStatus::Suspended, _) => {}
        // Nothing to do if the organization is committed.
        (status, _) => return status.require_open(),
    }
    sqlx::query!(
        "UPDATE orgs SET status = 'COMMITTED', suspended_by = NULL, version = version + 1,
                updated_at = clock_timestamp()
          WHERE id = $1",
        org as OrgId
    )
    .execute(tx.conn())
    .await?;
    let change = Change::new(Action::OrganizationResumed, "organization", org);
    Ok(audit::record(tx, change.after(json!({ "resumed_by": by, "reason": reason }))).await?)
}

/// Requests the deletion: the organization is closed immediately, and purged when the grace period is over. Returns the
/// operation's id.
///
/// # Errors
/// [`OrganizationError::NotReady`] or [`OrganizationError::Deleting`] when its status does not allow this;
/// [`OrganizationError::Suspended`] when an operator has suspended it.
pub async fn request_deletion(
    tx: &mut OrgTx,
    user: UserId,
    grace: Duration,
) -> Result<SagaId, OrganizationError> {
    let org = tx.org();
    match lock(tx).await? {
        (OrgStatus::Suspended, Some(SuspendedBy::Operator)) => return Err(OrganizationError::Suspended),
        (OrgStatus::Suspended, _) => {}
        (status, _) => status.require_open()?,
    }
    let deletion =
        saga::start_within(tx, SagaKind::DeleteOrganization, user, grace + PURGE_ALLOWANCE).await?;
    let delete_at = sqlx::query_scalar!(
        r#"UPDATE orgs SET status = 'DELETING', deletion_id = $2,
                delete_at = clock_timestamp() + $3::bigint * interval '1 second',
                version = version + 1, updated_at = clock_timestamp()
          WHERE id = $1 RETURNING delete_at AS "delete_at!""#,
        org as OrgId,
        deletion as SagaId,
        i64::try_from(grace.as_secs()).unwrap_or(i64::MAX)
    )
    .fetch_one(tx.conn())
    .await?;
    tx.revoke_access(None, None).await?;
    let change = Change::new(Action::OrganizationDeletionRequested, "organization", org);
    let delete_at = delete_at.format(&Rfc3339).unwrap_or_default();
    audit::record(tx, change.after(json!({ "operation_id": deletion, "delete_at": delete_at }))).await?;
    Ok(deletion)
}

/// Cancels the deletion within its grace period and restores the organization's former status immediately.
///
/// # Errors
/// [`OrganizationError::NotDeleting`] when there is no deletion, [`OrganizationError::Deleting`] when it is too late.
pub async fn cancel_deletion(tx: &mut OrgTx) -> Result<(), OrganizationError> {
    let org = tx.org();
    let deletion = sqlx::query_scalar!(
        r#"SELECT deletion_id AS "deletion_id: SagaId" FROM orgs WHERE id = $1"#,
        org as OrgId
    )
    .fetch_one(tx.conn())
    .await?
    .ok_or(OrganizationError::NotDeleting)?;
    // Locks the saga's row first, as the saga's steps do, because the other order could deadlock.
    if !saga::start_compensation(tx, deletion, saga::CANCELED, "the organization was restored").await? {
        return Err(OrganizationError::Deleting);
    }
    if !reopen(tx, deletion, true).await? {
        return Err(OrganizationError::Deleting);
    }
    let change = Change::new(Action::OrganizationRestored, "organization", org);
    Ok(audit::record(tx, change.after(json!({ "operation_id": deletion }))).await?)
}

/// Restores the status that the organization had before this deletion; with `in_grace`, only within the grace period.
/// Returns false if it did not, for example because the organization is not in this deletion.
///
/// # Errors
/// When the database does not answer.
pub async fn reopen(tx: &mut OrgTx, deletion: SagaId, in_grace: bool) -> Result<bool, DbError> {
    let org = tx.org();
    let reopened = sqlx::query!(
        "UPDATE orgs SET status = CASE WHEN suspended_by IS NULL THEN 'COMMITTED' ELSE 'SUSPENDED' END,
                deletion_id = NULL, delete_at = NULL, version = version + 1, updated_at = clock_timestamp()
          WHERE id = $1 AND deletion_id = $2 AND (NOT $3 OR delete_at > clock_timestamp())",
        org as OrgId,
        deletion as SagaId,
        in_grace
    )
    .execute(tx.conn())
    .await?;
    Ok(reopened.rows_affected() == 1)
}

/// The remaining seconds of this deletion's grace period, negative after its end; none if the organization is no longer
/// in this deletion. Locks the organization's row.
///
/// # Errors
/// When the database does not answer.
pub async fn remaining_grace(tx: &mut OrgTx, deletion: SagaId) -> Result<Option<f64>, DbError> {
    let org = tx.org();
    Ok(sqlx::query_scalar!(
        r#"SELECT EXTRACT(EPOCH FROM delete_at - clock_timestamp())::float8 AS "seconds!" FROM orgs
            WHERE id = $1 AND deletion_id = $2 FOR NO KEY UPDATE"#,
        org as OrgId,
        deletion as SagaId
    )
    .fetch_optional(tx.conn())
    .await?)
}

/// Deletes the organization's row. Foreign keys delete all its other rows.
///
/// # Errors
/// When the database does not answer.
pub async fn erase(tx: &mut OrgTx) -> Result<(), DbError> {
    let org = tx.org();
    sqlx::query!("DELETE FROM orgs WHERE id = $1", org as OrgId).execute(tx.conn()).await?;
    Ok(())
}

/// Whether the organization exists and is not being deleted.
///
/// # Errors
/// When the database does not answer.
pub async fn is_kept(tx: &mut OrgTx) -> Result<bool, DbError> {
    let org = tx.org();
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM orgs WHERE id = $1 AND status <> 'DELETING') AS "exists!""#,
        org as OrgId
    )
    .fetch_one(tx.conn())
    .await?)
}

/// The certificate of a purge, for the user who requested the deletion.
#[derive(Debug)]
pub struct Certificate {
    /// The purged organization.
    pub deleted_org_id: OrgId,
    /// When its deletion was requested.
    pub requested_at: OffsetDateTime,
    /// When it was purged.
    pub purged_at: OffsetDateTime,
    /// What was removed, and what a search found afterwards.
    pub certificate: Json<DeletionCertificate>,
}

impl Certificate {
    /// Stores a certificate in the purge's transaction. Row-level security allows only the user who requested the
    /// deletion to insert it, so the transaction continues as that user.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn store(
        tx: &mut OrgTx,
        deletion: SagaId,
        requester: UserId,
        requested_at: OffsetDateTime,
        certificate: DeletionCertificate,
    ) -> Result<(), DbError> {
        let org = tx.org();
        sqlx::query!("SELECT set_config('app.user_id', $1, true)", requester.to_string())
            .fetch_one(tx.conn())
            .await?;
        sqlx::query!(
            "INSERT INTO deletion_certificates (user_id, id, deleted_org_id, requested_at, certificate)
             VALUES ($1, $2, $3, $4, $5)",
            requester as UserId,
            deletion as SagaId,
            org as OrgId,
            requested_at,
            Json(certificate) as _
        )
        .execute(tx.conn())
        .await?;
        Ok(())
    }

    /// The certificate of a deletion that this user requested.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when there is none.
    pub async fn read(tx: &mut UserTx, deletion: SagaId) -> Result<Self, DbError> {
        let user = tx.user();
        Ok(sqlx::query_as!(
            Self,
            r#"SELECT deleted_org_id, requested_at, purged_at, certificate AS "certificate: Json<DeletionCertificate>"
                 FROM deletion_certificates WHERE user_id = $1 AND id = $2"#,
            user as UserId,
            deletion as SagaId
        )
        .fetch_one(tx.conn())
        .await?)
    }

    /// Rebuilds the operation, whose own record was purged with the organization.
    #[must_use]
    pub fn into_operation(self, deletion: SagaId) -> Operation {
        Operation {
            id: deletion,
            kind: SagaKind::DeleteOrganization.name().to_owned(),
            org_id: self.deleted_org_id,
            status: SagaStatus::Committed,
            steps: Vec::new(),
            failure: None,
            deadline_at: self.purged_at,
            created_at: self.requested_at,
            finished_at: Some(self.purged_at),
            certificate: Some(self.certificate.0),
        }
    }
}
