//! Two latencies: until others see a press, and until a configuration change is applied everywhere.

use std::time::Duration;

use anyhow::Context as _;
use atrium_harness::latency::summary;
use serde_json::json;

use super::step::Tour;
use super::steps::{CAP, Created};
use super::window::{press, watched};

impl Tour {
    /// Measures this many of each, one after the other.
    pub(super) async fn measure(&self, created: Created, rounds: u32) -> anyhow::Result<()> {
        let Created { org, project, admin, member } = created;
        self.step(&format!("{rounds} presses, each received on two streams"), async {
            let mut presser = watched(&member, &org, &project).await?;
            let mut other = watched(&admin, &org, &project).await?;
            let mut took = Vec::new();
            for _ in 0..rounds {
                took.extend(press(&member, "thumbs_up", [&mut presser, &mut other]).await?.took);
            }
            Ok(((), format!("press to event: {}", summary(took))))
        })
        .await?;
        self.step(&format!("{rounds} configuration changes"), async {
            let mut took = Vec::new();
            for round in 0..rounds {
                let value = json!(1 + (round + 1) % 2);
                let reply = admin.configure(&org, CAP, value, "a measurement").await?;
                let revision = reply.json()["revision"].as_i64().context("expected a revision")?;
                let rollout = self.rolled_out(&admin, &org, revision).await?;
                let lags = rollout.lags.iter().filter_map(|(_, lag)| *lag);
                took.extend(lags.map(|milliseconds| Duration::from_secs_f64(milliseconds / 1000.0)));
            }
            Ok(((), format!("commit to applied: {}", summary(took))))
        })
        .await
    }
}
