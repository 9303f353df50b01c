//! What integration tests run on: databases of their own, and whole Atriums.
//!
//! The tests of the workspace run under `atrium-devstack exec`, which starts PostgreSQL and Redis once and migrates a
//! template database. Here a test takes its share: a copy of the template, a logical database of Redis, processes
//! around them. Tests that kill, flush or pause a server start a private one.

mod atrium;
mod database;
mod environment;
mod logical;
mod photo_finish;
mod waiting;

pub use atrium::{Atrium, AtriumBuilder};
pub use database::TestDatabase;
pub use environment::Environment;
pub use logical::TestRedis;
pub use photo_finish::PhotoFinish;
pub use waiting::until;
