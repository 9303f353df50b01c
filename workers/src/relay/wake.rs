//! Wakes the shards that have something to publish, when a commit is announced. A hint that may be lost: each shard
//! looks by itself now and then.

use std::{sync::Arc, time::Duration};

use atrium_shared::db::{OUTBOX_CHANNEL, in_time};
use sqlx::{
    PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The connection is checked after this time without a notification.
const QUIET: Duration = Duration::from_secs(5);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

pub(super) async fn run(pool: PgPool, news: Vec<Arc<Notify>>, stop: CancellationToken) -> anyhow::Result<()> {
    while let Some(ended) = stop.run_until_cancelled(listen(&pool, &news)).await {
        if let Err(error) = ended {
            tracing::debug!(%error, "nobody says when there is something to publish; the shards look by themselves");
        }
        let _ = stop.run_until_cancelled(tokio::time::sleep(PAUSE_AFTER_FAILURE)).await;
    }
    Ok(())
}

async fn listen(pool: &PgPool, news: &[Arc<Notify>]) -> Result<(), sqlx::Error> {
    // A connection of its own: a dead one would never be returned to the pool.
    let alone = PgPoolOptions::new().max_connections(1).connect_lazy_with((*pool.connect_options()).clone());
    let mut listener = in_time(PgListener::connect_with(&alone)).await?;
    in_time(listener.listen(OUTBOX_CHANNEL)).await?;
    loop {
        match tokio::time::timeout(QUIET, listener.recv()).await {
            Ok(announced) => drop(announced?),
            Err(_) => {
                // Nothing is announced, or the connection is dead.
                in_time(sqlx::query_scalar!("SELECT 1").fetch_one(&mut listener)).await?;
                continue;
            }
        }
        // One query covers everything announced before it.
        while listener.next_buffered().is_some() {}
        let due = sqlx::query_scalar!(
            r#"SELECT number AS "number!" FROM generate_series(0, $1) AS number
              WHERE EXISTS (SELECT FROM outbox WHERE shard = number AND published_at IS NULL
                               AND consumed_at IS NULL AND dead_at IS NULL AND available_at IS NULL)"#,
            i32::try_from(news.len()).unwrap_or(i32::MAX) - 1
        )
        .fetch_all(pool);
        let due: Vec<i32> = in_time(due).await?;
        for shard in due.into_iter().filter_map(|shard| news.get(usize::try_from(shard).ok()?)) {
            shard.notify_one();
        }
    }
}
