//! `atrium-bench`: how fast the write path is, against a floor measured in the same run.
//!
//! `make bench` builds everything optimized, and runs this on private servers. Load, Atrium and its stores share the
//! machine: compare two runs by their ratio to the floor, not by absolute numbers.

#![expect(clippy::print_stdout, reason = "a measurement prints to standard output")]

mod floor;
mod latency;
mod neighbor;
mod percentiles;
mod sagas;
mod throughput;

use clap::{Parser, ValueEnum};

/// Measures the write path.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// What to measure.
    #[arg(value_enum, default_values_t = [Measurement::Sagas, Measurement::Latency, Measurement::Relay, Measurement::Consumers, Measurement::Neighbor])]
    measurements: Vec<Measurement>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Organizations created a second, from the first request to the last commit.
    Sagas,
    /// From the commit of a change to that of its effect.
    Latency,
    /// Rows of the outbox published a second, by 1, 2 and 4 relays.
    Relay,
    /// Messages consumed a second, by 1, 2 and 4 processes.
    Consumers,
    /// How much one tenant at ten times its quota slows the others down.
    Neighbor,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for measurement in Arguments::parse().measurements {
        match measurement {
            Measurement::Sagas => sagas::measure().await?,
            Measurement::Latency => latency::measure().await?,
            Measurement::Relay => throughput::relay().await?,
            Measurement::Consumers => throughput::consumers().await?,
            Measurement::Neighbor => neighbor::measure().await?,
        }
    }
    Ok(())
}
