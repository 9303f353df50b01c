//! Adds a batch to a stream behind a fence: one script, which refuses a token lower than the highest that the shard
//! has used there. A relay that was stopped past its lease therefore adds nothing when it goes on, once its successor
//! has; until then what it adds is not there yet, and only comes twice.
//!
//! Redis does not roll back a script when one of its commands fails. But it checks memory and permissions before the
//! first command that writes, which sets the fence; so the script does all or nothing unless a key has the wrong type.
//! Even then, the entries already added would only be added again with the rest: in order, and as duplicates that the
//! inbox knows.

use atrium_shared::{
    messages::{OutboxEntry, StreamEntry as _},
    streams::{Inbound, Redis, lua},
};
use redis::RedisResult;

/// What became of a batch.
pub(super) enum Added {
    /// The entries' ids, in the order of the messages.
    Entries(Vec<String>),
    /// Somebody has used a higher token, this one.
    Refused(i64),
}

/// Adds messages to their stream, in their order.
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
    let (fence, ids): (i64, Option<Vec<String>>) = call.invoke_async(&mut redis.shared()).await?;
    Ok(ids.map_or(Added::Refused(fence), Added::Entries))
}
