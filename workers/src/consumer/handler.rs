//! What a role does with a message: the interface between the loop and the roles.

use std::{future::Future, time::Duration};

use atrium_shared::{
    db::{Database, DbError, OrgTx},
    ids::OrgId,
};

use super::message::Message;

/// How a message was handled.
#[derive(Debug)]
pub(crate) enum Outcome<E> {
    /// The effect is in the transaction, and lasts with it.
    Done(E),
    /// Not yet. The transaction is rolled back, and the message is delivered again after this pause at the earliest.
    /// No number of pauses makes it a dead letter.
    RetryAfter(Duration),
}

/// Why a message was not handled. Nothing of it happened in the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandleError {
    /// Tried again. The message waits while PostgreSQL is unavailable, however long; a message that PostgreSQL refuses
    /// repeatedly becomes a dead letter.
    #[error(transparent)]
    Database(#[from] DbError),
    /// Redis is unavailable, or accepts no writes: the message waits.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// Trying again would not help: a dead letter at once, with this reason.
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
    /// Whether the cause is not this message: any other would fail as well, and later it works.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Redis(_) | Self::Database(DbError::Unavailable(_)))
    }

    pub(super) fn is_permanent(&self) -> bool {
        matches!(self, Self::Permanent(_))
    }
}

/// What a role does with a message.
pub(crate) trait Handler: Send + Sync + 'static {
    /// The name in the inbox.
    const CONSUMER: &'static str;
    /// What [`Handler::prepare`] passes to [`Handler::handle`].
    type Prepared: Default + Send;
    /// What [`Handler::handle`] passes to [`Handler::committed`].
    type Effect: Send;

    /// Slow work outside of PostgreSQL, before the transaction begins, so that it holds no connection and no lock. It
    /// runs again after a crash, and for a copy of a message that was handled before; so it checks first whether
    /// there is anything to do, and names what it makes such that a repetition changes nothing.
    fn prepare(
        &self,
        _database: &Database,
        _message: &Message,
    ) -> impl Future<Output = Result<Self::Prepared, HandleError>> + Send {
        std::future::ready(Ok(Self::Prepared::default()))
    }

    /// The effect, inside the transaction that also marks the message as consumed.
    fn handle(
        &self,
        tx: &mut OrgTx,
        message: &Message,
        prepared: Self::Prepared,
    ) -> impl Future<Output = Result<Outcome<Self::Effect>, HandleError>> + Send;

    /// Hints to send after the commit, which may be lost.
    fn committed(&self, org: OrgId, effect: Self::Effect) -> impl Future<Output = ()> + Send;

    /// The message becomes a dead letter; this leaves the organization in a usable state.
    fn give_up(
        &self,
        tx: &mut OrgTx,
        message: &Message,
        reason: &str,
    ) -> impl Future<Output = Result<(), HandleError>> + Send;
}
