//! Measures how long a sign-out takes to apply: to the next request on each of three API processes, and to a stream on
//! each.
//!
//! `cargo run --bin atrium-devstack -- exec -- cargo run -p atrium-bench --example revocation -- 100`

use std::time::{Duration, Instant};

use anyhow::Context as _;
use atrium_harness::{Atrium, client::Client, latency::summary};
use tokio::task::JoinSet;

const APIS: usize = 3;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a measurement prints to standard output")]
async fn main() -> anyhow::Result<()> {
    let rounds: u32 =
        std::env::args().nth(1).as_deref().unwrap_or("100").parse().context("rounds: a number")?;
    let atrium = Atrium::builder().apis(APIS).start().await;
    let owner = atrium.guest().await;
    let org = owner.organization("Revocation").await?;
    let events = format!("/v1/orgs/{org}/configs/events");
    let (mut refused, mut ended) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let guest = owner.invite_guest(&org, "viewer").await?;
        let token = guest.client.token().context("a guest has a token")?.to_owned();
        let clients: Vec<Client> = (0..APIS).map(|api| atrium.client_of(api).bearer(&token)).collect();
        let mut streams = Vec::new();
        for client in &clients {
            streams.push(client.events(&events, None).await?);
        }
        // Sign-outs come at any moment between two polls.
        tokio::time::sleep(Duration::from_millis(u64::from(round * 37 % 500))).await;
        let signed_out = Instant::now();
        clients[round as usize % APIS].post("/v1/auth/logout").send().await?.expect_status(204)?;
        let mut waits = JoinSet::new();
        for (client, mut stream) in clients.into_iter().zip(streams) {
            waits.spawn(async move {
                while client.get("/v1/auth/me").send().await?.code() != 401 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                anyhow::Ok((true, signed_out.elapsed()))
            });
            waits.spawn(async move {
                while stream.next().await.is_some() {}
                anyhow::Ok((false, signed_out.elapsed()))
            });
        }
        for wait in waits.join_all().await {
            let (request, took) = wait?;
            if request { refused.push(took) } else { ended.push(took) }
        }
    }
    println!("from sign-out to refused token: {}", summary(refused));
    println!("from sign-out to ended stream: {}", summary(ended));
    Ok(())
}
