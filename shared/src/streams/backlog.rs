//! Counts how far the group of an inbound stream is behind.
//!
//! Redis has such a number, `lag`, which it derives from the entries added and read. It is unknown after an unread
//! entry was deleted, and for a group that was created at an id; and it is wrong after a trim. So we count instead.
//! Entries up to the last delivered one are pending; all later ones are the backlog. An entry is deleted when it is
//! done, so few entries are pending, and the backlog is the length of the stream minus these. Because there can also
//! be many pending entries, both ends are counted in turn, one page at a time, until one of them is complete. When
//! neither is complete after `PAGES` pages, the backlog is at least what was counted.
//!
//! Without a group, as after a flush, the backlog is unknown, which is not 0.

use redis::RedisResult;

use super::{GROUP, Inbound, Redis, lua};

/// Entries in a page, and the most pages that are counted at each end.
const PAGE: usize = 250;
const PAGES: usize = 8;

/// Entries that a group has not received yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Exactly this many.
    Exactly(u64),
    /// This many or more.
    AtLeast(u64),
    /// There is no group.
    Unknown,
}

/// The state of an inbound stream and its group, all as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSignals {
    /// Entries not delivered yet.
    pub backlog: Backlog,
    /// Entries delivered and not acknowledged; none while there is no group.
    pub pending: Option<u64>,
    /// The age in milliseconds of the oldest entry in the backlog or pending. 0 when there is no such entry; none
    /// while there is no group.
    pub oldest_ms: Option<u64>,
    /// Entries in the stream of dead letters.
    pub dead_letters: u64,
}

impl StreamSignals {
    /// Reads the state of a stream with one script. The script reads up to 4,000 entries, and usually only a few.
    ///
    /// # Errors
    /// When Redis is unavailable.
    pub async fn read(redis: &Redis, stream: Inbound) -> RedisResult<Self> {
        let reply: Vec<u64> = lua::SIGNALS
            .key(stream.to_string())
            .key(stream.dead_letters())
            .arg(GROUP)
            .arg(PAGE)
            .arg(PAGES)
            .invoke_async(&mut redis.shared())
            .await?;
        let (backlog, pending, oldest_ms) = match reply[..] {
            [_, waiting, exact, pending, oldest] => {
                let backlog = if exact == 1 { Backlog::Exactly(waiting) } else { Backlog::AtLeast(waiting) };
                (backlog, Some(pending), Some(oldest))
            }
            _ => (Backlog::Unknown, None, None),
        };
        Ok(Self { backlog, pending, oldest_ms, dead_letters: reply.first().copied().unwrap_or(0) })
    }
}
