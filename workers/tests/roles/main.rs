//! Tests the guarantees of the worker roles, also during failures: real processes run with a real PostgreSQL and a real
//! Redis. The tests write what the API would write, and check the effects.

mod chat;
mod cluster;
mod consumer;
mod dead_letters;
mod isolation;
mod janitor;
mod outbox;
mod platform;
mod relay;
mod sagas;
mod shards;
mod signals;
mod stop;
mod sweeper;
