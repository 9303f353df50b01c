//! Organizations created a second: from the first request to the last COMMITTED.

use std::time::{Duration, Instant};

use atrium_harness::{Atrium, client::Client};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use crate::floor;

const COUNT: usize = 3_000;
const AT_ONCE: usize = 32;

pub(crate) async fn measure() -> anyhow::Result<()> {
    for workers in [1, 2] {
        let atrium = Atrium::builder()
            .full_workers(workers)
            .default_value("limits.requests_per_minute", json!(1_000_000))
            .start()
            .await;
        let floor = floor::transactions(&atrium).await?;
        let guest = atrium.guest().await;
        let client = Client::new(atrium.url()).bearer(guest.client.token().unwrap_or_default());
        let begun = Instant::now();
        let answers = stream::iter(0..COUNT).map(|number| {
            let request = client.post("/v1/orgs").json(json!({ "name": format!("Acme {number}") }));
            async move { request.send().await }
        });
        let mut answers = answers.buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            let answer = answer?;
            anyhow::ensure!(answer.code() == 202, "refused: {}", answer.describe());
        }
        let accepted = begun.elapsed();
        let mut connection = atrium.superuser().await;
        let count = i64::try_from(COUNT)?;
        loop {
            let (committed, failed): (i64, i64) = sqlx::query_as(
                "SELECT count(*) FILTER (WHERE status = 'COMMITTED'), count(*) FILTER (WHERE status = 'FAILED') FROM sagas",
            )
            .fetch_one(&mut connection)
            .await?;
            anyhow::ensure!(failed == 0, "{failed} sagas failed; the machine is too busy for their deadline");
            if committed == count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took = begun.elapsed();
        let events: i64 =
            sqlx::query_scalar("SELECT count(*) FROM saga_events").fetch_one(&mut connection).await?;
        anyhow::ensure!(events == count * 5, "{events} events of {count} sagas; expected one for each step");
        let rate = COUNT as f64 / took.as_secs_f64();
        println!(
            "sagas, {workers} worker(s): {rate:.0}/s to COMMITTED ({COUNT} accepted in {:.1} s, all committed after {:.1} s); \
             floor {floor:.0} bare transactions/s, which is {:.1} of them per saga",
            accepted.as_secs_f64(),
            took.as_secs_f64(),
            floor / rate,
        );
    }
    Ok(())
}
