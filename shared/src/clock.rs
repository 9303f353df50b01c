//! The wall clock, read in one place.
//!
//! The wall clock may be wrong, and it may jump (an administrator sets it, a virtual machine was paused). Leases and
//! retries therefore use the clock of PostgreSQL or Redis, and durations use the monotonic clock. The wall clock is
//! used only for times that people read, and to compare tokens with the times in them.

use time::OffsetDateTime;

/// The time in UTC, according to this machine.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
