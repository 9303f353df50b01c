//! The reasons that interrupt work on a shard.

use atrium_shared::db::DbError;

/// Why work on a shard ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Interrupted {
    #[error("another process took the lease")]
    LostLease,
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error(transparent)]
    Database(#[from] DbError),
}
