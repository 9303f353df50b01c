//! What happens in a round: drawn from the seed and the round's number alone, so that any round can be repeated.
//!
//! Every pair of fault and crash point is covered: the pairs are shuffled, and each round takes the next one.

use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use atrium_shared::crash_point::CrashPoint;
use atrium_shared::saga::SagaKind;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};

/// The steps of creating an organization, each of which a drill can make fail.
const STEPS: [&str; 4] = ["reserve", "default-configuration", "isolation-gate", "commit"];

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $fault:ident = $name:literal,)*) => {
        /// What is injected while a process is held at a crash point.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Fault {
            $($(#[doc = $doc])* $fault,)*
        }

        impl Fault {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$fault),*];

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => $name,)*
                }
            }
        }
    };
}

faults! {
    /// The process is killed and started again.
    Kill = "kill -9",
    /// The process gets SIGTERM while the task is halted at the point, and is started again.
    Stop = "SIGTERM",
    /// The process is stopped past its leases, and continued.
    Pause = "SIGSTOP, SIGCONT",
    /// The task is held past its leases; the rest of the process continues.
    Hold = "hold the task",
    /// The task is late, but within every lease and limit: its effect still counts.
    Delay = "delay the task",
    /// Every connection to PostgreSQL is closed, and new ones are, for a while.
    CutPostgres = "cut PostgreSQL",
    /// No bytes pass to and from PostgreSQL for a while; then all of them do.
    HangPostgres = "hang PostgreSQL",
    /// Connections to PostgreSQL are half open, one side or the other.
    HalfOpenPostgres = "half-open PostgreSQL",
    /// PostgreSQL is slow.
    SlowPostgres = "slow PostgreSQL",
    /// PostgreSQL ends every connection.
    TerminateBackends = "terminate backends",
    /// PostgreSQL is stopped in an orderly way and started.
    RestartPostgres = "restart PostgreSQL",
    /// PostgreSQL is killed and started.
    KillPostgres = "kill -9 PostgreSQL",
    /// Every connection to Redis is closed, and new ones are, for a while.
    CutRedis = "cut Redis",
    /// No bytes pass to and from Redis for a while; then all of them do.
    HangRedis = "hang Redis",
    /// Connections to Redis are half open, one side or the other.
    HalfOpenRedis = "half-open Redis",
    /// Redis is slow.
    SlowRedis = "slow Redis",
    /// Redis is stopped past the timeouts of its clients, and continued.
    PauseRedis = "SIGSTOP Redis",
    /// Redis forgets everything.
    FlushRedis = "flush Redis",
    /// Redis is killed and started; it still has what it had written.
    RestartRedis = "kill -9 Redis",
    /// Redis is killed and started with the data of the beginning of the round.
    RewindRedis = "rewind Redis",
    /// Redis takes no writes for a while: out of memory.
    FillRedis = "Redis out of memory",
    /// The inbound streams are deleted, while they are read.
    DeleteStreams = "delete the streams",
    /// Every consumer is deleted, with its pending entries.
    DeleteConsumers = "delete the consumers",
    /// The groups are made again at the end of their streams.
    SkipGroups = "groups made at $",
}

impl Fault {
    /// Whether Redis may lose what it accepted: chat actions are stored nowhere else.
    pub(crate) fn loses_redis(self) -> bool {
        matches!(
            self,
            Self::FlushRedis
                | Self::RewindRedis
                | Self::DeleteStreams
                | Self::DeleteConsumers
                | Self::SkipGroups
        )
    }

    /// Whether entries may be left in a stream that no consumer will ever read: their messages are published again as
    /// new entries.
    pub(crate) fn orphans_entries(self) -> bool {
        matches!(self, Self::DeleteConsumers | Self::SkipGroups)
    }
}

/// One round.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) round: u32,
    pub(crate) fault: Fault,
    pub(crate) point: CrashPoint,
    /// The passage of the point at which it happens.
    pub(crate) passage: u32,
    /// How long a fault lasts that has a length.
    pub(crate) length: Duration,
    /// Which side of a half-open connection does not notice its end.
    pub(crate) client_unaware: bool,
    /// The step that fails in this round, if any.
    pub(crate) drill: Option<&'static str>,
    /// The organizations that are created, each with the time after which its deadline is over, if that is not the
    /// usual one.
    pub(crate) creations: Vec<Option<Duration>>,
    /// Whether an organization is deleted.
    pub(crate) deletion: bool,
    /// Changes of the tenant's configuration.
    pub(crate) changes: u32,
    /// Windows of a chat that are opened, each of which closes an older one.
    pub(crate) windows: u32,
    /// The pause between two actions of a chat.
    pub(crate) press_every: Duration,
    /// Whether a message is added that no consumer can handle.
    pub(crate) poison: bool,
}

