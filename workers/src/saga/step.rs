//! The parts of a saga.

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

/// What a step works with.
pub(super) struct Context<'a> {
    pub(super) tx: &'a mut OrgTx,
    pub(super) saga: SagaId,
}

/// How an action ended.
pub(crate) enum Verdict {
    /// It has taken effect. With a detail for the user, if any.
    Done(Option<String>),
    /// It has to be tried again after a while, with a detail for the user.
    RetryAfter(Duration, String),
    /// It failed, and another try would fail too.
    Fail(Failure),
    /// It has taken effect, and has deleted the saga's own record. The result is recorded elsewhere.
    Erased,
}

/// Why a saga is compensated: a stable code, and a sentence for the user.
pub(crate) struct Failure {
    pub(super) code: &'static str,
    pub(super) detail: String,
}

/// The effect of a step outside of PostgreSQL, which is slow and cannot be rolled back. It is applied before the step's
/// transaction, without a connection or a lock, and once more by a worker that takes over from one that died. So what
/// it creates is named after the organization: applying it again changes nothing.
pub(super) trait ExternalEffect: Send + Sync {
    /// Applies the effect.
    fn apply(&self, org: OrgId) -> BoxFuture<'_, Verdict>;

    /// Removes the effect, whether it was applied wholly, partly or not at all. An error says why it could not; it is
    /// retried until it succeeds.
    fn remove(&self, org: OrgId) -> BoxFuture<'_, Result<(), String>>;
}

/// A step: an action and its compensation.
pub(super) trait Step: Send + Sync {
    /// Unique within the saga; shown to users.
    fn name(&self) -> &'static str;

    /// The effect outside of PostgreSQL, applied before the action and removed before the compensation.
    fn external_effect(&self) -> Option<&dyn ExternalEffect> {
        None
    }

    /// The action. After an error its changes in the database are rolled back, and it is tried again.
    fn run<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>>;

    /// Whether it works in PostgreSQL only, and is fast. Then it needs no separate message, but runs in the transaction
    /// of the step before it: a saga of inline steps takes one transaction and one message.
    fn is_inline(&self) -> bool {
        false
    }

    /// Whether it comes after the saga's pivot: once such a step has begun, the saga is no longer compensated, neither
    /// after a failure nor at the deadline, so the step is retried until it succeeds.
    fn is_retriable(&self) -> bool {
        false
    }

    /// Undoes the action, whether it was done wholly or partly, or was undone before. It is retried until it succeeds.
    fn compensate<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>>;
}
