//! The wall clock, read in one place.
//!
//! It may be wrong, and it may jump (an administrator, a virtual machine that was paused), so nothing that must be
//! right rests on it: leases and retries go by PostgreSQL's or Redis' clock, durations by the monotonic one. What is
//! left are times that people read, and tokens, which are compared with the times in them.

use time::OffsetDateTime;

/// The time in UTC, as this machine has it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
