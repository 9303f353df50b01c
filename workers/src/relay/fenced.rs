//! Adds a batch to a stream with a fencing token, by one script. The script rejects a token that is lower than the
//! highest one that the shard has used on this stream. A relay that was stopped past its lease therefore adds nothing
//! after it resumes if its successor has already used a higher token. Otherwise it adds messages that its successor
//! will add again, and the inbox recognizes the copies.
//!
//! Redis does not roll back a script when one of its commands fails. But it checks memory and permissions before the
//! first command that writes, which stores the token, so the script does all or nothing unless a key has the wrong
//! type. Even then, the entries already added are only added again with the rest, in order, as duplicates that the
//! inbox recognizes.

use atrium_shared::{
    messages::{OutboxEntry, StreamEntry as _},
    streams::{Inbound, Redis, lua},
};
use redis::RedisResult;

/// The result of adding a batch.
pub(super) enum Added {
    /// The ids of the entries, in the order of the messages.
    Entries(Vec<String>),
    /// Another relay has used a higher token, this one.
    Rejected(i64),
}

/// Adds messages to their stream, in order.
pub(super) async fn add(
    redis: &Redis,
    stream: Inbound,
    shard: u16,
    token: i64,
    messages: impl IntoIterator<Item = OutboxEntry>,
) -> RedisResult<Added> {
    let mut call = lua::FENCED_ADD.key(stream.to_string());
    call.key(stream.fence(shard)).arg(token);
    for message in messages {
        let fields = message.to_fields().map_err(std::io::Error::from)?;
        call.arg(fields.len() * 2).arg(fields);
    }
    let (highest, ids): (i64, Option<Vec<String>>) = call.invoke_async(&mut redis.shared()).await?;
    Ok(ids.map_or(Added::Rejected(highest), Added::Entries))
}
