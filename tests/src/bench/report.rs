//! What every bench reports: rows with their goals, notes, and what went wrong; as JSON and as a table.
//!
//! Never fails for a time: a goal is printed beside a value.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The figures.
    pub rows: Vec<Row>,
    /// What to know about them.
    pub notes: Vec<String>,
    /// Every verdict that was not as it should be.
    pub wrong: Vec<String>,
    /// A second view for a person, under the figures; empty for none.
    #[serde(skip)]
    pub(super) beside: String,
}

/// A figure.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Its name; those of DESIGN.md section 10 are among them.
    pub name: String,
    /// The median over the rounds.
    pub value: f64,
    /// The unit; empty for a ratio.
    pub unit: &'static str,
    /// What it should be, if anything: `>= 0.7`.
    pub goal: Option<String>,
    /// How many rounds it is the median of.
    pub rounds: usize,
    /// The least of them.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

/// A figure's name, or with a `*` before it how the names of several end, and what it should be.
pub(super) type Goal = (&'static str, &'static str);

/// Collects rows.
pub(super) struct Rows {
    goals: &'static [Goal],
    rows: Vec<Row>,
}

impl Rows {
    pub(super) fn new(goals: &'static [Goal]) -> Self {
        Self { goals, rows: Vec::new() }
    }

    /// A figure from the values of the rounds; without values there is none.
    pub(super) fn put(&mut self, name: &str, unit: &'static str, values: Vec<f64>) {
        if values.is_empty() {
            return;
        }
        let values = sorted(values);
        let is_for = |of: &str| of.strip_prefix('*').map_or(of == name, |end| name.ends_with(end));
        let goal = self.goals.iter().find(|(of, _)| is_for(of)).map(|(_, goal)| (*goal).to_owned());
        let (low, high) = (round(values[0]), round(values[values.len() - 1]));
        let value = round(median(&values));
        self.rows.push(Row { name: name.to_owned(), value, unit, goal, rounds: values.len(), low, high });
    }

    pub(super) fn rows(self) -> Vec<Row> {
        self.rows
    }
}

impl Report {
    /// The report for a person.
    #[must_use]
    pub fn table(&self) -> String {
        let mut figures = table();
        figures.set_header(["figure", "median", "least", "most", "", "goal", "rounds"]);
        for row in &self.rows {
            figures.add_row([
                row.name.clone(),
                row.value.to_string(),
                row.low.to_string(),
                row.high.to_string(),
                row.unit.to_owned(),
                row.goal.clone().unwrap_or_default(),
                row.rounds.to_string(),
            ]);
        }
        for column in 1..=3 {
            if let Some(column) = figures.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = format!("{figures}\n\n");
        if !self.beside.is_empty() {
            text.push_str(&format!("{}\n", self.beside));
        }
        for note in &self.notes {
            text.push_str(&format!("- {note}\n"));
        }
        for wrong in &self.wrong {
            text.push_str(&format!("WRONG: {wrong}\n"));
        }
        text
    }
}

/// A table in the form that all have.
pub(super) fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Round by round, one figure as a part of another.
pub(super) fn quotients(of: &[f64], by: &[f64]) -> Vec<f64> {
    of.iter().zip(by).map(|(of, by)| of / by).collect()
}

pub(super) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The middle of values in order; of an even number the mean of the two in the middle.
pub(super) fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => (sorted[length / 2 - 1] + sorted[length / 2]) / 2.0,
    }
}

/// The value that so many in a hundred do not exceed.
pub(super) fn percentile(values: &[f64], percent: usize) -> f64 {
    let sorted = sorted(values.to_vec());
    sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Three digits behind the point: more would be noise.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!((percentile(&values, 99), percentile(&values[..1], 99)), (198.0, 200.0));
    }

    #[test]
    fn a_row_has_its_goal_and_its_spread() {
        let mut rows = Rows::new(&[("vs_nftables", ">= 8")]);
        rows.put("vs_nftables", "", vec![9.0, 7.0, 8.0]);
        let row = &rows.rows()[0];
        assert_eq!((row.value, row.low, row.high, row.rounds), (8.0, 7.0, 9.0, 3));
        assert_eq!(row.goal.as_deref(), Some(">= 8"));
    }

    #[test]
    fn a_goal_may_be_for_all_rows_whose_names_end_alike() {
        let mut rows = Rows::new(&[("*_slower_ms", "<= 1")]);
        for name in ["a_slower_ms", "b_slower_ms", "slower"] {
            rows.put(name, "ms", vec![0.0]);
        }
        let goals: Vec<_> = rows.rows().into_iter().map(|row| row.goal.is_some()).collect();
        assert_eq!(goals, [true, true, false]);
    }
}
