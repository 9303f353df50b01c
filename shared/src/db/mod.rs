//! PostgreSQL, behind the tenant wall.
//!
//! Row-level security lets a statement see the rows of the organization that its transaction has named, and no rows
//! when it has named none. So SQL on tenant data runs only in two types of transactions, which begin by naming an
//! organization ([`OrgTx`]) or a user ([`UserTx`]). The pool is private to this module, so no other code can get a
//! connection without such a transaction.

mod api_keys;
mod database;
mod error;
mod org_tx;
mod outbox;
mod pool;
mod principal;
mod time_limit;
mod user_tx;
mod wake;
mod wall;
mod watcher;

pub use self::{
    api_keys::ApiKey,
    database::Database,
    error::DbError,
    org_tx::{OrgTx, ROWS_PER_INSERT},
    pool::{ACQUIRE_TIMEOUT, connect_pool},
    principal::Principal,
    time_limit::in_time,
    user_tx::UserTx,
    wake::OUTBOX_CHANNEL,
    wall::{Reach, check_role},
    watcher::{RevokedAccess, RunningSagas, Watcher},
};
