//! The result of all rounds: a table of fault × crash point, and every violation with what repeats it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use atrium_shared::crash_point::CrashPoint;

use crate::plan::Fault;
use crate::runner::RoundResult;

/// The rounds of one pair of fault and crash point.
#[derive(Clone, Copy, Default)]
struct Cell {
    rounds: u32,
    reached: u32,
    violations: u32,
}

#[derive(Default)]
pub(crate) struct Report {
    cells: BTreeMap<(Fault, &'static str), Cell>,
    rounds: u32,
    reached: u32,
    violated: Vec<String>,
    longest: Duration,
}

impl Report {
    pub(crate) fn add(&mut self, result: &RoundResult) {
        let cell = self.cells.entry((result.plan.fault, result.plan.point.name())).or_default();
        cell.rounds += 1;
        cell.reached += u32::from(result.reached);
        self.rounds += 1;
        self.reached += u32::from(result.reached);
        self.longest = self.longest.max(result.took);
        if !result.violations.is_empty() {
            cell.violations += 1;
            self.violated.push(result.plan.to_string());
        }
    }

    /// A violation that shows only when a runner ends.
    pub(crate) fn add_late(&mut self, violation: &str) {
        self.violated.push(violation.to_owned());
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.violated.is_empty()
    }

    /// The totals, in one line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} rounds, the crash point was reached in {}; {} violated; the longest took {:.1} s",
            self.rounds,
            self.reached,
            self.violated.len(),
            self.longest.as_secs_f64(),
        )
    }

    pub(crate) fn violated(&self) -> &[String] {
        &self.violated
    }

    /// The table of `docs/reliability.md`: a row for each point, a column for each fault; a cell counts the rounds in
    /// which the point was reached and, after a `!`, those that violated something.
    pub(crate) fn table(&self) -> String {
        let mut table = String::from("| crash point |");
        for fault in Fault::ALL {
            let _ = write!(table, " {} |", fault.name());
        }
        let _ = write!(table, "\n|---|{}", "---|".repeat(Fault::ALL.len()));
        let was_drawn = |point: &CrashPoint| self.cells.keys().any(|(_, name)| *name == point.name());
        for point in CrashPoint::ALL.iter().copied().filter(was_drawn) {
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
