//! The `text/event-stream` format, as the HTML standard reads it.

use std::time::{Duration, Instant};

use atrium_contract::Event;

/// What the parser yields.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event.
    Event(Event),
    /// An empty line that ends no event: some clients dispatch an event without data there.
    Empty,
    /// A comment, such as a heartbeat.
    Comment(String),
    /// How long to wait before connecting again.
    Retry(Duration),
}

/// Takes bytes as they come, in pieces of any size.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was a carriage return: a line feed right after it belongs to it.
    after_return: bool,
    started: bool,
    event: String,
    data: Option<String>,
    last_event_id: String,
}

impl Parser {
    /// A parser at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one piece and returns what became complete with it.
    pub fn push(&mut self, piece: &[u8], at: Instant) -> Vec<Item> {
        let mut items = Vec::new();
        for &byte in piece {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\r' | b'\n' => {
                    self.after_return = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    items.extend(self.line(&line, at));
                }
                _ => {
                    self.after_return = false;
                    self.line.push(byte);
                }
            }
        }
        items
    }

    fn line(&mut self, line: &[u8], at: Instant) -> Option<Item> {
        let mut line = String::from_utf8_lossy(line).into_owned();
        if !std::mem::replace(&mut self.started, true)
            && let Some(rest) = line.strip_prefix('\u{feff}')
        {
            line = rest.to_owned();
        }
        if line.is_empty() {
            return self.dispatch(at);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => return Some(Item::Comment(value.to_owned())),
            "event" => value.clone_into(&mut self.event),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                none => *none = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => value.clone_into(&mut self.last_event_id),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                return value.parse().ok().map(|millis| Item::Retry(Duration::from_millis(millis)));
            }
            // Unknown fields are for later versions of the format.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self, at: Instant) -> Option<Item> {
        let event = std::mem::take(&mut self.event);
        let Some(data) = self.data.take() else {
            return Some(Item::Empty);
        };
        let event = if event.is_empty() { "message".to_owned() } else { event };
        Some(Item::Event(Event { id: self.last_event_id.clone(), event, data, at }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Item, Parser};

    fn parse(pieces: &[&[u8]]) -> Vec<Item> {
        let mut parser = Parser::new();
        pieces.iter().flat_map(|piece| parser.push(piece, Instant::now())).collect()
    }

    fn events(pieces: &[&[u8]]) -> Vec<(String, String, String)> {
        let event = |item| match item {
            Item::Event(event) => Some((event.id, event.event, event.data)),
            Item::Empty | Item::Comment(_) | Item::Retry(_) => None,
        };
        parse(pieces).into_iter().filter_map(event).collect()
    }

    fn one(id: &str, event: &str, data: &str) -> Vec<(String, String, String)> {
        vec![(id.to_owned(), event.to_owned(), data.to_owned())]
    }

    #[test]
    fn an_event() {
        assert_eq!(events(&[b"id: 7\nevent: chat.action\ndata: {}\n\n"]), one("7", "chat.action", "{}"));
    }

    #[test]
    fn data_of_many_lines_is_joined() {
        assert_eq!(events(&[b"data: a\ndata:  b\ndata:c\ndata\n\n"]), one("", "message", "a\n b\nc\n"));
    }

    #[test]
    fn every_line_ending_and_every_split_of_the_stream() {
        let text = b"id: 1\r\nevent: x\rdata: first\ndata: \xc3\xa9\r\n\r\n";
        for cut in 0..=text.len() {
            let (head, tail) = text.split_at(cut);
            assert_eq!(events(&[head, tail]), one("1", "x", "first\n\u{e9}"), "cut at {cut}");
        }
        let bytes: Vec<_> = text.chunks(1).collect();
        assert_eq!(events(&bytes), one("1", "x", "first\n\u{e9}"));
    }

    #[test]
    fn a_carriage_return_alone_ends_the_event() {
        assert_eq!(events(&[b"data: x\r\r"]), one("", "message", "x"));
    }

    #[test]
    fn comments_are_not_events() {
        let items = parse(&[b": beat\n:\n"]);
        let comments: Vec<_> = items
            .iter()
            .map(|item| match item {
                Item::Comment(text) => text.as_str(),
                Item::Event(_) | Item::Empty | Item::Retry(_) => "not a comment",
            })
            .collect();
        assert_eq!(comments, ["beat", ""]);
    }

    #[test]
    fn the_id_stays_until_another_comes() {
        let events = events(&[b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\nid: x\0y\ndata: d\n\n"]);
        let ids: Vec<_> = events.iter().map(|(id, _, _)| id.as_str()).collect();
        assert_eq!(ids, ["1", "1", "", ""]);
    }

    #[test]
    fn an_event_without_data_is_dropped_with_its_name() {
        assert_eq!(events(&[b"event: lost\nid: 3\n\ndata: x\n\n"]), one("3", "message", "x"));
    }

    #[test]
    fn an_empty_line_without_an_event_is_noticed() {
        let empty = |text: &[u8]| parse(&[text]).iter().filter(|item| matches!(item, Item::Empty)).count();
        assert_eq!(empty(b"retry: 1\nid: 6\ndata: x\n\n:\n"), 0);
        assert_eq!(empty(b"retry: 1\n\n:\n\nid: 5\n\n"), 3);
    }

    #[test]
    fn an_incomplete_event_is_ignored() {
        assert!(events(&[b"data: x\n"]).is_empty());
    }

    #[test]
    fn retry_takes_only_digits() {
        let retries: Vec<_> = parse(&[b"retry: 1500\nretry: 1s\nretry:\nretry: -1\n"])
            .into_iter()
            .filter_map(|item| match item {
                Item::Retry(after) => Some(after),
                Item::Event(_) | Item::Empty | Item::Comment(_) => None,
            })
            .collect();
        assert_eq!(retries, [Duration::from_millis(1500)]);
    }

    #[test]
    fn a_byte_order_mark_at_the_start_is_skipped() {
        assert_eq!(events(&["\u{feff}data: x\n\n".as_bytes()]), one("", "message", "x"));
    }
}
