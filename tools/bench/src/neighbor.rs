//! How much one tenant at ten times its quota slows the others down: their latencies without it and with it, in turns
//! so short that other load on the machine affects both.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use atrium_harness::{Atrium, client::Client, guest::Guest};
use serde_json::json;

use crate::percentiles::percentile;

const TURNS: usize = 60;
/// Requests of the quiet tenants in a turn of either kind.
const SAMPLES: usize = 200;
/// The noisy tenant's quota of requests a minute; it sends ten times as much.
const QUOTA: u64 = 1_200;

pub(crate) async fn measure() -> anyhow::Result<()> {
    let atrium =
        Atrium::builder().default_value("limits.requests_per_minute", json!(1_000_000)).start().await;
    // Without the contract: its checks would dominate the latency.
    let plain = |guest: &Guest| Client::new(atrium.url()).bearer(guest.client.token().unwrap_or_default());
    let (noisy, quiet) = (atrium.guest().await, atrium.guest().await);
    let (loud, calm) = (noisy.organization("Noisy").await?, quiet.organization("Quiet").await?);
    atrium.set_for(&loud, "quotas.requests_per_minute", json!(QUOTA)).await;
    let (loud, calm) = (format!("/v1/orgs/{loud}"), format!("/v1/orgs/{calm}"));
    let (noisy, quiet) = (plain(&noisy), plain(&quiet));

    let noise = Arc::new(AtomicBool::new(true));
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
    // Its burst is used up first: the measured tenant is over its quota.
    while refused.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let mut took = [Vec::new(), Vec::new()];
    for turn in 0..TURNS * 2 {
        let beside = turn % 2;
        noise.store(beside == 1, Ordering::Relaxed);
        for _ in 0..SAMPLES {
            let begun = Instant::now();
            let reply = quiet.get(calm.as_str()).send().await?;
            anyhow::ensure!(reply.code() == 200, "a quiet tenant was refused: {}", reply.describe());
            took[beside].push(begun.elapsed().as_secs_f64() * 1000.0);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let [alone, beside] = &mut took;
    for part in [0.5, 0.99] {
        let (alone, beside) = (percentile(alone, part), percentile(beside, part));
        println!(
            "neighbor, p{:.0} of the others: {alone:.2} ms alone, {beside:.2} ms beside a tenant at ten times its quota, {:.2} of it",
            part * 100.0,
            beside / alone
        );
    }
    let (sent, refused) = (sent.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
    println!("neighbor: {refused} of {sent} noisy requests refused");
    Ok(())
}
