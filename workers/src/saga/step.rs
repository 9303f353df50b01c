//! What a saga is made of.

use std::time::Duration;

use atrium_shared::{
    db::{DbError, OrgTx},
    ids::{OrgId, SagaId},
    saga::SagaKind,
};
use futures_util::future::BoxFuture;

/// A saga: a kind, and its steps in order.
pub(super) struct Saga {
    pub(super) kind: SagaKind,
    pub(super) steps: Vec<Box<dyn Step>>,
}

/// What a step works with. Effects outside of PostgreSQL are named after saga and step, so that a repetition changes
/// nothing.
pub(super) struct Context<'a> {
    pub(super) tx: &'a mut OrgTx,
    pub(super) saga: SagaId,
}

/// How an action ended.
pub(crate) enum Verdict {
    /// Its effect is there. With what to tell the person who waits, if anything.
    Done(Option<String>),
    /// Not yet; try again after a while.
    RetryAfter(Duration, String),
    /// It cannot be done, and trying again would not help.
    Fail(Failure),
    /// Its effect is there, and it deleted the saga's own record. The result is recorded elsewhere.
    Erased,
}

/// Why a saga is given up: a stable code, and a sentence for the person who waits.
pub(crate) struct Failure {
    pub(super) code: &'static str,
    pub(super) detail: String,
}

/// The part of a step that is outside of PostgreSQL: slow, and without a way to be rolled back. It is done before the
/// step's transaction, with no connection and no lock held, and once more by whoever takes over from somebody who died.
/// So what it makes is named after the organization: making it again changes nothing.
pub(super) trait ExternalEffect: Send + Sync {
    /// Makes it.
    fn apply(&self, org: OrgId) -> BoxFuture<'_, Verdict>;

    /// Removes it, wholly or partly made, or never. An error says why not, and is tried again until it works.
    fn remove(&self, org: OrgId) -> BoxFuture<'_, Result<(), String>>;
}

/// A step: an action, and what takes it back.
pub(super) trait Step: Send + Sync {
    /// Unique within the saga; shown to people.
    fn name(&self) -> &'static str;

    /// What is done outside of PostgreSQL, before the action, and taken back before the compensation.
    fn external_effect(&self) -> Option<&dyn ExternalEffect> {
        None
    }

    /// The action. An error is tried again; its changes in the database are taken back before.
    fn run<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>>;

    /// Whether it works in PostgreSQL alone, and is fast. Then it needs no message of its own, but is
    /// done in the transaction of the step before it: a saga of inline steps takes one transaction and one message.
    fn is_inline(&self) -> bool {
        false
    }

    /// Whether it comes after the saga's pivot: once such a step has begun there is no way back, neither at a failure
    /// nor at the deadline, so it is tried until it works.
    fn is_retriable(&self) -> bool {
        false
    }

    /// Takes the action back, wholly or partly done; also when it was taken back before. An error is tried again
    /// until it works.
    fn compensate<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>>;
}
