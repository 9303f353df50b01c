//! The relay: takes messages from the outbox to the streams.
//!
//! It may publish a message twice, never skip one, and keeps the order within an aggregate. One relay works at a
//! time: each batch is a transaction that holds an advisory lock. A relay that stops in the middle (SIGSTOP, a lost
//! network) is ended by its role's idle-in-transaction limit, and the lock goes to the next one.

mod publish;
mod sweep;

use std::time::Duration;

use atrium_shared::{lifecycle::Shutdown, streams::Redis};
use sqlx::{PgPool, postgres::PgListener};

/// The advisory lock of whoever publishes: "relay" in ASCII.
const LEADER_LOCK: i64 = 0x72_656c_6179;
/// How long a message waits at most when the notification that announces it is lost.
const POLL: Duration = Duration::from_millis(500);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);

pub(crate) fn spawn(outbox: &PgPool, redis: &Redis, shutdown: &Shutdown) {
    let (pool, redis, stop) = (outbox.clone(), redis.clone(), shutdown.draining().clone());
    shutdown.spawn_critical("relay", async move {
        let mut listener = None;
        while !stop.is_cancelled() {
            // What stands in the outbox at SIGTERM is published by the next relay; a batch is never cut in half.
            match publish::publish_all(&pool, &redis).await {
                Ok(()) => {
                    let _ = stop.run_until_cancelled(wait_for_news(&mut listener, &pool)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "messages cannot be published; trying again");
                    listener = None;
                    let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE_AFTER_FAILURE)).await;
                }
            }
        }
        Ok(())
    });
    shutdown.spawn_critical("sweeper", sweep::run(outbox.clone(), shutdown.draining().clone()));
}

/// Returns when a commit was announced, or when it is time to look anyway.
async fn wait_for_news(listener: &mut Option<PgListener>, pool: &PgPool) {
    if listener.is_none() {
        *listener = listen(pool).await.ok();
    }
    match listener {
        // An error ends the wait early; the listener connects again by itself.
        Some(listener) => drop(tokio::time::timeout(POLL, listener.recv()).await),
        None => tokio::time::sleep(POLL).await,
    }
}

async fn listen(pool: &PgPool) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(atrium_shared::db::OUTBOX_CHANNEL).await?;
    Ok(listener)
}
