//! The roles of the workers as real processes, over a real PostgreSQL and a real Redis: what they promise, and what
//! they do when something dies. The tests write what the API would write, and look at what comes of it.

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
