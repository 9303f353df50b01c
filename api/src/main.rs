//! Starts the API: reads the settings, connects to PostgreSQL and Redis, and wires the modules together.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context as _;
use atrium_api::{
    limits::{
        portability::Portability, quotas::Quotas, rate_limits::RateLimits, shared::Shared,
        streams::StreamQuotas,
    },
    live::Live,
    routes::{self, Routes},
    server::listener,
    state::App,
};
use atrium_shared::{
    configuration::{ConfigurationStore, follow_log_level},
    crash_point,
    db::{Database, Watcher},
    identity::{Keyring, Revocations},
    lifecycle::{Shutdown, exit},
    settings::{ApiSettings, Reader, Settings},
    streams::Redis,
    telemetry::{
        admin::{self, Readiness},
        logs::{self, LogLevel},
        metrics,
    },
};
use clap::Parser;
use tokio_util::sync::CancellationToken;

/// Serves Atrium's REST API, its event streams and its page. Everything is set by environment variables.
#[derive(Parser)]
#[command(name = "atrium-api", version)]
struct Arguments {}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    exit("atrium-api", start().await)
}

async fn start() -> anyhow::Result<()> {
    let mut reader = Reader::from_env();
    let (common, own) = (reader.common("api"), reader.api());
    let (settings, api) = reader.finish(common.zip(own))?;
    let log_level = logs::init(settings.log_format);
    run(settings, api, log_level).await
}

async fn run(settings: Settings, api: ApiSettings, log_level: LogLevel) -> anyhow::Result<()> {
    crash_point::connect();
    let metrics = metrics::install()?;
    let shutdown = Shutdown::new();
    let readiness = Readiness::new(&shutdown);
    let admin = admin::serve(settings.admin_listen, readiness.clone(), metrics.clone(), &shutdown)
        .await
        .with_context(|| {
            format!("cannot listen on {}, which ATRIUM_ADMIN_LISTEN names", settings.admin_listen)
        })?;

    let keyring = Keyring::load(api.signing_keys_dir.clone(), api.public_url.origin())?;
    let database = Database::connect(&settings).await?;
    let watcher = Watcher::connect(&settings).await?;
    let redis = Redis::new(&settings.redis_url).context("ATRIUM_REDIS_URL cannot be used")?;
    let configuration = ConfigurationStore::start(
        database.clone(),
        watcher.clone(),
        redis.clone(),
        &settings.process_name,
        &shutdown,
    )
    .await?;
    let revocations = Revocations::load(&watcher).await?;
    let live =
        Live::start(&database, &watcher, &redis, &configuration, &revocations, &shutdown, settings.drain);

    let listener = listener::bind(api.listen)
        .with_context(|| format!("cannot listen on {}, which ATRIUM_LISTEN names", api.listen))?;
    let listen = listener.local_addr()?;
    let window = settings.drain;
    let draining = shutdown.draining().clone();
    let shared_limits = Arc::new(Shared::new(redis.clone(), &settings.process_name));
    // `keep_stream_quotas` runs until the last stream has ended, so that every permit is released.
    let (stream_quotas, keep_stream_quotas) =
        StreamQuotas::new(Arc::clone(&shared_limits), live.streams.done().clone());
    shutdown.spawn_critical("stream quotas", keep_stream_quotas);
    let rate_limits = Arc::new(RateLimits::new(configuration.clone(), shared_limits));
    let quotas =
        Quotas::new(configuration.clone(), database.clone(), Arc::clone(&rate_limits), stream_quotas);
    let routes = Arc::new(Routes::new(routes::table())?);
    let app = Arc::new(App {
        rate_limits,
        quotas,
        closing: CancellationToken::new(),
        shutdown: shutdown.clone(),
        settings,
        api,
        database,
        redis,
        configuration: configuration.clone(),
        keyring: keyring.clone(),
        revocations: revocations.clone(),
        portability: Portability::default(),
        live,
    });

    // Canceled when the last connection has ended, so that a logout still takes effect during the drain.
    let served = CancellationToken::new();
    shutdown.spawn_critical("revocations", revocations.follow(watcher, served.clone()));
    shutdown.spawn_critical("signing keys", keyring.follow(served.clone()));
    shutdown.spawn_critical("metrics", metrics::upkeep(metrics, served.clone()));
    shutdown.spawn_critical("log level", follow_log_level(log_level, configuration, draining.clone()));
    shutdown.spawn({
        let app = Arc::clone(&app);
        async move { app.rate_limits.upkeep(draining).await }
    });
    shutdown.spawn_critical("server", async move {
        let result = listener::serve(app, routes, listener).await;
        served.cancel();
        result
    });
    readiness.set_loaded();
    tracing::info!(%listen, %admin, "listening");
    shutdown.run(window).await
}
