//! From the commit of a change to the commit of its effect, at a rate at which the machine is mostly idle.

use std::time::Duration;

use atrium_harness::Atrium;
use sqlx::PgConnection;

use crate::{percentiles::percentile, throughput};

const CHANGES: usize = 2_000;
const EVERY: Duration = Duration::from_millis(10);

pub(crate) async fn measure() -> anyhow::Result<()> {
    let atrium = Atrium::builder().apis(0).start().await;
    let mut connection = atrium.superuser().await;
    let orgs = throughput::organizations(&mut connection).await?;
    let mut ticks = tokio::time::interval(EVERY);
    for turn in 0..CHANGES {
        ticks.tick().await;
        throughput::add_messages(&mut connection, &orgs[turn % orgs.len()..][..1], 1).await?;
        // As the API does, after the commit.
        sqlx::raw_sql("NOTIFY atrium_outbox").execute(&mut connection).await?;
    }
    throughput::until_none(&mut connection, "consumed_at IS NULL").await?;
    let mut published = milliseconds(&mut connection, "published_at").await?;
    let mut consumed = milliseconds(&mut connection, "consumed_at").await?;
    println!(
        "latency at {:.0} changes/s: published p50 {:.1} ms, p99 {:.1} ms; consumed p50 {:.1} ms, p99 {:.1} ms",
        1.0 / EVERY.as_secs_f64(),
        percentile(&mut published, 0.5),
        percentile(&mut published, 0.99),
        percentile(&mut consumed, 0.5),
        percentile(&mut consumed, 0.99),
    );
    Ok(())
}

/// From the row's creation to the time in `column`, by the database's clock.
async fn milliseconds(connection: &mut PgConnection, column: &'static str) -> anyhow::Result<Vec<f64>> {
    let query = match column {
        "published_at" => "SELECT EXTRACT(EPOCH FROM published_at - created_at)::float8 * 1000 FROM outbox",
        _ => "SELECT EXTRACT(EPOCH FROM consumed_at - created_at)::float8 * 1000 FROM outbox",
    };
    Ok(sqlx::query_scalar(query).fetch_all(connection).await?)
}
