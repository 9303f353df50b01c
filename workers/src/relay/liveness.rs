//! Queries which of the published entries Redis can still deliver.
//!
//! An entry is *live* if it exists, and the group has either not delivered it yet or has it as pending. An entry that
//! exists and is neither is an *orphan*, which will never be delivered: its consumer was deleted with its pending
//! entries, or the group was created at a later entry.

use atrium_shared::streams::{GROUP, Inbound, Redis, lua};
use redis::RedisResult;

/// Returns those of the entries, each given with its message, that will never be delivered.
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
