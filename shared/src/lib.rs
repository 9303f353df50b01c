//! Code that the API and the workers share, one module per subject.
//!
//! Dependencies point one way: `api → shared ← workers`. The API and the workers do not depend on each other.

pub mod api_key;
pub mod audit;
pub mod clock;
pub mod configuration;
pub mod crash_point;
pub mod db;
pub mod identity;
pub mod ids;
pub mod lifecycle;
pub mod messages;
pub mod organizations;
pub mod saga;
pub mod settings;
pub mod streams;
pub mod telemetry;
pub mod tenancy;
pub mod timings;
