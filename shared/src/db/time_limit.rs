//! The time limit for replies of PostgreSQL.
//!
//! The server ends statements that take too long, and reports that. But a connection can break without either side
//! noticing: then no reply arrives, and the kernel reports the failure only after about 15 minutes.

use std::{future::Future, io};

use crate::timings::MAX_RESPONSE_TIME;

/// Waits for work on the database a little longer than the server lets a statement run. After that, the work is dropped
/// and its connection is closed.
///
/// # Errors
/// An [`sqlx::Error::Io`] of the kind `TimedOut` when the time is over; otherwise the errors of the work.
pub async fn in_time<T, E: From<sqlx::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    match tokio::time::timeout(MAX_RESPONSE_TIME, work).await {
        Ok(done) => done,
        Err(elapsed) => Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, elapsed)).into()),
    }
}
