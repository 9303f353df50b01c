//! Percentiles of what was measured.

/// The value below which this part of the values lies, by nearest rank; 0 when there are none.
pub(crate) fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (values.len() as f64 * part).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
