//! The workers: roles that process the work that the API accepted, all in one binary.
//!
//! In a cluster each role is a separate deployment; on a laptop one process runs all roles. A role keeps no state but
//! leases, so any number of processes may run it at the same time.

mod chat;
mod config;
mod consumer;
mod isolation;
mod janitor;
mod relay;
mod saga;
mod shards;
mod signals;
mod timings;

use atrium_shared::{
    configuration::{ConfigurationStore, follow_log_level},
    crash_point,
    db::{Database, Reach, Watcher, check_role, connect_pool},
    lifecycle::Shutdown,
    settings::{Settings, WorkerSettings},
    streams::{Inbound, Redis},
    telemetry::{
        admin::{self, Readiness},
        logs::LogLevel,
        metrics,
    },
};
use clap::ValueEnum;

use self::{consumer::Consumer, isolation::Isolation};

/// A role of a worker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Publishes the outbox to the streams.
    Relay,
    /// Carries out sagas.
    Saga,
    /// Spreads new configuration revisions.
    Config,
    /// Counts and publishes what happens in chats.
    Chat,
    /// Deletes what has served its purpose.
    Janitor,
}

/// Runs the roles until the process is shut down.
///
/// # Errors
/// Returns an error if a dependency that is needed at start is missing, or if a role fails permanently.
pub async fn run(
    roles: &[Role],
    settings: Settings,
    own: WorkerSettings,
    level: LogLevel,
) -> anyhow::Result<()> {
    crash_point::connect();
    let shutdown = Shutdown::new();
    let stop = shutdown.draining().clone();
    let recorder = metrics::install()?;
    shutdown.spawn_critical("metrics upkeep", metrics::upkeep(recorder.clone(), stop.clone()));
    let readiness = Readiness::new(&shutdown);
    let admin = admin::serve(settings.admin_listen, readiness.clone(), recorder, &shutdown).await?;

    let database = Database::connect(&settings).await?;
    let watcher = Watcher::connect(&settings).await?;
    let redis = Redis::new(&settings.redis_url)?;
    let process = settings.process_name.as_str();
    let configuration =
        ConfigurationStore::start(database.clone(), watcher.clone(), redis.clone(), process, &shutdown)
            .await?;
    shutdown.spawn_critical("configuration stream", configuration.clone().follow_stream(stop.clone()));
    shutdown.spawn_critical("log level", follow_log_level(level, configuration.clone(), stop.clone()));

    let connections = if roles.contains(&Role::Relay) { relay::CONNECTIONS } else { 1 };
    let outbox = connect_pool(own.relay_database_url.expose(), connections, process)
        .await
        .map_err(|error| anyhow::anyhow!("cannot connect with ATRIUM_RELAY_DATABASE_URL: {error}"))?;
    check_role(&mut *outbox.acquire().await?, Reach::RELAY).await?;

    let isolation = Isolation::prepare(own.isolation).await?;

    signals::spawn(&outbox, &watcher, &redis, &shutdown);
    for role in roles {
        match role {
            Role::Relay => relay::spawn(&outbox, &redis, process, &shutdown),
            Role::Saga => {
                let engine = saga::Engine::new(configuration.clone(), redis.clone(), &isolation);
                Consumer::new(&database, &redis, Inbound::Saga, process, engine).spawn("saga", &shutdown);
            }
            Role::Config => {
                let publisher = config::Publisher::new(redis.clone());
                Consumer::new(&database, &redis, Inbound::Config, process, publisher)
                    .spawn("config", &shutdown);
            }
            Role::Chat => chat::spawn(&database, &redis, process, &shutdown),
            Role::Janitor => janitor::spawn(&outbox, &watcher, &redis, process, &shutdown),
        }
    }

    readiness.set_loaded();
    tracing::info!(%admin, process, roles = ?roles, "listening");
    shutdown.run(settings.drain).await
}
