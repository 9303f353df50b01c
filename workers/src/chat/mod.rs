//! The chat role: counts actions and publishes events, each once and in order.
//!
//! A project belongs to a shard, and a lease assigns each shard to one worker at a time; the workers
//! [divide](crate::shards) the shards evenly. A new owner first handles the entries that its predecessor left pending,
//! oldest first, and then reads new ones. For each batch it counts the actions in PostgreSQL, above a cursor that
//! prevents double counting. Then one script publishes, acknowledges and deletes the entries atomically, and only while
//! the worker still owns the lease. An owner that was paused past its lease therefore changes nothing: its entries are
//! below the cursor, and the script rejects its token.

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
    let probed = database.clone();
    let is_healthy = move || {
        let database = probed.clone();
        async move { database.ping().await.is_ok() }
    };
    let slots = Slots::spawn("chat", CHAT_SHARDS, redis, process, is_healthy, shutdown);
    for number in 0..CHAT_SHARDS {
        let shard = shard::Shard::new(number, database.clone(), redis.clone(), slots.clone(), process);
        shutdown.spawn_critical("chat shard", shard.run(shutdown.draining().clone()));
    }
}
