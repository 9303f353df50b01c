//! How far the group of an inbound stream is behind, as a number of our own.
//!
//! Redis has its own count, `lag`, of added and read entries: it is unknown after an unread entry was deleted, or for a
//! group that was created at an id, and is wrong after a trim. So entries are counted here. Entries up to the last
//! delivered one are pending, all others are the backlog; since an entry is deleted when it is done, there are few
//! pending ones, and the length of the stream without them is the backlog. To be exact in every case, both ends are
//! counted in turn, a page at a time, until one is complete. If neither is after some pages, the result is a lower
//! bound.
//!
//! Where there is no group, as after a flush, nothing is known: that is not 0.

use redis::RedisResult;

use super::{GROUP, Inbound, Redis, lua};

/// Entries per page, and the maximum number of pages at each end.
const PAGE: usize = 250;
const PAGES: usize = 8;

/// Entries that a group has not been given yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// Exactly this many.
    Exactly(u64),
    /// This many or more.
    AtLeast(u64),
    /// There is no group that could have one.
    Unknown,
}

/// The signals of an inbound stream and its group, all of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSignals {
    /// What is waiting.
    pub backlog: Backlog,
    /// Entries that consumers have in hand; none while there is no group.
    pub pending: Option<u64>,
    /// For how many milliseconds the oldest entry that is waiting or in hand has been in the stream. 0 when there is
    /// none of either, nothing while there is no group.
    pub oldest_ms: Option<u64>,
    /// Entries in the stream of dead letters.
    pub dead_letters: u64,
}

impl StreamSignals {
    /// Looks at a stream, in one script. It reads up to 4,000 entries, and a handful as a rule.
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
