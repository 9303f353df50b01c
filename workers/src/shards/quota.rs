//! How many shards a process should own.

/// An even part for each live process: if the division leaves a remainder, the first by name get one more. Zero for a
/// process that is not among them.
pub(super) fn quota(shards: u16, living: &[String], owner: &str) -> u16 {
    let Ok(processes @ 1..) = u16::try_from(living.len()) else { return 0 };
    if !living.iter().any(|name| name == owner) {
        return 0;
    }
    let rank = living.iter().filter(|name| name.as_str() < owner).count();
    shards / processes + u16::from(rank < usize::from(shards % processes))
}

#[cfg(test)]
mod tests {
    use super::quota;

    #[test]
    fn however_many_there_are_all_shards_are_divided_evenly() {
        for processes in 1..20 {
            let living: Vec<String> =
                (0..processes).rev().map(|process| format!("worker-{process}")).collect();
            let quotas: Vec<u16> = living.iter().map(|owner| quota(8, &living, owner)).collect();
            assert_eq!(quotas.iter().sum::<u16>(), 8, "{quotas:?}");
            assert!(
                quotas.iter().max().zip(quotas.iter().min()).is_some_and(|(most, least)| most - least <= 1)
            );
        }
    }

    #[test]
    fn a_stranger_gets_nothing() {
        assert_eq!(quota(8, &[], "worker"), 0);
        assert_eq!(quota(8, &["another".to_owned()], "worker"), 0);
    }
}
