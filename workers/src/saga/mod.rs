//! The saga engine: runs the steps of a saga in order, or compensates those that were begun.
//!
//! The plan, which lists every step and therefore every compensation, is stored before the first action runs. A message
//! advances a saga by one step, in one transaction that locks the saga's row: the step's effect, its record, and the
//! message for the next step. So each step takes effect once, even if a process crashes, and two messages for one saga
//! are handled one after the other. When a step fails, or the deadline has passed, the steps that were begun are
//! compensated in reverse order, each retried until it succeeds. COMMITTED and FAILED are final; the database rejects
//! any change of them.
//!
//! The effect of a step outside of PostgreSQL is applied before its transaction ([`prepare`]): the step is recorded as
//! begun, then the effect is applied, then the step is recorded as done.
//!
//! To add a saga, add a file with its steps, and an entry in [`registry`].

mod create_organization;
mod delete_organization;
mod engine;
mod journal;
mod namespace;
mod prepare;
mod registry;
mod step;
mod traces;

pub(crate) use engine::Engine;
