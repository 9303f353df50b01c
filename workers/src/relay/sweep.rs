//! The sweeper: what was published and not consumed after a while is published again. This is what makes Redis
//! expendable: a flush, an older dump, a trimmed stream, a group made too late all end here.

use std::time::Duration;

use atrium_shared::telemetry::metrics::{OUTBOX_BACKLOG, OUTBOX_REPUBLISHED};
use metrics::{counter, gauge};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(2);

pub(super) async fn run(pool: PgPool, stop: CancellationToken) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(EVERY);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match sweep(&pool).await {
            Ok(0) => {}
            Ok(again) => {
                counter!(OUTBOX_REPUBLISHED).increment(again);
                tracing::warn!(messages = again, "messages were not consumed in time; publishing them again");
            }
            Err(error) => tracing::warn!(%error, "unconsumed messages cannot be looked for; trying again"),
        }
    }
    Ok(())
}

async fn sweep(pool: &PgPool) -> Result<u64, sqlx::Error> {
    // An organization that is deleted takes its messages with it; a dead letter waits for an operator.
    let again = sqlx::query(
        "UPDATE outbox SET published_at = NULL
          WHERE (org_id, id) IN
                (SELECT org_id, id FROM outbox
                  WHERE published_at < clock_timestamp() - interval '10 seconds'
                    AND consumed_at IS NULL AND dead_at IS NULL
                  ORDER BY published_at LIMIT 1000 FOR UPDATE SKIP LOCKED)",
    )
    .execute(pool)
    .await?
    .rows_affected();
    let backlog: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM outbox
          WHERE published_at IS NULL AND dead_at IS NULL
            AND (available_at IS NULL OR available_at <= clock_timestamp())",
    )
    .fetch_one(pool)
    .await?;
    gauge!(OUTBOX_BACKLOG).set(backlog as f64);
    Ok(again)
}
