//! The two numbers that matter to people: how soon others see a press, how soon a change holds everywhere.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::Tour;
use super::steps::{CAP, Visit};
use super::window::{press, watched};
use crate::screen::spoken;

impl Tour {
    /// Measures so many of each, one after the other.
    pub(super) async fn measure(&self, visit: Visit, rounds: u32) -> anyhow::Result<()> {
        let Visit { org, project, admin, member } = visit;
        self.step(&format!("{rounds} presses, each seen on two streams"), async {
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

/// p50, p99 and the longest, for a person.
#[must_use]
pub fn summary(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let Some(longest) = took.last() else {
        return "nothing measured".to_owned();
    };
    let at = |part| spoken(percentile(&took, part));
    format!("p50 {}, p99 {}, max {} (n = {})", at(50), at(99), spoken(*longest), took.len())
}

/// The smallest value that so many percent do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{percentile, summary};

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let sorted: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&sorted, 50), Duration::from_millis(100));
        assert_eq!(percentile(&sorted, 99), Duration::from_millis(198));
        assert_eq!(percentile(&sorted[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(summary(Vec::new()), "nothing measured");
    }
}
