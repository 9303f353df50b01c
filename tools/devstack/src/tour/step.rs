//! One step of the tour: timed, and reported on the screen.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use atrium_harness::client::Client;
use atrium_harness::screen::Screen;

/// How long a step may take that should take milliseconds: a process may be restarting.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// What the steps share.
pub(super) struct Tour {
    pub(super) screen: Screen,
    pub(super) client: Client,
    pub(super) pause: Duration,
}

impl Tour {
    /// Runs one step, and prints its time and outcome.
    pub(super) async fn step<T>(
        &self,
        name: &str,
        step: impl Future<Output = anyhow::Result<(T, String)>>,
    ) -> anyhow::Result<T> {
        if !self.pause.is_zero() {
            tokio::time::sleep(self.pause).await;
        }
        let start = Instant::now();
        let (value, outcome) = step.await.with_context(|| format!("the step “{name}” failed"))?;
        self.screen.done(start.elapsed(), name, &outcome);
        Ok(value)
    }
}
