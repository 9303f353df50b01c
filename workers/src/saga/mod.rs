//! The saga engine: runs the steps of a saga in order, or compensates those that were begun.
//!
//! The plan, which lists every step and so every compensation, is stored before the first action runs. A message
//! advances a saga by one step, in one transaction that locks the saga's row: the step's effect, its record, and the
//! message for the next step. So a step takes effect once, whichever process crashes, and two messages for one saga
//! wait for each other. When a step fails, or the deadline has passed, the steps that were begun are compensated in
//! reverse order, each retried until it succeeds. COMMITTED and FAILED are final; the database refuses to change them.
//!
//! The effect of a step outside of PostgreSQL comes before its transaction ([`prepare`]): the step is recorded as
//! begun, then the effect is applied, then the step is recorded as done.
//!
//! To add a saga, add a file with its steps, and its line in [`registry`].

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
