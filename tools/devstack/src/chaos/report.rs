//! What came of all rounds: the table of fault × crash point, and every violation with what plays it again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use atrium_shared::crash_point::CrashPoint;

use super::lane::Played;
use super::plan::Fault;

/// Of one pair.
#[derive(Clone, Copy, Default)]
struct Cell {
    rounds: u32,
    reached: u32,
    violations: u32,
}

#[derive(Default)]
pub(super) struct Report {
    cells: BTreeMap<(Fault, &'static str), Cell>,
    rounds: u32,
    reached: u32,
    violated: Vec<String>,
    longest: Duration,
}

impl Report {
    pub(super) fn add(&mut self, played: &Played) {
        let cell = self.cells.entry((played.plan.fault, played.plan.point.name())).or_default();
        cell.rounds += 1;
        cell.reached += u32::from(played.reached);
        self.rounds += 1;
        self.reached += u32::from(played.reached);
        self.longest = self.longest.max(played.took);
        if !played.violations.is_empty() {
            cell.violations += 1;
            self.violated.push(played.plan.to_string());
        }
    }

    /// A violation that shows only when a lane ends.
    pub(super) fn add_late(&mut self, violation: &str) {
        self.violated.push(violation.to_owned());
    }

    pub(super) fn is_clean(&self) -> bool {
        self.violated.is_empty()
    }

    /// In one line.
    pub(super) fn summary(&self) -> String {
        format!(
            "{} rounds, in {} of them somebody stood at the point; {} violated; the longest took {:.1} s",
            self.rounds,
            self.reached,
            self.violated.len(),
            self.longest.as_secs_f64(),
        )
    }

    pub(super) fn violated(&self) -> &[String] {
        &self.violated
    }

    /// As the documentation has it: a row for each point, a column for each fault; in a cell the rounds in which
    /// somebody stood at the point, and after a `!` those that violated something.
    pub(super) fn table(&self) -> String {
        let mut table = String::from("| crash point |");
        for fault in Fault::ALL {
            let _ = write!(table, " {} |", fault.name());
        }
        let _ = write!(table, "\n|---|{}", "---|".repeat(Fault::ALL.len()));
        let had_a_turn = |point: &CrashPoint| self.cells.keys().any(|(_, name)| *name == point.name());
        for point in CrashPoint::ALL.iter().copied().filter(had_a_turn) {
            let _ = write!(table, "\n| `{}` |", point.name());
            for fault in Fault::ALL {
                let cell = self.cells.get(&(*fault, point.name())).copied().unwrap_or_default();
                let _ = match cell.violations {
                    0 => write!(table, " {} |", cell.reached),
                    violations => write!(table, " {}!{violations} |", cell.reached),
                };
            }
        }
        table
    }
}
