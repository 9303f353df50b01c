//! The chat role: counts actions and publishes events, each once and in order.
//!
//! A project belongs to a shard, and a shard to one worker at a time, by a lease; the workers
//! [divide](crate::shards) the shards evenly. The owner takes over what its
//! predecessor left pending, oldest first, and then reads on. Per batch: count in PostgreSQL, behind a cursor that
//! refuses what was counted before; then one script publishes, acknowledges and deletes, atomically, and only while
//! the lease is still ours. An owner that was paused past its lease therefore changes nothing: its counts are below
//! the cursor, and its script is refused.

mod batch;
mod count;
mod interrupted;
mod lease;
mod publish;
mod shard;

use atrium_shared::{
    db::Database,
    lifecycle::Shutdown,
    streams::{CHAT_SHARDS, Redis},
};

use crate::shards::Slots;

pub(crate) fn spawn(database: &Database, redis: &Redis, process: &str, shutdown: &Shutdown) {
    let counts_in = database.clone();
    let is_healthy = move || {
        let database = counts_in.clone();
        async move { database.ping().await.is_ok() }
    };
    let slots = Slots::spawn("chat", CHAT_SHARDS, redis, process, is_healthy, shutdown);
    for number in 0..CHAT_SHARDS {
        let shard = shard::Shard::new(number, database.clone(), redis.clone(), slots.clone(), process);
        shutdown.spawn_critical("chat shard", shard.run(shutdown.draining().clone()));
    }
}
