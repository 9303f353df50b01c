//! Why an organization does not let something be done.

use crate::{db::DbError, tenancy::Role};

/// Why something cannot be done in an organization, or with it.
#[derive(Debug, thiserror::Error)]
pub enum OrganizationError {
    /// The member's role is too low.
    #[error("the role {required:?} or a greater one is needed")]
    Forbidden {
        /// The least role that may do this.
        required: Role,
    },
    /// The organization is not committed, so nothing can be written in it.
    #[error("the organization is not ready")]
    NotReady,
    /// The organization is suspended: it can be read, not changed.
    #[error("the organization is suspended")]
    Suspended,
    /// The organization is about to be deleted: it can be read, not changed.
    #[error("the organization is being deleted")]
    Deleting,
    /// There is no deletion to cancel.
    #[error("the organization is not being deleted")]
    NotDeleting,
    /// Nobody else owns the organization.
    #[error("the organization would have no owner")]
    LastOwner,
    /// PostgreSQL did not do it.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl From<sqlx::Error> for OrganizationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}
