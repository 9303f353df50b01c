//! Everything about an organization itself: its rules, and every change of its row.
//!
//! Handlers, the steps of sagas and operators' commands call this module; they do not write to `orgs` themselves. An
//! operation that breaks a rule fails with an [`OrganizationError`]; errors of the database are passed on unchanged.

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
