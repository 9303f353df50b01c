//! Adds a batch to a stream behind a fence: one script, which refuses a token lower than the highest that the shard
//! has used there. A relay that was stopped past its lease therefore adds nothing when it goes on, once its successor
//! has; until then what it adds is not there yet, and only comes twice.
//!
//! A script is not taken back when a command in it fails. Redis looks for room and for the right to write before the
//! first command that writes, and the fence is that one; so it is all or nothing unless a key is of the wrong kind. Were it
//! otherwise, what stands would be added again with the rest: in order, and known to the inbox.

use atrium_shared::streams::{Inbound, Redis};
use redis::{RedisResult, Script};

use super::publish::Due;

/// KEYS: stream, fence. ARGV: token, then four for each entry: message, organization, outbox id, payload. Answers the
/// highest token seen, and the ids of the entries unless they were refused.
const SCRIPT: &str = "
    local fence, token = tonumber(redis.call('GET', KEYS[2]) or 0) or 0, tonumber(ARGV[1])
    if token < fence then return {fence, false} end
    if token > fence then redis.call('SET', KEYS[2], ARGV[1]) end
    local ids = {}
    for i = 2, #ARGV, 4 do
        ids[#ids + 1] = redis.call('XADD', KEYS[1], '*', 'message', ARGV[i], 'org', ARGV[i + 1],
                                   'outbox', ARGV[i + 2], 'payload', ARGV[i + 3])
    end
    return {fence, ids}";

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
    messages: &[Due],
) -> RedisResult<Added> {
    let script = Script::new(SCRIPT);
    let mut call = script.key(stream.to_string());
    call.key(stream.fence(shard)).arg(token);
    for due in messages {
        call.arg(due.message_id.to_string()).arg(due.org_id.to_string()).arg(due.id).arg(&due.payload);
    }
    let (fence, ids): (i64, Option<Vec<String>>) = call.invoke_async(&mut redis.shared()).await?;
    Ok(ids.map_or(Added::Refused(fence), Added::Entries))
}
