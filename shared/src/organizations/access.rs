//! What a member may do, in which state of the organization.

use super::OrganizationError;
use crate::{
    db::{DbError, OrgTx},
    ids::{OrgId, UserId},
    tenancy::{OrgStatus, Role},
};

impl OrgStatus {
    /// Makes sure that an organization in this state can be worked in.
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
    /// Makes sure that the member may do what needs `required`.
    ///
    /// # Errors
    /// [`OrganizationError::Forbidden`] when the role is lower.
    pub fn require(&self, required: Role) -> Result<(), OrganizationError> {
        if self.role() >= required { Ok(()) } else { Err(OrganizationError::Forbidden { required }) }
    }

    /// Makes sure that the organization is ready to be written in, and that the member may write what needs
    /// `required`.
    ///
    /// # Errors
    /// [`OrganizationError::Forbidden`] when the role is lower; [`OrganizationError::NotReady`],
    /// [`OrganizationError::Suspended`] or [`OrganizationError::Deleting`] when the organization is in no state to be
    /// written in.
    pub fn require_writable(&self, required: Role) -> Result<(), OrganizationError> {
        self.require(required)?;
        match self.status() {
            Some(status) => status.require_open(),
            None if self.is_system() => Ok(()),
            None => Err(OrganizationError::NotReady),
        }
    }

    /// Makes sure that something may be live in the organization.
    ///
    /// # Errors
    /// [`OrganizationError::Suspended`] or [`OrganizationError::Deleting`] when it is closed.
    pub fn require_live(&self) -> Result<(), OrganizationError> {
        match self.status() {
            Some(OrgStatus::Suspended) => Err(OrganizationError::Suspended),
            Some(OrgStatus::Deleting) => Err(OrganizationError::Deleting),
            _ => Ok(()),
        }
    }
}

/// Makes sure that somebody else owns the organization. Under the organization's lock: see
/// [`lock`](super::lifecycle::lock).
///
/// # Errors
/// [`OrganizationError::LastOwner`] when nobody does.
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
