//! Permission checks: what a member may do, by role and by the organization's status.

use super::OrganizationError;
use crate::{
    db::{DbError, OrgTx},
    ids::{OrgId, UserId},
    tenancy::{OrgStatus, Role},
};

impl OrgStatus {
    /// Checks that an organization with this status can be changed.
    ///
    /// # Errors
    /// [`OrganizationError::NotReady`], [`OrganizationError::Suspended`] or [`OrganizationError::Deleting`].
    pub fn require_open(self) -> Result<(), OrganizationError> {
        match self {
            Self::Committed => Ok(()),
            Self::Pending | Self::Failed => Err(OrganizationError::NotReady),
            Self::Suspended => Err(OrganizationError::Suspended),
            Self::Deleting => Err(OrganizationError::Deleting),
        }
    }
}

impl OrgTx {
    /// Checks that the member has at least the role `required`.
    ///
    /// # Errors
    /// [`OrganizationError::Forbidden`] when the role is lower.
    pub fn require(&self, required: Role) -> Result<(), OrganizationError> {
        if self.role() >= required { Ok(()) } else { Err(OrganizationError::Forbidden { required }) }
    }

    /// Checks that the member has at least the role `required`, and that the organization can be changed.
    ///
    /// # Errors
    /// [`OrganizationError::Forbidden`] when the role is lower; [`OrganizationError::NotReady`],
    /// [`OrganizationError::Suspended`] or [`OrganizationError::Deleting`] when the organization's status does not
    /// allow changes.
    pub fn require_writable(&self, required: Role) -> Result<(), OrganizationError> {
        self.require(required)?;
        match self.status() {
            Some(status) => status.require_open(),
            None if self.is_system() => Ok(()),
            None => Err(OrganizationError::NotReady),
        }
    }

    /// Checks that the organization may have live streams and chat sessions.
    ///
    /// # Errors
    /// [`OrganizationError::Suspended`] or [`OrganizationError::Deleting`] when it has that status.
    pub fn require_live(&self) -> Result<(), OrganizationError> {
        match self.status() {
            Some(OrgStatus::Suspended) => Err(OrganizationError::Suspended),
            Some(OrgStatus::Deleting) => Err(OrganizationError::Deleting),
            _ => Ok(()),
        }
    }
}

/// Checks that the organization has another owner than `leaving`. The caller must hold the organization's lock: see
/// [`lock`](super::lifecycle::lock).
///
/// # Errors
/// [`OrganizationError::LastOwner`] when there is no other owner.
pub async fn require_another_owner(tx: &mut OrgTx, leaving: UserId) -> Result<(), OrganizationError> {
    let org = tx.org();
    let another = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM members WHERE org_id = $1 AND user_id <> $2 AND role = $3) AS "exists!""#,
        org as OrgId,
        leaving as UserId,
        Role::Owner as Role
    )
    .fetch_one(tx.conn())
    .await
    .map_err(DbError::from)?;
    if another { Ok(()) } else { Err(OrganizationError::LastOwner) }
}
