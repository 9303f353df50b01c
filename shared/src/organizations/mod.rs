//! The rules of an organization, and every change of its row.
//!
//! Handlers, saga steps and operators' commands call this module and do not write to `orgs` themselves. An operation
//! that breaks a rule fails with an [`OrganizationError`]; database errors are returned unchanged.

mod access;
mod creation;
mod error;
mod lifecycle;
mod name;

pub use self::{
    access::require_another_owner,
    creation::{abandon, found, open, reserve_slug, withdraw},
    error::OrganizationError,
    lifecycle::{
        Certificate, SuspendedBy, cancel_deletion, erase, is_kept, lock, remaining_grace, reopen,
        request_deletion, resume, suspend,
    },
    name::{CurrentName, lock_name, rename},
};
