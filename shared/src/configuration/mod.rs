//! Configuration: what may change while Atrium runs.
//!
//! PostgreSQL stores it. Every organization has one revision that only grows; a change stores value, history and a
//! message in one transaction ([`mod@write`]). A worker turns the message into an event with the revision, never the
//! value. Each process with the organization's [`Snapshot`] loads a newer one and swaps it whole
//! ([`ConfigurationStore`]), so a reader sees one revision or the next, never half of each. Without Redis, a reconcile
//! query does the same every few seconds.
//!
//! The narrowest scope that is set wins: the code's value (`builtin`) < the operator's for all organizations
//! (`default`) < the organization's < the project's.

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
