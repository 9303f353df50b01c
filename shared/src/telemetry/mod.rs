//! Telemetry of a process: log records, metrics, and the admin port that serves metrics and probes.

pub mod admin;
pub mod logs;
pub mod metrics;
