//! What PostgreSQL may say instead of doing what was asked, sorted by what the caller can do about it.

/// Why a transaction did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Not there, or not yours: the same answer for both.
    #[error("not found")]
    NotFound,
    /// A constraint said no; its name says which.
    #[error("the constraint {0} was violated")]
    Constraint(String),
    /// PostgreSQL is away, busy or restarting, or lost a race on our behalf: trying again is safe, because nothing
    /// was committed.
    #[error("PostgreSQL is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A defect: a statement the database refuses, or a row that cannot be read.
    #[error("PostgreSQL refused: {0}")]
    Unexpected(#[source] sqlx::Error),
}

impl DbError {
    /// Whether a lock was waited for longer than `lock_timeout`.
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
            // A line that was closed in the middle of an answer, as when a connection is begun.
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
                    // Connection exceptions, lost races, resources, operator intervention, time limits.
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
