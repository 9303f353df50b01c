//! The relay: takes messages from the outbox to the streams.
//!
//! It may publish a message twice, never skip one, and keeps the order within an aggregate. The outbox is cut into
//! shards by aggregate, and a shard has one owner at a time, by a [lease](lease) in PostgreSQL with a fencing token;
//! the relays [divide](crate::shards) the shards evenly.
//!
//! A batch is a transaction that holds the lease's row. A relay that stops in its middle (SIGSTOP, a lost network) is
//! ended by its role's idle-in-transaction limit, and the shard goes to another. When it comes back, Redis
//! [refuses](fenced) what it still wanted to add, because its token is no longer the highest.

mod fenced;
mod lease;
mod liveness;
mod publish;
mod shard;
mod sweep;
mod wake;

use std::sync::Arc;

use atrium_shared::{
    db::in_time,
    lifecycle::Shutdown,
    streams::{RELAY_SHARDS, Redis},
};
use sqlx::PgPool;
use tokio::sync::Notify;

use self::shard::Shard;
use crate::shards::Slots;

/// Connections to PostgreSQL: for the listener, for a few batches and sweeps at once. Shards take turns.
pub(crate) const CONNECTIONS: u32 = 5;

pub(crate) fn spawn(outbox: &PgPool, redis: &Redis, process: &str, shutdown: &Shutdown) {
    let looked_at = outbox.clone();
    let is_healthy = move || {
        let pool = looked_at.clone();
        async move { in_time(sqlx::query_scalar!("SELECT 1").fetch_one(&pool)).await.is_ok() }
    };
    let slots = Slots::spawn("relay", RELAY_SHARDS, redis, process, is_healthy, shutdown);
    let news: Vec<Arc<Notify>> = (0..RELAY_SHARDS).map(|_| Arc::default()).collect();
    for (number, news) in (0..RELAY_SHARDS).zip(&news) {
        let shard = Shard::new(number, outbox.clone(), redis.clone(), slots.clone(), Arc::clone(news));
        shutdown.spawn_critical("relay shard", shard.run(shutdown.draining().clone()));
    }
    shutdown.spawn_critical("relay wake", wake::run(outbox.clone(), news, shutdown.draining().clone()));
}
