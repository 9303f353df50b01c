//! The contract of the API, `docs/api/openapi.yaml`, as something that answers can be checked against.
//!
//! A client hands over each [`Reply`] and each [`Event`] that it read. [`Contract`] finds the operation by method and
//! path, then the documented response by status, and compares required headers, media type and body; what differs is a
//! [`Violation`]. Schemas are compiled when they are first needed, and kept.

mod contract;
mod event;
mod reply;
mod schemas;
mod templates;

pub use contract::{Contract, Violation};
pub use event::Event;
pub use reply::{Reply, Unexpected};
