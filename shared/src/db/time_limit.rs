//! How long an answer of PostgreSQL is waited for.
//!
//! The server ends what takes too long, and says so. But a line can die without a word to this end of it: then the
//! answer never comes, and the kernel notices after a quarter of an hour.

use std::{future::Future, io};

use crate::timings::LONGEST_ANSWER;

/// Waits for work on the database no longer than the server would work on it. What was begun is dropped, and the
/// connection closed.
///
/// # Errors
/// A timed-out [`sqlx::Error::Io`] when its time is over; those of the work.
pub async fn in_time<T, E: From<sqlx::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(LONGEST_ANSWER, work).await {
        Ok(done) => done,
        Err(elapsed) => Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, elapsed)).into()),
    }
}
