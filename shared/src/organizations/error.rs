//! The errors of operations on organizations.

use crate::{db::DbError, tenancy::Role};

/// Why an operation in an organization, or on the organization itself, failed.
#[derive(Debug, thiserror::Error)]
pub enum OrganizationError {
    /// The member's role is too low.
    #[error("the role {required:?} or a greater one is needed")]
    Forbidden {
        /// The lowest role that may do this.
        required: Role,
    },
    /// The organization is not committed yet, or its creation failed: nothing can be changed in it.
    #[error("the organization is not ready")]
    NotReady,
    /// The organization is suspended: it can be read, not changed.
    #[error("the organization is suspended")]
    Suspended,
    /// The organization is being deleted: it can be read, not changed.
    #[error("the organization is being deleted")]
    Deleting,
    /// There is no deletion to cancel.
    #[error("the organization is not being deleted")]
    NotDeleting,
    /// The organization would have no owner.
    #[error("the organization would have no owner")]
    LastOwner,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl From<sqlx::Error> for OrganizationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}
