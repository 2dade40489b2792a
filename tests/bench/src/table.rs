//! What came out, as one table.

use std::fmt;

/// What was measured once in each round, and what it is compared with.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Vec<f64>,
    pub(crate) reference: Reference,
    pub(crate) goal: Goal,
}

/// What ours is divided by, round by round.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<f64>,
}

/// What the median of the ratios has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// To be looked at.
    None,
}

/// The middle, and the ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    min: f64,
    max: f64,
}

impl Row {
    /// Against a reference that was measured in the same rounds.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, goal: Goal) -> Self {
        let reference = Reference { name: "", values: Vec::new() };
        Self { name: name.into(), unit, ours: Vec::new(), reference, goal }
    }

    /// Names what it is compared with.
    pub(crate) fn against(mut self, name: &'static str) -> Self {
        self.reference.name = name;
        self
    }

    /// Adds a round.
    pub(crate) fn push(&mut self, ours: f64, reference: f64) {
        self.ours.push(ours);
        self.reference.values.push(reference);
    }

    pub(crate) fn ratio(&self) -> Spread {
        let ratios = self.ours.iter().zip(&self.reference.values).map(|(ours, reference)| ours / reference);
        Spread::of(ratios)
    }

    pub(crate) fn is_met(&self) -> bool {
        let median = self.ratio().median;
        match self.goal {
            Goal::AtLeast(goal) => median >= goal,
            Goal::AtMost(goal) => median <= goal,
            Goal::None => true,
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.goal, self.is_met()) {
            (Goal::None, _) => "",
            (_, true) => "met",
            (_, false) => "NOT MET",
        }
    }

    fn cells(&self) -> [String; 7] {
        let spread = |values: &[f64]| Spread::of(values.iter().copied()).to_string();
        [
            self.name.clone(),
            format!("{} {}", spread(&self.ours), self.unit),
            self.reference.name.to_owned(),
            format!("{} {}", spread(&self.reference.values), self.unit),
            self.ratio().to_string(),
            self.goal.to_string(),
            self.verdict().to_owned(),
        ]
    }
}

impl Spread {
    /// Of no values at all, there is none: NaN, which meets no goal.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self { median: f64::midpoint(at(last / 2), at(last.div_ceil(2))), min: at(0), max: at(last) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} to {})", short(self.median), short(self.min), short(self.max))
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, ">= {}", short(*goal)),
            Self::AtMost(goal) => write!(f, "<= {}", short(*goal)),
            Self::None => Ok(()),
        }
    }
}

/// Three digits that matter.
fn short(value: f64) -> String {
    match value.abs() {
        at if at >= 100.0 => format!("{value:.0}"),
        at if at >= 10.0 => format!("{value:.1}"),
        at if at >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// All rows below each other, in Markdown, which can be read as it is.
pub(crate) fn print(rows: &[Row]) {
    const HEADS: [&str; 7] = ["what", "ours", "against", "reference", "ratio", "goal", ""];
    let mut lines = vec![HEADS.map(str::to_owned)];
    lines.extend(rows.iter().map(Row::cells));
    let mut widths = [0; 7];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    lines.insert(1, widths.map(|width| "-".repeat(width)));
    println!("Median (least to most) of the rounds.\n");
    for line in lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("| {cell:width$} "));
        println!("{}|", cells.collect::<String>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(goal: Goal, rounds: [(f64, f64); 3]) -> Row {
        let mut row = Row::new("a row", "1/s", goal);
        rounds.into_iter().for_each(|(ours, reference)| row.push(ours, reference));
        row
    }

    #[test]
    fn ratios_are_made_within_each_round_and_not_of_the_medians() {
        // The machine was ten times slower in the second round.
        let row = row(Goal::None, [(20.0, 10.0), (3.0, 1.0), (40.0, 10.0)]);
        assert_eq!(row.ratio(), Spread { median: 3.0, min: 2.0, max: 4.0 });
    }

    #[test]
    fn the_median_decides_whether_a_goal_is_met() {
        let rounds = [(1.0, 2.0), (2.0, 2.0), (9.0, 2.0)];
        assert!(row(Goal::AtLeast(1.0), rounds).is_met());
        assert!(!row(Goal::AtLeast(1.1), rounds).is_met());
        assert!(row(Goal::AtMost(1.0), rounds).is_met());
        assert!(!row(Goal::AtMost(0.9), rounds).is_met());
    }

    #[test]
    fn what_was_not_measured_meets_no_goal() {
        assert!(!Row::new("nothing", "1/s", Goal::AtLeast(0.0)).is_met());
        assert!(!Row::new("nothing", "1/s", Goal::AtMost(9.0)).is_met());
    }

    #[test]
    fn of_an_even_number_the_median_is_in_the_middle() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    }
}
