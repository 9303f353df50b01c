//! The state that handlers share: one [`App`] for each process, created at start.

use std::sync::Arc;

use atrium_shared::{
    configuration::ConfigurationStore,
    db::Database,
    identity::{Keyring, Revocations},
    lifecycle::Shutdown,
    settings::{ApiSettings, Settings},
    streams::Redis,
};
use tokio_util::sync::CancellationToken;

use crate::{
    limits::{portability::Portability, quotas::Quotas, rate_limits::RateLimits},
    live::Live,
};

/// Everything a handler may need, shared in an `Arc`.
pub struct App {
    /// Settings that the API and the workers have in common.
    pub settings: Settings,
    /// Settings of the API only.
    pub api: ApiSettings,
    /// PostgreSQL, behind the tenant wall.
    pub database: Database,
    /// The Redis client.
    pub redis: Redis,
    /// The configuration snapshots that this process has loaded.
    pub configuration: ConfigurationStore,
    /// The keys that sign and verify access tokens.
    pub keyring: Keyring,
    /// Sign-in sessions that ended before their access tokens expired.
    pub revocations: Revocations,
    /// The rate limits of users and addresses.
    pub rate_limits: Arc<RateLimits>,
    /// The quotas of organizations.
    pub quotas: Quotas,
    /// Limits on concurrent exports and imports.
    pub portability: Portability,
    /// Live events and the streams that send them.
    pub live: Live,
    /// The phases of stopping: draining, then forced.
    pub shutdown: Shutdown,
    /// Canceled shortly after the listener has closed: each connection then ends after its current request.
    pub closing: CancellationToken,
}
