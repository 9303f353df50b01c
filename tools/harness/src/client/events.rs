//! An open stream of events.
//!
//! A task reads the connection and records when each event came, so that a latency is the server's, and not that of the
//! test that reads the event later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atrium_contract::{Contract, Event};
use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::sse::{Item, Parser};

/// Events as they come. Dropping it closes the connection.
#[derive(Debug)]
pub struct EventStream {
    method: Method,
    path: String,
    headers: HeaderMap,
    items: UnboundedReceiver<Item>,
    reader: JoinHandle<()>,
    contract: Option<Arc<Contract>>,
    comments: u64,
    pings: u64,
    retry: Option<Duration>,
    last_event_id: Option<String>,
}

impl EventStream {
    pub(super) fn read(
        response: Response<Incoming>,
        method: Method,
        path: String,
        contract: Option<Arc<Contract>>,
    ) -> Self {
        let (head, body) = response.into_parts();
        let (parsed, items) = unbounded_channel();
        Self {
            method,
            path,
            headers: head.headers,
            items,
            reader: tokio::spawn(pump(body, parsed)),
            contract,
            comments: 0,
            pings: 0,
            retry: None,
            last_event_id: None,
        }
    }

    /// The answer's headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The number of heartbeats and other comments.
    #[must_use]
    pub fn comments(&self) -> u64 {
        self.comments
    }

    /// Heartbeats seen as events.
    #[must_use]
    pub fn pings(&self) -> u64 {
        self.pings
    }

    /// The wait before a reconnect that the server has sent.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Where the stream would be continued: the id sent last, with an event or without.
    #[must_use]
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// The next event, or `None` when the stream has ended. Positions and pings are counted, but not returned.
    ///
    /// # Panics
    /// When the client has a contract and the event violates it, or the stream has an empty line that ends no event.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.items.recv().await? {
                Item::Event(event) => {
                    if !event.id.is_empty() {
                        self.last_event_id = Some(event.id.clone());
                    }
                    if let Some(contract) = &self.contract {
                        contract.assert_event(&self.method, &self.path, &event);
                    }
                    match event.event.as_str() {
                        "position" => {}
                        "ping" => self.pings += 1,
                        _ => return Some(event),
                    }
                }
                Item::Empty => panic!("{}: an empty line that ends no event", self.path),
                Item::Comment(_) => self.comments += 1,
                Item::Retry(after) => self.retry = Some(after),
            }
        }
    }

    /// The next event; for tests.
    ///
    /// # Panics
    /// When none comes in time, or the stream ends.
    pub async fn must_next(&mut self, within: Duration) -> Event {
        match tokio::time::timeout(within, self.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => panic!("{}: the stream ended, but an event was expected", self.path),
            Err(_) => panic!("{}: no event within {within:?}", self.path),
        }
    }

    /// The next event of this name; others are skipped. For tests.
    ///
    /// # Panics
    /// When none comes in time, or the stream ends.
    pub async fn must_see(&mut self, name: &str, within: Duration) -> Event {
        let deadline = Instant::now() + within;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.next()).await {
                Ok(Some(event)) if event.event == name => return event,
                Ok(Some(event)) => others.push(event.event),
                Ok(None) => panic!("{}: the stream ended before `{name}`; got {others:?}", self.path),
                Err(_) => panic!("{}: no `{name}` within {within:?}; got {others:?}", self.path),
            }
        }
    }

    /// Checks that no event comes for a while; for tests.
    ///
    /// # Panics
    /// When one comes.
    pub async fn must_stay_silent(&mut self, lasting: Duration) {
        if let Ok(Some(event)) = tokio::time::timeout(lasting, self.next()).await {
            panic!("{}: expected no event, got {event:?}", self.path);
        }
    }

    /// Waits for the end of the stream and returns the events before it; for tests.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn must_end(&mut self, within: Duration) -> Vec<Event> {
        let collect = async {
            let mut events = Vec::new();
            while let Some(event) = self.next().await {
                events.push(event);
            }
            events
        };
        match tokio::time::timeout(within, collect).await {
            Ok(events) => events,
            Err(_) => panic!("{}: the stream did not end within {within:?}", self.path),
        }
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn pump(mut body: Incoming, parsed: UnboundedSender<Item>) {
    let mut parser = Parser::new();
    // An error ends the stream as a regular end does.
    while let Some(Ok(frame)) = body.frame().await {
        let at = Instant::now();
        let Ok(piece) = frame.into_data() else { continue };
        for item in parser.push(&piece, at) {
            if parsed.send(item).is_err() {
                return;
            }
        }
    }
}
