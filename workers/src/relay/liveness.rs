//! Asks Redis which of the published entries can still be delivered.
//!
//! An entry is *live* if it exists, and the group has either not delivered it yet or holds it as pending. An entry that
//! exists and is neither is an *orphan*, which nobody will receive: its consumer was deleted with its pending entries,
//! or the group was created at a later entry.

use atrium_shared::streams::{GROUP, Inbound, Redis, lua};
use redis::RedisResult;

/// Which of these entries, each with its message, nobody will receive.
pub(super) async fn not_live(
    redis: &Redis,
    stream: Inbound,
    entries: &[(&str, String)],
) -> RedisResult<Vec<String>> {
    let mut call = lua::NOT_LIVE.key(stream.to_string());
    call.arg(GROUP);
    for (entry, message) in entries {
        call.arg(*entry).arg(message);
    }
    call.invoke_async(&mut redis.shared()).await
}
