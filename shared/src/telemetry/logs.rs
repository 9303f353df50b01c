//! Log records: written to standard output, by default as one JSON object each, at a level that can change while the
//! process runs.

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::settings::LogFormat;

/// Changes the log level; created by [`init`].
#[derive(Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

/// Starts logging at level `info`.
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
    // Panics are logged as records, so that they are collected with the rest of the log.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(location = panic.location().map(ToString::to_string), "panic: {panic}");
    }));
    LogLevel(handle)
}

impl LogLevel {
    /// Sets the level of Atrium's own records: error, warn, info, debug or trace.
    pub fn set(&self, level: &str) {
        if let Err(error) = self.0.reload(filter(level)) {
            tracing::error!(%error, level, "the log level cannot be changed");
        }
    }
}

/// Libraries stay at `warn`: their `debug` records would outnumber Atrium's and may contain user data.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!(
        "warn,atrium_api={level},atrium_workers={level},atrium_shared={level},atrium_ctl={level}"
    ))
}
