//! The interface between the consumer loop and the roles that handle messages.

use std::{future::Future, time::Duration};

use atrium_shared::{
    db::{Database, DbError, OrgTx},
    ids::OrgId,
};

use super::message::Message;

/// The result of handling a message.
#[derive(Debug)]
pub(crate) enum Outcome<E> {
    /// The effect is in the transaction and takes place if it commits.
    Done(E),
    /// The message cannot be handled yet. The transaction is rolled back, and the message is delivered again after this
    /// pause or later. No number of such pauses makes it a dead letter.
    RetryAfter(Duration),
}

/// The reason that a message was not handled. Its transaction is rolled back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandleError {
    /// The message is tried again. It waits for any length of time while PostgreSQL is unavailable; a message that
    /// PostgreSQL rejects repeatedly becomes a dead letter.
    #[error(transparent)]
    Database(#[from] DbError),
    /// Redis is unavailable, or accepts no writes. The message waits.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// Another try would also fail. The message becomes a dead letter immediately, with this reason.
    #[error("{0}")]
    Permanent(String),
}

impl From<sqlx::Error> for HandleError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<serde_json::Error> for HandleError {
    fn from(error: serde_json::Error) -> Self {
        Self::Permanent(format!("the message cannot be understood: {error}"))
    }
}

impl HandleError {
    /// Whether the cause is an outage, in which every message fails until it is over.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Redis(_) | Self::Database(DbError::Unavailable(_)))
    }

    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Permanent(_))
    }
}

/// Handles the messages of a role.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The name of the consumer in the inbox.
    const CONSUMER: &'static str;
    /// The value that [`Handler::prepare`] passes to [`Handler::handle`].
    type Prepared: Default + Send;
    /// The value that [`Handler::handle`] passes to [`Handler::committed`].
    type Effect: Send;

    /// Does slow work outside of PostgreSQL, before the transaction begins, so that the work occupies no connection and
    /// no lock. It runs again after a crash, and for a copy of a message that was already handled. It must therefore
    /// first check whether there is anything to do, and name what it creates such that a repetition changes nothing.
    fn prepare(
        &self,
        _database: &Database,
        _message: &Message,
    ) -> impl Future<Output = Result<Self::Prepared, HandleError>> + Send {
        std::future::ready(Ok(Self::Prepared::default()))
    }

    /// Performs the effect, inside the transaction that also marks the message as consumed.
    fn handle(
        &self,
        tx: &mut OrgTx,
        message: &Message,
        prepared: Self::Prepared,
    ) -> impl Future<Output = Result<Outcome<Self::Effect>, HandleError>> + Send;

    /// Sends hints after the commit, which may be lost.
    fn committed(&self, org: OrgId, effect: Self::Effect) -> impl Future<Output = ()> + Send;

    /// Called when the message becomes a dead letter; leaves the organization in a usable state.
    fn give_up(
        &self,
        tx: &mut OrgTx,
        message: &Message,
        reason: &str,
    ) -> impl Future<Output = Result<(), HandleError>> + Send;
}
