//! Errors of the database, by what the caller can do about them.

/// Why a transaction or one of its statements failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// There is no such row, or the transaction may not see it; callers cannot distinguish these.
    #[error("not found")]
    NotFound,
    /// The constraint with this name was violated.
    #[error("the constraint {0} was violated")]
    Constraint(String),
    /// PostgreSQL cannot be reached, is busy or restarting, or ended the transaction because of a conflict with
    /// another. A retry is safe, because nothing was committed.
    #[error("PostgreSQL is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A defect: a statement that the database rejects, or a row that cannot be decoded.
    #[error("PostgreSQL refused: {0}")]
    Unexpected(#[source] sqlx::Error),
}

impl DbError {
    /// Whether a statement waited for a lock longer than `lock_timeout`.
    #[must_use]
    pub fn is_lock_timeout(&self) -> bool {
        let Self::Unavailable(sqlx::Error::Database(error)) = self else { return false };
        error.code().as_deref() == Some("55P03")
    }
}

impl From<sqlx::Error> for DbError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::RowNotFound => Self::NotFound,
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            // A connection that was closed in the middle of a reply, for example while it was being opened.
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::Unavailable(error),
            sqlx::Error::Database(database) => {
                if let Some(constraint) = database.constraint() {
                    return Self::Constraint(constraint.to_owned());
                }
                match database.code().as_deref() {
                    // Connection exceptions, transaction rollbacks, insufficient resources, operator intervention,
                    // system errors; and the time limits of idle transactions and of locks.
                    Some(code)
                        if ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                            || ["25P03", "55P03"].contains(&code) =>
                    {
                        Self::Unavailable(error)
                    }
                    _ => Self::Unexpected(error),
                }
            }
            _ => Self::Unexpected(error),
        }
    }
}
