//! Log lines: one JSON object each, to standard output, at a level that changes while the process runs.

use tracing_subscriber::{
    EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::settings::LogFormat;

/// Sets the level below which nothing is written; made by [`init`].
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

/// Libraries stay at `warn`: their `debug` lines would drown those of Atrium, and may contain values.
fn filter(level: &str) -> EnvFilter {
    EnvFilter::new(format!(
        "warn,atrium_api={level},atrium_workers={level},atrium_shared={level},atrium_ctl={level}"
    ))
}
