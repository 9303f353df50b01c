//! Waits for a condition.

use std::time::Duration;

/// A limit against waiting forever, not a measurement: several times what the slowest recovery takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Polls until a condition holds.
///
/// # Panics
/// When it does not hold for a long time.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !holds().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    assert!(tokio::time::timeout(TIMEOUT, polling).await.is_ok(), "timed out waiting for: {what}");
}
