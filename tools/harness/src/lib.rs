//! What integration tests and the command line use: Atrium's processes with their servers, and a client that checks
//! what they answer.
//!
//! The tests of the workspace run under `atrium-devstack exec`, which starts PostgreSQL and Redis once and migrates a
//! template database. A test takes its share of them: a copy of the template ([`TestDatabase`]), a logical database of
//! Redis ([`TestRedis`]), processes that use both ([`Atrium`]). Tests that kill, flush or pause a server start a private
//! one. The client checks every answer against the contract, so that every test tests the contract, too.

pub mod addresses;
mod atrium;
pub mod casing;
pub mod checkout;
pub mod client;
pub mod compile;
mod database;
mod database_copy;
mod environment;
pub mod guest;
pub mod interrupt;
pub mod keys;
pub mod latency;
pub mod operator;
mod raised_limits;
mod redis_database;
pub mod screen;
pub mod service;
pub mod stack;
pub mod supervisor;
mod tied_race;
mod waiting;

pub use atrium::{Atrium, AtriumBuilder};
pub use database::TestDatabase;
pub use environment::Environment;
pub use redis_database::TestRedis;
pub use tied_race::TiedRace;
pub use waiting::until;
