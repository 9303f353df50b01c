//! Reads the events after a stream's position from Redis, page by page.
//!
//! One pipeline reads the page and then the first and the newest entry of the stream. Redis trims a stream only at its
//! beginning, so a first entry at or before the position proves that no entry between the position and the page was
//! trimmed. Without this check, Redis would silently start the page at the oldest entry that it still has.

use std::{collections::HashMap, sync::Arc};

use atrium_shared::{
    messages::{LiveChatEntry, LiveEvent as _, SessionClosedEvent, StreamEntry as _},
    streams::{Live, Redis, StreamId, chat_epoch_key, text_fields},
};
use redis::{
    FromRedisValue as _, RedisError, Value,
    streams::{StreamId as Entry, StreamRangeReply},
};

use super::{
    frame::frame,
    position::Position,
    ring::{Frame, Published, ResetReason, TopicKey},
};

/// Maximum number of entries in one page.
const PAGE: usize = 128;

/// The result of reading after a position.
#[derive(Debug)]
pub enum Page {
    /// Events of the topic.
    Events {
        /// The events, in order.
        frames: Vec<Frame>,
        /// The id of the last entry read, of any topic.
        end: StreamId,
        /// Whether Redis had no more entries.
        last: bool,
    },
    /// The stream cannot resume from the position.
    Lost(ResetReason),
}

/// Reads one page of events after a position.
///
/// # Errors
/// When Redis is unavailable.
pub async fn page(redis: &Redis, shard: u16, topic: TopicKey, after: &Position) -> Result<Page, RedisError> {
    let key = Live::Chat(shard).to_string();
    let mut pipe = redis::pipe();
    pipe.xrange_count(&key, format!("({}", after.id), "+", PAGE)
        .xrange_count(&key, "-", "+", 1)
        .xrevrange_count(&key, "+", "-", 1)
        .get(chat_epoch_key(shard));
    let (entries, first, newest, epoch): (
        StreamRangeReply,
        StreamRangeReply,
        StreamRangeReply,
        Option<String>,
    ) = pipe.query_async(&mut redis.shared()).await?;
    let id = |reply: &StreamRangeReply| reply.ids.first().and_then(|entry| entry.id.parse::<StreamId>().ok());
    let (first, newest_id) = (id(&first), id(&newest));
    // Clients saw the epoch in the entries. The key counts only if the stream has no entries.
    let epoch = newest.ids.first().and_then(epoch_of).or(epoch);

    if epoch.as_deref() != Some(&*after.epoch) || newest_id.unwrap_or_default() < after.id {
        return Ok(Page::Lost(ResetReason::HistoryLost));
    }
    if first.is_some_and(|first| first > after.id)
        // A client that connected while the stream was empty has a position before the first entry. It has missed
        // nothing unless the stream was trimmed.
        && (after.id != StreamId::default() || was_trimmed(redis, &key).await?)
    {
        return Ok(Page::Lost(ResetReason::TooOld));
    }
    let last = entries.ids.len() < PAGE;
    let mut end = after.id;
    let mut frames = Vec::new();
    for entry in entries.ids {
        let Ok(id) = entry.id.parse() else { continue };
        end = id;
        match decode(id, &text_fields(entry.map)) {
            Some(published) if published.epoch != after.epoch => {
                return Ok(Page::Lost(ResetReason::HistoryLost));
            }
            Some(published) if published.topic == topic => frames.push(published.frame),
            _ => {}
        }
    }
    Ok(Page::Events { frames, end, last })
}

/// Whether any entry of the stream was ever removed.
async fn was_trimmed(redis: &Redis, key: &str) -> Result<bool, RedisError> {
    let info: HashMap<String, Value> =
        redis::cmd("XINFO").arg("STREAM").arg(key).query_async(&mut redis.shared()).await?;
    let number = |name: &str| info.get(name).cloned().and_then(|value| u64::from_redis_value(value).ok());
    Ok(number("entries-added").is_none() || number("entries-added") != number("length"))
}

/// The position of the newest entry of a shard's live stream. `None` if the stream has no history.
///
/// # Errors
/// When Redis is unavailable.
pub async fn newest_position(redis: &Redis, shard: u16) -> Result<Option<Position>, RedisError> {
    let mut pipe = redis::pipe();
    pipe.xrevrange_count(Live::Chat(shard).to_string(), "+", "-", 1).get(chat_epoch_key(shard));
    let (newest, epoch): (StreamRangeReply, Option<String>) = pipe.query_async(&mut redis.shared()).await?;
    let newest = newest.ids.first();
    let id = newest.and_then(|entry| entry.id.parse().ok()).unwrap_or_default();
    let epoch = newest.and_then(epoch_of).or(epoch);
    Ok(epoch.map(|epoch| Position { epoch: epoch.into(), id }))
}

/// Decodes an entry of a live stream. `None` if this release cannot decode it.
#[must_use]
pub fn decode(id: StreamId, fields: &HashMap<String, String>) -> Option<Published> {
    let entry = LiveChatEntry::from_fields(fields).ok()?;
    let epoch: Arc<str> = entry.epoch.into();
    let closes = (entry.event == SessionClosedEvent::NAME).then_some(entry.session);
    let position = Position { epoch: Arc::clone(&epoch), id };
    let bytes = frame(Some(&position), &entry.event, &entry.data);
    Some(Published { epoch, topic: (entry.org, entry.project), frame: Frame { id, closes, bytes } })
}

fn epoch_of(entry: &Entry) -> Option<String> {
    LiveChatEntry::from_fields(&text_fields(entry.map.clone())).ok().map(|entry| entry.epoch)
}

#[cfg(test)]
mod tests {
    use atrium_shared::ids::{OrgId, ProjectId, SessionId};

    use super::*;

    #[test]
    fn decode_returns_the_event_or_rejects_a_malformed_entry() {
        let session = SessionId::new();
        let fields = |event: &str| {
            let entry = LiveChatEntry {
                epoch: "abc".to_owned(),
                org: OrgId::new(),
                project: ProjectId::new(),
                event: event.to_owned(),
                session,
                data: "{}".to_owned(),
            };
            HashMap::from_iter(entry.to_fields().expect("text"))
        };
        let id = StreamId { ms: 5, seq: 1 };
        let action = decode(id, &fields("chat.action")).expect("an event");
        assert_eq!(action.frame.bytes, "id: abc-5-1\nevent: chat.action\ndata: {}\n\n");
        assert_eq!(action.frame.closes, None);
        let mut closed: HashMap<String, String> = fields(SessionClosedEvent::NAME);
        assert_eq!(decode(id, &closed).expect("an event").frame.closes, Some(session));
        closed.insert("session".to_owned(), String::new());
        assert!(decode(id, &closed).is_none(), "a closed event must name its session");
        assert!(decode(id, &HashMap::new()).is_none());
    }
}
