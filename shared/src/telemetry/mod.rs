//! Telemetry of a process: log lines, metrics, and the admin port that serves them.

pub mod admin;
pub mod logs;
pub mod metrics;
