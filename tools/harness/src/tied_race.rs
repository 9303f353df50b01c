//! Races that either side can win.
//!
//! A fixed pause in a test makes a race only on the machine where it was measured: on a faster one the same side wins
//! every time. Here the first side starts later after each round that it won, and earlier after each round that it
//! lost, in steps that double until the other side wins. So both sides come to win, however fast the machine is.

use std::time::Duration;

/// The first step, and the one after each change of winners, in milliseconds: what the runtime's timers can tell apart.
const STEP: i64 = 1;
/// The longest step, so that no round adds minutes.
const MAX_STEP: i64 = 1_000;

/// The rounds of a race between two sides. In the first round, both start at the same time.
#[derive(Debug, Default)]
pub struct TiedRace {
    /// By how many milliseconds the first side starts later; negative: earlier.
    delay: i64,
    step: i64,
    won: u32,
    lost: u32,
    won_last: Option<bool>,
}

impl TiedRace {
    /// One round: runs both sides to completion.
    pub async fn run<O, T>(&self, first: impl Future<Output = O>, second: impl Future<Output = T>) -> (O, T) {
        let pause = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        tokio::join!(
            async {
                tokio::time::sleep(pause(self.delay)).await;
                first.await
            },
            async {
                tokio::time::sleep(pause(-self.delay)).await;
                second.await
            }
        )
    }

    /// Records how the turn ended.
    pub fn ended(&mut self, first_won: bool) {
        let same = self.won_last.replace(first_won).is_none_or(|before| before == first_won);
        self.step = if same { (self.step * 2).clamp(STEP, MAX_STEP) } else { STEP };
        if first_won {
            self.won += 1;
            self.delay += self.step;
        } else {
            self.lost += 1;
            self.delay -= self.step;
        }
    }

    /// Fails unless each side has won.
    ///
    /// # Panics
    /// When one side won every turn.
    #[track_caller]
    pub fn was_open(&self) {
        let Self { won, lost, delay, .. } = self;
        assert!(
            *won > 0 && *lost > 0,
            "won {won}, lost {lost}, at last with a delay of {delay} ms: that was no race"
        );
    }
}
