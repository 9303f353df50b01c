//! Events as bytes on the wire, in the form of the
//! [HTML standard](https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream).
//!
//! An event is framed once, and all its receivers share the bytes. A [`Batch`] is the next write of one stream: a
//! single event is sent without a copy; several events are joined, so that they need only one write.

use std::fmt::{Display, Write as _};

use bytes::{Bytes, BytesMut};

/// Number of bytes after which a write is full. Further pending events wait in the ring, not in the stream.
const WRITE_LIMIT: usize = 16 * 1024;

/// Frames an event: `id`, `event`, `data`, and an empty line.
///
/// CR and LF end a field, and NUL invalidates an id, so all three are removed from `id` and `event`. `data` with
/// several lines becomes several fields, which the client joins again.
#[must_use]
pub fn frame(id: Option<&dyn Display>, event: &str, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + event.len() + 64);
    if let Some(id) = id {
        field(&mut text, "id", &id.to_string());
    }
    field(&mut text, "event", event);
    for line in data.split('\n') {
        field(&mut text, "data", line);
    }
    text.push('\n');
    Bytes::from(text)
}

fn field(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    text.push_str(": ");
    text.extend(value.chars().filter(|c| !matches!(c, '\r' | '\n' | '\0')));
    text.push('\n');
}

/// The next write of one stream.
#[derive(Debug, Default)]
pub struct Batch {
    /// The first event as long as it is the only one, shared with its other receivers.
    single: Option<Bytes>,
    /// All blocks, once there is anything but a single event.
    joined: BytesMut,
    events: u64,
}

impl Batch {
    /// Adds an event.
    pub fn event(&mut self, framed: &Bytes) {
        self.events += 1;
        if self.is_empty() {
            self.single = Some(framed.clone());
            return;
        }
        self.join();
        self.joined.extend_from_slice(framed);
    }

    /// Adds a comment, which clients skip. No empty line follows: some clients dispatch an event without data there.
    pub fn comment(&mut self) {
        self.join();
        self.joined.extend_from_slice(b":\n");
    }

    /// Sets the wait before a reconnect. The field belongs to the next event, for the same reason.
    pub fn retry(&mut self, retry_ms: u64) {
        self.join();
        // Writing to a buffer in memory cannot fail.
        let _ = writeln!(self.joined, "retry: {retry_ms}");
    }

    fn join(&mut self) {
        if let Some(single) = self.single.take() {
            self.joined.extend_from_slice(&single);
        }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.single.is_none() && self.joined.is_empty()
    }

    /// Whether further events must wait for the next write.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.single.as_ref().map_or(self.joined.len(), Bytes::len) >= WRITE_LIMIT
    }

    /// The number of events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The bytes to write.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.single.unwrap_or_else(|| self.joined.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_framed_according_to_the_standard() {
        let framed = frame(Some(&"e-1-0"), "chat.action", r#"{"a":1}"#);
        assert_eq!(framed, "id: e-1-0\nevent: chat.action\ndata: {\"a\":1}\n\n");
        assert_eq!(frame(None, "reset", "{}"), "event: reset\ndata: {}\n\n");
    }

    #[test]
    fn control_characters_in_values_cannot_end_a_field() {
        let framed = frame(Some(&"1\n2\0"), "a\r\ndata: forged", "{\r\n}\n\nevent: forged");
        assert_eq!(framed, "id: 12\nevent: adata: forged\ndata: {\ndata: }\ndata: \ndata: event: forged\n\n");
    }

    #[test]
    fn a_single_event_is_shared_and_several_are_joined() {
        let (a, b) = (frame(None, "a", "1"), frame(None, "b", "2"));
        let mut batch = Batch::default();
        batch.event(&a);
        let bytes = batch.into_bytes();
        assert_eq!(bytes.as_ptr(), a.as_ptr(), "not copied");

        let mut batch = Batch::default();
        batch.retry(2000);
        batch.event(&a);
        batch.event(&b);
        batch.comment();
        assert_eq!(batch.events(), 2);
        assert_eq!(batch.into_bytes(), "retry: 2000\nevent: a\ndata: 1\n\nevent: b\ndata: 2\n\n:\n");
    }

    #[test]
    fn a_batch_is_full_at_the_write_limit() {
        let event = frame(None, "a", &"x".repeat(1000));
        let mut batch = Batch::default();
        while !batch.is_full() {
            batch.event(&event);
        }
        assert!(batch.into_bytes().len() < WRITE_LIMIT + event.len());
    }
}
