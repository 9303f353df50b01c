//! Log lines: one JSON object each, to standard output, at a level that changes while the process runs.

use tokio_util::sync::CancellationToken;
use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::{configuration::ConfigurationStore, settings::LogFormat};

/// Changes the level of the lines that are written; made by [`init`].
#[derive(Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

/// Begins to write log lines, at level `info`.
///
/// # Panics
/// When called twice in one process.
#[must_use]
pub fn init(format: LogFormat) -> LogLevel {
    let (filter, handle) = reload::Layer::new(filter("info"));
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Json => registry
            .with(tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false))
            .init(),
        LogFormat::Text => registry.with(tracing_subscriber::fmt::layer().with_ansi(false)).init(),
    }
    // A panic is a line like any other, so that it is collected with the rest.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(location = panic.location().map(ToString::to_string), "panic: {panic}");
    }));
    LogLevel(handle)
}

impl LogLevel {
    /// Writes Atrium's own lines from `level` on: one of error, warn, info, debug, trace.
    pub fn set(&self, level: &str) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::error!(%error, level, "the log level cannot be changed");
        }
    }
}

/// Keeps the level at what the configuration key `log.level` says.
///
/// # Errors
/// Never; the signature is that of a critical task.
pub async fn follow_level(
    level: LogLevel,
    store: ConfigurationStore,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut changed = store.subscribe();
    let mut current = "info".to_owned();
    loop {
        let wanted = store.platform().organization().log_level.clone();
        if wanted != current {
            level.set(&wanted);
            tracing::info!(from = current, to = wanted, "the log level changed");
            current = wanted;
        }
        if !matches!(stop.run_until_cancelled(changed.changed()).await, Some(Ok(()))) {
            return Ok(());
        }
    }
}

/// Libraries stay at `warn`: what they say at `debug` drowns what Atrium says, and may hold values.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!(
        "warn,atrium_api={level},atrium_workers={level},atrium_shared={level},atrium_ctl={level}"
    ))
}
