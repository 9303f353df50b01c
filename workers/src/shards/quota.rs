//! Calculates how many shards a process should own.

/// Divides the shards evenly among the live processes. The first processes by name each take one of the remaining
/// shards. Returns zero for a process that is not in the list.
pub(super) fn quota(shards: u16, live: &[String], owner: &str) -> u16 {
    let Ok(processes @ 1..) = u16::try_from(live.len()) else { return 0 };
    if !live.iter().any(|name| name == owner) {
        return 0;
    }
    let rank = live.iter().filter(|name| name.as_str() < owner).count();
    shards / processes + u16::from(rank < usize::from(shards % processes))
}

#[cfg(test)]
mod tests {
    use super::quota;

    #[test]
    fn all_shards_are_divided_evenly_among_any_number_of_processes() {
        for processes in 1..20 {
            let live: Vec<String> = (0..processes).rev().map(|process| format!("worker-{process}")).collect();
            let quotas: Vec<u16> = live.iter().map(|owner| quota(8, &live, owner)).collect();
            assert_eq!(quotas.iter().sum::<u16>(), 8, "{quotas:?}");
            assert!(
                quotas.iter().max().zip(quotas.iter().min()).is_some_and(|(most, least)| most - least <= 1)
            );
        }
    }

    #[test]
    fn a_process_that_is_not_listed_gets_no_shards() {
        assert_eq!(quota(8, &[], "worker"), 0);
        assert_eq!(quota(8, &["another".to_owned()], "worker"), 0);
    }
}
