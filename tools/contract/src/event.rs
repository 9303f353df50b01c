//! An event of a stream, as it was read.

use std::time::Instant;

use serde_json::Value;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The last event id at this event; empty while none was sent.
    pub id: String,
    /// The event's name; `message` when the server gave none.
    pub event: String,
    /// The data, its lines joined with line feeds.
    pub data: String,
    /// When it was read from the connection.
    pub at: Instant,
}

impl Event {
    /// The data as JSON.
    ///
    /// # Panics
    /// When it is not JSON: every event of Atrium carries one JSON object.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| {
            panic!("the data of the event `{}` is not JSON: {error}\n{}", self.event, self.data)
        })
    }
}
