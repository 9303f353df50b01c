//! Shutdown of a process: its two stages, and the tasks that must end before the process exits.
//!
//! SIGTERM or SIGINT begins the *drain*: no new work is accepted, and work in progress is finished. When the drain
//! window is over, *force* ends the remaining work. A critical task that ends before the drain is a fault: the process
//! stops, and its supervisor starts a new one in a known state.

use std::{future::Future, process::ExitCode, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Converts the result of `main` to an exit code. Prints an error on one line, without a backtrace, because most such
/// errors are wrong settings.
#[must_use]
#[expect(clippy::print_stderr, reason = "the log may not exist yet")]
pub fn exit(program: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The stages of stopping, shared by every task of a process.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    force: CancellationToken,
    failed: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// A process that is not stopping.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when no new work may be accepted.
    #[must_use]
    pub fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Cancelled when all remaining work must end immediately.
    #[must_use]
    pub fn force(&self) -> &CancellationToken {
        &self.force
    }

    /// Runs a task that the process waits for when it stops. The task must watch [`Self::draining`] itself.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Runs a task that must not end before the drain: if it returns or panics earlier, the process stops with
    /// an error.
    pub fn spawn_critical(
        &self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let shutdown = self.clone();
        let running = self.tasks.spawn(task);
        self.tasks.spawn(async move {
            let ended = running.await;
            if shutdown.draining.is_cancelled() {
                return;
            }
            match ended {
                Ok(Ok(())) => tracing::error!(task = name, "a task ended that should run forever"),
                Ok(Err(error)) => tracing::error!(task = name, error = format!("{error:#}"), "a task failed"),
                Err(panic) => tracing::error!(task = name, %panic, "a task panicked"),
            }
            shutdown.failed.cancel();
        });
    }

    /// Waits for SIGTERM, SIGINT or the failure of a critical task, then drains, then forces.
    ///
    /// # Errors
    /// When a critical task failed, or signals cannot be received.
    pub async fn run(self, window: Duration) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
            () = self.failed.cancelled() => {}
        }
        self.draining.cancel();
        self.tasks.close();
        if tokio::time::timeout(window, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "the drain window is over: ending what is left");
        }
        self.force.cancel();
        // Tasks that watch the force token end immediately. The others are not waited for longer than this.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.tasks.wait()).await;
        anyhow::ensure!(!self.failed.is_cancelled(), "stopped because a task failed");
        tracing::info!("stopped");
        Ok(())
    }
}
