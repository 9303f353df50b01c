//! Latencies in one line, for a person.

use std::time::Duration;

use crate::screen::readable;

/// p50, p99 and the longest, for a person.
#[must_use]
pub fn summary(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let Some(longest) = took.last() else {
        return "nothing measured".to_owned();
    };
    let at = |part| readable(percentile(&took, part));
    format!("p50 {}, p99 {}, max {} (n = {})", at(50), at(99), readable(*longest), took.len())
}

/// The smallest value that this percentage of the values does not exceed.
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
    fn without_values_there_is_no_percentile() {
        assert_eq!(summary(Vec::new()), "nothing measured");
    }
}
