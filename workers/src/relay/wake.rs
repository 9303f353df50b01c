//! Wakes the shards that have something to publish when a commit is announced. The notification is a hint that may be
//! lost, because each shard also polls.

use std::{sync::Arc, time::Duration};

use atrium_shared::db::{OUTBOX_CHANNEL, in_time};
use sqlx::{
    PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The connection is checked after this time without a notification.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

pub(super) async fn run(
    pool: PgPool,
    wake_ups: Vec<Arc<Notify>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(result) = stop.run_until_cancelled(listen(&pool, &wake_ups)).await {
        if let Err(error) = result {
            tracing::debug!(%error, "no hints about new messages; the shards poll");
        }
        let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE_AFTER_FAILURE)).await;
    }
    Ok(())
}

async fn listen(pool: &PgPool, wake_ups: &[Arc<Notify>]) -> Result<(), sqlx::Error> {
    // This uses a separate pool of one connection, because a dead connection would never be returned to the shared
    // pool.
    let own_pool =
        PgPoolOptions::new().max_connections(1).connect_lazy_with((*pool.connect_options()).clone());
    let mut listener = in_time(PgListener::connect_with(&own_pool)).await?;
    in_time(listener.listen(OUTBOX_CHANNEL)).await?;
    loop {
        match tokio::time::timeout(CHECK_INTERVAL, listener.recv()).await {
            Ok(notification) => drop(notification?),
            Err(_) => {
                // Nothing was announced, or the connection is dead.
                in_time(sqlx::query_scalar!("SELECT 1").fetch_one(&mut listener)).await?;
                continue;
            }
        }
        // One query covers all notifications received before it.
        while listener.next_buffered().is_some() {}
        let due = sqlx::query_scalar!(
            r#"SELECT number AS "number!" FROM generate_series(0, $1) AS number
              WHERE EXISTS (SELECT FROM outbox WHERE shard = number AND published_at IS NULL
                               AND consumed_at IS NULL AND dead_at IS NULL AND available_at IS NULL)"#,
            i32::try_from(wake_ups.len()).unwrap_or(i32::MAX) - 1
        )
        .fetch_all(pool);
        let due: Vec<i32> = in_time(due).await?;
        for wake_up in due.into_iter().filter_map(|shard| wake_ups.get(usize::try_from(shard).ok()?)) {
            wake_up.notify_one();
        }
    }
}
