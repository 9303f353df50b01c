//! Waiting for what must come.

use std::time::Duration;

/// A limit against waiting forever, not a measurement: several times what the slowest recovery takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until something is so.
///
/// # Panics
/// When it is not for a long time.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asking).await.is_ok(), "it never came to this: {what}");
}
