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
    /// Not yet. Nothing that was done in the transaction remains, and the message comes again no earlier than after
    /// this pause, as often as this is the answer: no number of pauses makes it a dead letter.
    RetryAfter(Duration),
}

/// Why a message was not handled. Nothing of it happened in the database.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandleError {
    /// Tried again. While PostgreSQL is away the message waits, however long that takes; what it refuses again and
    /// again becomes a dead letter.
    #[error(transparent)]
    Database(#[from] DbError),
    /// Redis is away, or takes nothing: the message waits.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// Trying again would not help, says the reason: a dead letter at once.
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
    /// Whether it says nothing about the message: every other would fare the same, and later it works.
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

    /// What is outside of PostgreSQL and takes long, before the transaction is opened: no connection and no lock is
    /// held meanwhile. It is done again after a crash, and for a copy of a message that was handled before; so it
    /// looks first whether there still is something to do, and what it makes has a name that makes doing it again
    /// harmless.
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

    /// What may be done once the effect lasts, and may as well be lost: hints.
    fn committed(&self, org: OrgId, effect: Self::Effect) -> impl Future<Output = ()> + Send;

    /// The message is given up; leaves the organization in a state from which it can go on.
    fn give_up(
        &self,
        tx: &mut OrgTx,
        message: &Message,
        reason: &str,
    ) -> impl Future<Output = Result<(), HandleError>> + Send;
}
