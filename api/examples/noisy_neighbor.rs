//! How much one tenant at ten times its quota slows the others: their latencies without it and beside it, in turns.
//!
//! `cargo build --release --workspace --bins && cargo run --release --bin atrium-devstack -- exec -- cargo run --release -p atrium-api --example noisy_neighbor`

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use atrium_devstack::{actors::Guest, client::Client, testing::Atrium};
use serde_json::json;

const ROUNDS: usize = 5;
/// Requests of the quiet tenants in each half of a round.
const SAMPLES: usize = 2_000;
/// What the noisy tenant may send a minute; it sends ten times as much.
const QUOTA: u64 = 1_200;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a measurement answers on standard output")]
async fn main() -> anyhow::Result<()> {
    let atrium =
        Atrium::builder().default_value("limits.requests_per_minute", json!(1_000_000)).start().await;
    // Without the contract: its checks would be the latency.
    let plain = |guest: &Guest| Client::new(atrium.url()).bearer(guest.client.token().unwrap_or_default());
    let (noisy, quiet) = (atrium.guest().await, atrium.guest().await);
    let (loud, calm) = (noisy.organization("Noisy").await?, quiet.organization("Quiet").await?);
    atrium.set_for(&loud, "quotas.requests_per_minute", json!(QUOTA)).await;
    let (loud, calm) = (format!("/v1/orgs/{loud}"), format!("/v1/orgs/{calm}"));
    let (noisy, quiet) = (plain(&noisy), plain(&quiet));

    let noise = Arc::new(AtomicBool::new(false));
    let (sent, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    tokio::spawn({
        let (noise, sent, refused) = (Arc::clone(&noise), Arc::clone(&sent), Arc::clone(&refused));
        async move {
            let mut ticks = tokio::time::interval(Duration::from_micros(60_000_000 / (QUOTA * 10)));
            loop {
                ticks.tick().await;
                if !noise.load(Ordering::Relaxed) {
                    continue;
                }
                sent.fetch_add(1, Ordering::Relaxed);
                let (request, refused) = (noisy.get(loud.as_str()), Arc::clone(&refused));
                tokio::spawn(async move {
                    let answer = request.send().await;
                    let over = answer.is_ok_and(|reply| reply.code() == 429);
                    refused.fetch_add(u64::from(over), Ordering::Relaxed);
                });
            }
        }
    });

    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let mut percentiles = [Duration::ZERO; 2];
        for (beside, percentile) in percentiles.iter_mut().enumerate() {
            noise.store(beside == 1, Ordering::Relaxed);
            let mut took = Vec::with_capacity(SAMPLES);
            for _ in 0..SAMPLES {
                let begun = Instant::now();
                let reply = quiet.get(calm.as_str()).send().await?;
                anyhow::ensure!(reply.code() == 200, "a quiet tenant was refused: {}", reply.describe());
                took.push(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            took.sort_unstable();
            *percentile = took[SAMPLES * 99 / 100];
        }
        let ratio = percentiles[1].as_secs_f64() / percentiles[0].as_secs_f64();
        println!(
            "round {round}: p99 {:?} alone, {:?} beside the noise, {ratio:.2}",
            percentiles[0], percentiles[1]
        );
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let (sent, refused) = (sent.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    println!(
        "p99 of the others: {:.2} of what it is alone (median); {refused} of {sent} noisy requests refused",
        ratios[ROUNDS / 2]
    );
    Ok(())
}
