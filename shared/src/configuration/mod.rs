//! Configuration: what may change while Atrium runs.
//!
//! PostgreSQL holds it. Every organization has one revision that only grows; a change stores value, history and a
//! message in one transaction ([`mod@write`]). A worker turns the message into an event with the revision, never the
//! value. Each process that holds the organization's [`Snapshot`] loads a newer one and swaps it whole
//! ([`ConfigurationStore`]), so a reader sees one revision or the next, never half of each. Without Redis, a reconcile
//! query does the same every few seconds.
//!
//! Values fall through: what the code says (`builtin`) < what the operator sets for everybody (`default`) < what the
//! organization sets < what the project sets.

pub mod catalog;
mod effective;
mod lists;
pub mod report;
pub mod restore;
mod snapshot;
mod store;
pub mod write;

pub use self::{
    effective::Effective,
    lists::{HistoryAction, SessionOverflow},
    snapshot::{Snapshot, Source, Values},
    store::ConfigurationStore,
};
