//! A stream that reconnects when its connection ends.

use std::time::{Duration, Instant};

use anyhow::bail;
use atrium_contract::Event;
use http::Method;

use super::error::StreamError;
use super::events::EventStream;
use super::request::Request;
use super::target::Target;

/// The longest pause between two attempts; servers ask for less.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows a stream like a browser's `EventSource`: when the connection ends it connects again with the last event
/// id, so that nothing is lost and nothing comes twice.
pub struct Follower {
    target: Target,
    path: String,
    stream: Option<EventStream>,
    last_event_id: Option<String>,
    connections: u32,
    ended: bool,
}

impl Follower {
    pub(super) fn new(target: Target, path: String) -> Self {
        Self { target, path, stream: None, last_event_id: None, connections: 0, ended: false }
    }

    /// The number of connections.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// Where the stream would be continued.
    #[must_use]
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// Waits until the stream is open, before something happens that it should show.
    ///
    /// # Errors
    /// If it cannot be opened within the time, or the server rejects it.
    pub async fn connected(&mut self, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        while self.stream.is_none() && !self.ended {
            let request = Request::new(self.target.clone(), Method::GET, self.path.clone());
            let attempt = request.last_event_id(self.last_event_id.as_deref()).events();
            match tokio::time::timeout(deadline.saturating_duration_since(Instant::now()), attempt).await {
                Ok(Ok(stream)) => {
                    self.connections += 1;
                    self.stream = Some(stream);
                }
                Ok(Err(StreamError::Refused(reply))) if reply.code() == 204 => self.ended = true,
                Ok(Err(StreamError::Refused(reply))) if !matches!(reply.code(), 429 | 500..=599) => {
                    bail!(reply.unexpected("a stream of events"));
                }
                Ok(Err(error)) if Instant::now() + PAUSE >= deadline => bail!(error),
                Ok(Err(_)) => tokio::time::sleep(PAUSE).await,
                Err(_) => bail!("{}: no stream of events within {within:?}", self.path),
            }
        }
        Ok(())
    }

    /// The next event, over as many connections as it takes; `None` when the server said that no more will come.
    ///
    /// # Errors
    /// If none arrives in time, or the server rejects the stream.
    pub async fn next(&mut self, within: Duration) -> anyhow::Result<Option<Event>> {
        let deadline = Instant::now() + within;
        loop {
            let left = || deadline.saturating_duration_since(Instant::now());
            self.connected(left()).await?;
            let Some(stream) = &mut self.stream else {
                return Ok(None);
            };
            let next = tokio::time::timeout(left(), stream.next()).await;
            if let Some(id) = stream.last_event_id() {
                self.last_event_id = Some(id.to_owned()).filter(|id| !id.is_empty());
            }
            match next {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {
                    let pause = stream.retry().unwrap_or(PAUSE).min(PAUSE);
                    self.stream = None;
                    tokio::time::sleep(pause.min(left())).await;
                }
                Err(_) => bail!("{}: no event within {within:?}", self.path),
            }
        }
    }

    /// The next event of this name; others are skipped.
    ///
    /// # Errors
    /// If none arrives in time, the stream has ended or the server rejects it.
    pub async fn see(&mut self, name: &str, within: Duration) -> anyhow::Result<Event> {
        let deadline = Instant::now() + within;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left).await {
                Ok(Some(event)) if event.event == name => return Ok(event),
                Ok(Some(event)) => others.push(event.event),
                Ok(None) => {
                    bail!(
                        "{}: expected the event `{name}`, but the stream is over; got {others:?}",
                        self.path
                    )
                }
                Err(error) => {
                    bail!("expected the event `{name}` within {within:?}, got {others:?} ({error})")
                }
            }
        }
    }
}
