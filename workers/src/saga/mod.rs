//! The saga engine: carries a list of steps to its end, or takes back what was done.
//!
//! The plan, every step and so every compensation, is written before the first action runs. A message moves a saga
//! by one step, in one transaction that holds the saga's row: the step's effect, its record, and the message for
//! the next one. So a step happens once, whoever dies, and two messages for one saga wait for each other. When a step
//! cannot be done, or the deadline has passed, the steps that were begun are compensated in reverse, each retried
//! until it works. COMMITTED and FAILED are final; the database refuses to leave them.
//!
//! What a step does outside of PostgreSQL comes before its transaction ([`prepare`]): the step is written down as begun,
//! then it is done, then it is recorded.
//!
//! To add a saga: one file with its steps, and one line in [`registry`].

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