impl Plan {
    pub(crate) fn draw(seed: u64, round: u32, pairs: &Pairs) -> Self {
        let (fault, point) = pairs.of_round(seed, round);
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(round));
        let name = point.name();
        let dead_letters =
            matches!(point, CrashPoint::ConsumerBeforeDeadLetter | CrashPoint::ConsumerDeadLettered);
        let compensates = name.ends_with("compensation");
        let passage = if dead_letters { 1 } else { rng.random_range(1..=4) };
        let milliseconds =
            |rng: &mut StdRng, from: u64, to: u64| Duration::from_millis(rng.random_range(from..=to));
        Self {
            round,
            fault,
            point,
            passage,
            length: milliseconds(&mut rng, 300, 3_500),
            client_unaware: rng.random(),
            drill: (compensates || rng.random_bool(0.1)).then(|| {
                // A first step that fails leaves nothing to pass twice.
                let steps = if compensates { &STEPS[2..] } else { &STEPS[..] };
                steps.choose(&mut rng).copied().unwrap_or(STEPS[0])
            }),
            creations: (0..rng.random_range(3..=6))
                .map(|_| rng.random_bool(0.3).then(|| milliseconds(&mut rng, 0, 1_500)))
                .collect(),
            deletion: rng.random_bool(0.15),
            changes: rng.random_range(1..=3),
            windows: rng.random_range(0..=2),
            press_every: milliseconds(&mut rng, 5, 60),
            poison: dead_letters || rng.random_bool(0.05),
        }
    }

    /// The drill as the configuration names it.
    pub(crate) fn drill(&self) -> Option<String> {
        self.drill.map(|step| format!("{}/{step}", SagaKind::CreateOrganization))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}: {} at {} ({})", self.round, self.fault.name(), self.point.name(), self.passage)
    }
}

/// The pairs of fault and point that are drawn from: all, or those of one fault or point.
pub(crate) struct Pairs(Vec<(Fault, CrashPoint)>);

impl Pairs {
    pub(crate) fn of(fault: Option<&str>, point: Option<&str>) -> anyhow::Result<Self> {
        let pairs =
            Fault::ALL.iter().flat_map(|fault| CrashPoint::ALL.iter().map(move |point| (*fault, *point)));
        let wanted: Vec<_> = pairs
            .filter(|(known, _)| fault.is_none_or(|fault| known.name() == fault))
            .filter(|(_, known)| point.is_none_or(|point| known.name() == point))
            .collect();
        let names = |names: Vec<&str>| names.join(", ");
        ensure!(
            !wanted.is_empty(),
            "no such fault or point. Faults: {}. Points: {}",
            names(Fault::ALL.iter().map(|fault| fault.name()).collect()),
            names(CrashPoint::ALL.iter().map(|point| point.name()).collect()),
        );
        Ok(Self(wanted))
    }

    /// The pair of a round.
    fn of_round(&self, seed: u64, round: u32) -> (Fault, CrashPoint) {
        let mut pairs = self.0.clone();
        let round = usize::try_from(round).unwrap_or(0);
        let pass = (round / pairs.len()) as u64;
        pairs.shuffle(&mut StdRng::seed_from_u64(seed ^ pass.rotate_left(32)));
        pairs[round % pairs.len()]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{CrashPoint, Fault, Pairs, Plan};

    fn all() -> Pairs {
        Pairs::of(None, None).expect("there are some")
    }

    #[test]
    fn every_pair_is_drawn() {
        let pairs = Fault::ALL.len() * CrashPoint::ALL.len();
        let drawn: HashSet<_> =
            (0..u32::try_from(pairs).expect("few")).map(|round| all().of_round(7, round)).collect();
        assert_eq!(drawn.len(), pairs);
    }

    #[test]
    fn a_filter_selects_one_pair() {
        let pairs = Pairs::of(Some("kill -9"), Some("chat.counted")).expect("it is known");
        assert_eq!(pairs.of_round(1, 5), (Fault::Kill, CrashPoint::ChatCounted));
        assert!(Pairs::of(Some("unknown"), None).is_err());
    }

    #[test]
    fn a_round_is_determined_by_its_seed_and_number() {
        for round in [0, 1, 999] {
            let drawn = format!("{:?}", Plan::draw(3, round, &all()));
            assert_eq!(drawn, format!("{:?}", Plan::draw(3, round, &all())));
            assert_ne!(drawn, format!("{:?}", Plan::draw(4, round, &all())));
        }
    }
}
