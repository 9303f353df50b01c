//! The log level of the process, which is a configuration key.

use tokio_util::sync::CancellationToken;

use super::ConfigurationStore;
use crate::telemetry::logs::LogLevel;

/// Keeps the log level equal to the value of the configuration key `log.level`.
///
/// # Errors
/// Never; the signature is that of a critical task.
pub async fn follow_log_level(
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
