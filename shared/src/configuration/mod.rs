//! Configuration: values that may change while Atrium runs.
//!
//! PostgreSQL stores it. Every organization has one revision, which only increases. A change stores the value, its
//! history and a message in one transaction ([`mod@write`]). A worker turns the message into an event that contains the
//! revision, never the value. Each process that caches the organization's [`Snapshot`] then loads the newer one and
//! replaces the whole snapshot ([`ConfigurationStore`]), so a reader never sees a mixture of two revisions. Without
//! Redis, a reconcile query has the same effect every few seconds.
//!
//! A later layer overrides an earlier one: the code (`builtin`), the operator's value for all organizations
//! (`default`), the organization's, the project's.

pub mod catalog;
mod effective;
mod lists;
mod log_level;
pub mod report;
pub mod restore;
mod snapshot;
mod store;
pub mod write;

pub use self::{
    effective::Effective,
    lists::{HistoryAction, SessionOverflow},
    log_level::follow_log_level,
    snapshot::{Snapshot, Source, Values},
    store::ConfigurationStore,
};
