//! The state that handlers share: one [`App`] for the process, created at start.

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

/// Everything a handler may need. Shared by an `Arc`; its parts are cheap to clone.
pub struct App {
    /// Settings of both processes.
    pub settings: Settings,
    /// Settings of the API alone.
    pub api: ApiSettings,
    /// PostgreSQL, behind the tenant wall.
    pub database: Database,
    /// Redis, for commands.
    pub redis: Redis,
    /// The configuration that this process applies.
    pub configuration: ConfigurationStore,
    /// The keys of access tokens.
    pub keyring: Keyring,
    /// Sign-ins and tokens that were revoked.
    pub revocations: Revocations,
    /// The rate limits.
    pub rate_limits: Arc<RateLimits>,
    /// What the members of an organization may use together.
    pub quotas: Quotas,
    /// Exports and imports under way.
    pub portability: Portability,
    /// Events on their way to open streams.
    pub live: Live,
    /// How far stopping has come: draining, then forced.
    pub shutdown: Shutdown,
    /// Cancelled a moment after the drain began: connections end after the request they are serving.
    pub closing: CancellationToken,
}
