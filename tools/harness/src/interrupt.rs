//! Signals that ask this process to stop.

use std::io;

use atrium_servers::process::Signal;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

/// Receives the signals; while this exists, they do not end the process by themselves.
#[derive(Debug)]
pub struct Interrupts {
    interrupt: Listener,
    terminate: Listener,
    hang_up: Listener,
}

impl Interrupts {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// The next SIGINT or SIGTERM.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
            // The terminal was closed.
            _ = self.hang_up.recv() => Signal::TERM,
        }
    }
}
