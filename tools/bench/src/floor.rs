//! How fast the stores themselves are: nothing that Atrium does with them can be faster.

use std::time::Instant;

use atrium_harness::Atrium;
use futures_util::future::try_join_all;
use sqlx::{Connection as _, PgConnection};

const CONNECTIONS: usize = 16;
const TRANSACTIONS: usize = 400;
const BATCH: usize = 200;
const BATCHES: usize = 200;

/// Transactions per second that insert one row and change one, over 16 concurrent connections, as the owner: without
/// the tenant wall.
pub(crate) async fn transactions(atrium: &Atrium) -> anyhow::Result<f64> {
    let mut setup = atrium.superuser().await;
    sqlx::raw_sql(
        "CREATE UNLOGGED TABLE IF NOT EXISTS bench_rows (id bigint PRIMARY KEY, done boolean);
                   ALTER TABLE bench_rows SET LOGGED; TRUNCATE bench_rows",
    )
    .execute(&mut setup)
    .await?;
    let mut connections: Vec<PgConnection> = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(atrium.superuser().await);
    }
    let begun = Instant::now();
    try_join_all(connections.into_iter().enumerate().map(|(worker, mut connection)| async move {
        for turn in 0..TRANSACTIONS {
            let id = i64::try_from(worker * TRANSACTIONS + turn)?;
            let mut tx = connection.begin().await?;
            sqlx::query("INSERT INTO bench_rows VALUES ($1, false)").bind(id).execute(&mut *tx).await?;
            sqlx::query("UPDATE bench_rows SET done = true WHERE id = $1").bind(id).execute(&mut *tx).await?;
            tx.commit().await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok((CONNECTIONS * TRANSACTIONS) as f64 / begun.elapsed().as_secs_f64())
}

/// Entries a second that one connection adds to a stream, in pipelines as long as a relay's batch.
pub(crate) async fn stream_entries(atrium: &Atrium) -> anyhow::Result<f64> {
    let mut redis = atrium.redis_connection().await;
    let begun = Instant::now();
    for _ in 0..BATCHES {
        let mut pipe = redis::pipe();
        for _ in 0..BATCH {
            pipe.xadd("bench", "*", &[("message", "0123456789abcdef"), ("payload", "{\"revision\":1}")])
                .ignore();
        }
        pipe.query_async::<()>(&mut redis).await?;
    }
    let rate = (BATCHES * BATCH) as f64 / begun.elapsed().as_secs_f64();
    let _: () = redis::AsyncCommands::del(&mut redis, "bench").await?;
    Ok(rate)
}
