//! The types that sagas are built of.

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

/// The transaction and the saga that a step runs in.
pub(super) struct Context<'a> {
    pub(super) tx: &'a mut OrgTx,
    pub(super) saga: SagaId,
}

/// The result of an action.
pub(crate) enum Verdict {
    /// The action has taken effect, with an optional detail for the user.
    Done(Option<String>),
    /// The action must be tried again after this pause, with a detail for the user.
    RetryAfter(Duration, String),
    /// The action failed, and another try would fail too.
    Fail(Failure),
    /// The action has taken effect, and has deleted the saga's own record. The result is recorded elsewhere.
    Erased,
}

/// The reason that a saga is compensated: a stable code, and a sentence for the user.
pub(crate) struct Failure {
    pub(super) code: &'static str,
    pub(super) detail: String,
}

/// The effect of a step outside of PostgreSQL, which is slow and cannot be rolled back. It is applied before the step's
/// transaction, without a connection or a lock. A worker that takes over from one that died applies it again, so what
/// it creates is named after the organization: applying it again changes nothing.
pub(super) trait ExternalEffect: Send + Sync {
    /// Applies the effect.
    fn apply(&self, org: OrgId) -> BoxFuture<'_, Verdict>;

    /// Removes the effect, even if it was applied partly or not at all. The error is the reason that the removal
    /// failed; it is retried until it succeeds.
    fn remove(&self, org: OrgId) -> BoxFuture<'_, Result<(), String>>;
}

/// A step: an action and its compensation.
pub(super) trait Step: Send + Sync {
    /// The name, unique within the saga; shown to users.
    fn name(&self) -> &'static str;

    /// The effect outside of PostgreSQL, applied before the action and removed before the compensation.
    fn external_effect(&self) -> Option<&dyn ExternalEffect> {
        None
    }

    /// Runs the action. After an error its changes in the database are rolled back, and it is tried again.
    fn run<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<Verdict, DbError>>;

    /// Whether the step works in PostgreSQL only, and is fast. Such a step needs no separate message, but runs in the
    /// transaction of the step before it: a saga of inline steps takes one transaction and one message.
    fn is_inline(&self) -> bool {
        false
    }

    /// Whether the step comes after the saga's pivot. Once such a step has begun, the saga is no longer compensated,
    /// neither after a failure nor at the deadline, so the step is retried until it succeeds.
    fn is_retriable(&self) -> bool {
        false
    }

    /// Undoes the action, even if it was done partly or was undone before. It is retried until it succeeds.
    fn compensate<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), DbError>>;
}
