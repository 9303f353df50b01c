//! Asks Redis which of the entries that should be on their way are.
//!
//! An entry is *live* if it is there, and either the group has not come to it, or somebody of the group has it. One
//! that is there and neither is an *orphan*: nobody will ever be given it. Its consumer was deleted with what it had,
//! or the group was made at a later entry.

use atrium_shared::streams::{GROUP, Inbound, Redis, lua};
use redis::RedisResult;

/// Which of these entries, each with its message, nobody will be given.
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
