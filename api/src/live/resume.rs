//! What came after a stream's position: pages from Redis, and the events in them.
//!
//! A page is read together with the stream's ends, *after* the page in one pipeline: a stream is only ever trimmed
//! at its beginning, so a first entry that still lies at or before the position proves that nothing was cut out
//! between the position and the page. Redis itself would silently begin at the first entry that is left.

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

/// How many entries are read from Redis at a time, for one stream.
const PAGE: usize = 128;

/// What comes after a position.
#[derive(Debug)]
pub enum Page {
    /// These events of the topic.
    Events {
        /// The events, in order.
        frames: Vec<Frame>,
        /// The position after them.
        end: StreamId,
        /// Whether Redis had no more.
        last: bool,
    },
    /// The stream cannot go on from there.
    Lost(ResetReason),
}

/// Reads what comes after a position.
///
/// # Errors
/// When Redis does not answer.
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
    // What the entries say is what their readers saw; the key speaks for a stream without any.
    let epoch = newest.ids.first().and_then(epoch_of).or(epoch);

    if epoch.as_deref() != Some(&*after.epoch) || newest_id.unwrap_or_default() < after.id {
        return Ok(Page::Lost(ResetReason::HistoryLost));
    }
    if first.is_some_and(|first| first > after.id)
        // Whoever came when the stream was empty stands before its first entry, and has missed nothing so far.
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

/// Whether a stream has ever lost an entry.
async fn was_trimmed(redis: &Redis, key: &str) -> Result<bool, RedisError> {
    let info: HashMap<String, Value> =
        redis::cmd("XINFO").arg("STREAM").arg(key).query_async(&mut redis.shared()).await?;
    let number = |name: &str| info.get(name).cloned().and_then(|value| u64::from_redis_value(value).ok());
    Ok(number("entries-added").is_none() || number("entries-added") != number("length"))
}

/// Where a shard's live stream ends now. None when it has no history at all.
///
/// # Errors
/// When Redis does not answer.
pub async fn tip(redis: &Redis, shard: u16) -> Result<Option<Position>, RedisError> {
    let mut pipe = redis::pipe();
    pipe.xrevrange_count(Live::Chat(shard).to_string(), "+", "-", 1).get(chat_epoch_key(shard));
    let (newest, epoch): (StreamRangeReply, Option<String>) = pipe.query_async(&mut redis.shared()).await?;
    let newest = newest.ids.first();
    let id = newest.and_then(|entry| entry.id.parse().ok()).unwrap_or_default();
    let epoch = newest.and_then(epoch_of).or(epoch);
    Ok(epoch.map(|epoch| Position { epoch: epoch.into(), id }))
}

/// Makes an event of a live stream's entry. None when it is not one that this release understands.
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
    fn an_entry_becomes_an_event_or_nothing() {
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
        assert!(decode(id, &closed).is_none(), "it must say whose end it is");
        assert!(decode(id, &HashMap::new()).is_none());
    }
}
