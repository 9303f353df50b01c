//! An open stream of events.
//!
//! A task reads the connection and notes when each event came, so that a latency is that of the server and not of
//! the test that looks at the event later.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::sse::Item;
use super::{ClientError, Event, Parser, Reply};
use crate::contract::Contract;

/// No stream was opened.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No answer came.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// An answer came that is no stream.
    #[error("{}", .0.unexpected("a stream of events"))]
    Refused(Box<Reply>),
}

impl StreamError {
    /// The answer that came instead of a stream.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        match self {
            Self::Refused(reply) => Some(reply),
            Self::Client(_) => None,
        }
    }
}

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
            retry: None,
            last_event_id: None,
        }
    }

    /// The answer's headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Heartbeats and other comments seen so far.
    #[must_use]
    pub fn comments(&self) -> u64 {
        self.comments
    }

    /// What the server wants one to wait before connecting again.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Where the stream would be continued: the id sent last, with an event or without.
    #[must_use]
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// The next event, or `None` when the stream has ended.
    ///
    /// # Panics
    /// When the client carries a contract and the event breaks it.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.items.recv().await? {
                Item::Event(event) => {
                    if !event.id.is_empty() {
                        self.last_event_id = Some(event.id.clone());
                    }
                    if let Some(contract) = &self.contract {
                        contract.insist_on_event(&self.method, &self.path, &event);
                    }
                    return Some(event);
                }
                Item::Id(id) => self.last_event_id = Some(id),
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
            Ok(None) => panic!("{}: the stream ended, an event had to come", self.path),
            Err(_) => panic!("{}: no event within {within:?}", self.path),
        }
    }

    /// The next event of this name; others are passed over. For tests.
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
                Ok(None) => panic!("{}: the stream ended before `{name}`; came: {others:?}", self.path),
                Err(_) => panic!("{}: no `{name}` within {within:?}; came: {others:?}", self.path),
            }
        }
    }

    /// Makes sure that no event comes for a while; for tests.
    ///
    /// # Panics
    /// When one comes.
    pub async fn must_stay_silent(&mut self, lasting: Duration) {
        if let Ok(Some(event)) = tokio::time::timeout(lasting, self.next()).await {
            panic!("{}: no event had to come, this one did: {event:?}", self.path);
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
    // An error is an end like any other: the server is gone.
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
