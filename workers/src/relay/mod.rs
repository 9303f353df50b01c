//! The relay: publishes messages from the outbox to the streams.
//!
//! It may publish a message twice, never skips one, and keeps the order within an aggregate. The outbox is divided into
//! shards by aggregate. A [lease](lease) in PostgreSQL with a fencing token assigns each shard to one owner at a time;
//! the relays [divide](crate::shards) the shards evenly.
//!
//! A batch is a transaction that locks the lease's row. If a relay stops in the middle of one (SIGSTOP, a lost
//! network), the idle-in-transaction limit of its role ends the transaction, and another relay takes the shard. When
//! the first relay resumes, Redis [rejects](fenced) its late entries, because its token is no longer the highest.

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

/// Connections to PostgreSQL: one for the listener, the others for batches and sweeps, which the shards run in turns.
pub(crate) const CONNECTIONS: u32 = 5;

pub(crate) fn spawn(outbox: &PgPool, redis: &Redis, process: &str, shutdown: &Shutdown) {
    let probed = outbox.clone();
    let is_healthy = move || {
        let pool = probed.clone();
        async move { in_time(sqlx::query_scalar!("SELECT 1").fetch_one(&pool)).await.is_ok() }
    };
    let slots = Slots::spawn("relay", RELAY_SHARDS, redis, process, is_healthy, shutdown);
    let wake_ups: Vec<Arc<Notify>> = (0..RELAY_SHARDS).map(|_| Arc::default()).collect();
    for (number, wake_up) in (0..RELAY_SHARDS).zip(&wake_ups) {
        let shard = Shard::new(number, outbox.clone(), redis.clone(), slots.clone(), Arc::clone(wake_up));
        shutdown.spawn_critical("relay shard", shard.run(shutdown.draining().clone()));
    }
    shutdown.spawn_critical("relay wake", wake::run(outbox.clone(), wake_ups, shutdown.draining().clone()));
}
