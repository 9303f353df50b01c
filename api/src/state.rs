//! What handlers share: one [`App`] for the process, made at start.

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
    edge::{
        quotas::Members,
        rate_limits::{RateLimits, streams::StreamQuotas},
    },
    live::Live,
    orgs::portability::Portability,
    routes::Routes,
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
    /// Tokens that were signed out.
    pub revocations: Revocations,
    /// Who may ask how often.
    pub rate_limits: RateLimits,
    /// Exports and imports under way.
    pub portability: Portability,
    /// How many event streams organizations have open.
    pub stream_quotas: StreamQuotas,
    /// Who was seen to be a member of which organization.
    pub members: Members,
    /// Events on their way to open streams.
    pub live: Live,
    /// The stages of stopping.
    pub shutdown: Shutdown,
    /// Cancelled a moment after the drain began: connections end after the request they are serving.
    pub closing: CancellationToken,
    /// The table of routes.
    pub routes: Routes,
}
