//! The rows of the report, their goals, and the table.
//!
//! Never fails for a time: a goal is printed beside a value.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use super::live::{Live, columns};
use super::loops::{Loops, SEGMENTS, STRUCTURES, Warm};
use super::receiver::Filter;
use super::traffic::{Column, Segment};
use super::{Effort, Fills};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The figures.
    pub rows: Vec<Row>,
    /// What to know about them.
    pub notes: Vec<String>,
    /// Every verdict that was not as it should be.
    pub wrong: Vec<String>,
    #[serde(skip)]
    matrix: Vec<Vec<String>>,
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

const LISTED: Column = Column::Syn(Segment::Listed);

/// What is to be reached, with a million IPv4 and a hundred thousand IPv6 prefixes.
const GOALS: [(&str, &str); 9] = [
    ("drop_listed_ratio", ">= 0.7"),
    ("lookup_unlisted_v4_ns", "<= 15"),
    ("lookup_listed_v4_ns", "<= 50"),
    ("lookup_unlisted_v6_ns", "<= 40"),
    ("other_traffic_extra_ns", "<= 5"),
    ("vs_nftables", ">= 8"),
    ("vs_ipset", ">= 5"),
    ("fill_seconds", "<= 0.5"),
    ("fill_mib", "<= 60"),
];

/// The filters, in the order of the table.
const FILTERS: [Filter; 7] = [
    Filter::EmptyDrop,
    Filter::EmptyPass,
    Filter::Ours,
    Filter::XdpTools,
    Filter::Nftables,
    Filter::Ipset,
    Filter::DeadEnd,
];

/// Collects rows.
#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn put(&mut self, name: &str, unit: &'static str, mut values: Vec<f64>) {
        if values.is_empty() {
            return;
        }
        values.sort_unstable_by(f64::total_cmp);
        let goal = GOALS.iter().find(|(of, _)| *of == name).map(|(_, goal)| (*goal).to_owned());
        let (low, high) = (round(values[0]), round(values[values.len() - 1]));
        let value = round(median(&values));
        self.0.push(Row { name: name.to_owned(), value, unit, goal, rounds: values.len(), low, high });
    }
}

/// Makes the report.
pub(super) fn make(
    effort: &Effort,
    live: &Live,
    loops: &Loops,
    warm: &Warm,
    fills: &Fills,
    mut notes: Vec<String>,
) -> Report {
    let mut rows = Rows::default();
    let ratio = |of: Filter, to: Filter, column| quotients(&live.own(of, column), &live.own(to, column));
    rows.put("drop_listed_ratio", "", ratio(Filter::EmptyDrop, Filter::Ours, LISTED));
    for (name, _) in SEGMENTS {
        rows.put(&format!("lookup_{name}_ns"), "ns", loops.ns("", name));
    }
    rows.put("other_traffic_extra_ns", "ns", warm.other_extra.clone());
    rows.put("vs_nftables", "", ratio(Filter::Nftables, Filter::Ours, LISTED));
    rows.put("vs_ipset", "", ratio(Filter::Ipset, Filter::Ours, LISTED));
    rows.put("fill_seconds", "s", vec![fills.ours.fill_seconds.unwrap_or(fills.ours.load_seconds)]);
    rows.put("fill_mib", "MiB", vec![fills.ours.fill_mib]);
    rows.put("load_seconds", "s", vec![fills.ours.load_seconds]);
    if fills.ours.fill_seconds.is_none() {
        notes.push("screener does not say how long it filled: fill_seconds is all of the loading".to_owned());
    }
    for (name, filled) in &fills.others {
        rows.put(&format!("{name}_fill_seconds"), "s", vec![filled.seconds]);
        rows.put(&format!("{name}_fill_mib"), "MiB", vec![filled.mib]);
    }

    let raw = |of: Filter, to: Filter, column| quotients(&live.raw(of, column), &live.raw(to, column));
    rows.put("drop_listed_raw_ratio", "", raw(Filter::EmptyDrop, Filter::Ours, LISTED));
    rows.put("vs_nftables_raw", "", raw(Filter::Nftables, Filter::Ours, LISTED));
    rows.put("vs_ipset_raw", "", raw(Filter::Ipset, Filter::Ours, LISTED));
    let other = live.own(Filter::Ours, Column::Other);
    let empty = live.own(Filter::EmptyPass, Column::Other);
    rows.put("other_traffic_extra_live_ns", "ns", other.iter().zip(&empty).map(|(ours, empty)| ours - empty).collect());
    rows.put("generator_made_listed_ns", "ns", live.made.clone());
    for filter in FILTERS {
        for column in columns(filter) {
            figures(&mut rows, live, filter, column);
        }
    }
    for (structure, _) in STRUCTURES.iter().filter(|(structure, _)| !structure.is_empty()) {
        for (name, _) in SEGMENTS {
            rows.put(&format!("{structure}lookup_{name}_ns"), "ns", loops.ns(structure, name));
        }
    }
    rows.put("empty_pass_warm_ns", "ns", warm.empty_pass.clone());
    for (name, ns) in warm.screen() {
        rows.put(&format!("screen_{name}_warm_ns"), "ns", ns);
    }

    let (v4, v6) = (effort.size.v4, effort.size.v6);
    notes.insert(0, format!("{v4} IPv4 and {v6} IPv6 prefixes; {} frames a run", effort.frames));
    if effort.size.v4 < 1_000_000 {
        notes.insert(
            1,
            "the goals are for a million prefixes and a quiet machine: this run only shows that it works".to_owned(),
        );
    }
    let wrong = live.wrong.iter().chain(&loops.wrong).cloned().collect();
    Report { rows: rows.0, notes, wrong, matrix: matrix(live) }
}

/// The rows of one filter and column.
fn figures(rows: &mut Rows, live: &Live, filter: Filter, column: Column) {
    let name = format!("{}_{column}", filter.name());
    if filter == Filter::DeadEnd {
        rows.put(&format!("{name}_ns"), "ns", live.raw(filter, column));
        return;
    }
    let own = live.own(filter, column);
    rows.put(&format!("{name}_mpps"), "Mpps", own.iter().map(|ns| 1000.0 / ns).collect());
    rows.put(&format!("{name}_ratio"), "", quotients(&live.own(limit(column), column), &own));
    rows.put(&format!("{name}_ns"), "ns", own);
    rows.put(&format!("{name}_raw_ns"), "ns", live.raw(filter, column));
}

/// The empty program that a column is compared with.
fn limit(column: Column) -> Filter {
    if column.is_dropped() { Filter::EmptyDrop } else { Filter::EmptyPass }
}

/// A line a filter: rate, time and ratio for each of the main columns.
fn matrix(live: &Live) -> Vec<Vec<String>> {
    let cell = |filter: Filter, column: Column| {
        if filter == Filter::DeadEnd {
            return format!("({:.0} ns, subtracted)", median(&sorted(live.raw(filter, column))));
        }
        let few = Column::Syn(Segment::Few);
        // What xdp-filter can hold stands for the list.
        let column = if live.has(filter, column) || column != LISTED { column } else { few };
        if !live.has(filter, column) {
            return "-".to_owned();
        }
        let own = live.own(filter, column);
        let ns = median(&sorted(own.clone()));
        let ratio = median(&sorted(quotients(&live.own(limit(column), column), &own)));
        format!("{:.2} Mpps  {ns:.0} ns  {ratio:.2}", 1000.0 / ns)
    };
    let measured = FILTERS.iter().filter(|&&filter| columns(filter).iter().any(|&column| live.has(filter, column)));
    measured
        .map(|&filter| {
            let cells = Column::MAIN.iter().map(|&column| cell(filter, column));
            std::iter::once(filter.name().to_owned()).chain(cells).collect()
        })
        .collect()
}

impl Report {
    /// The report for a person.
    #[must_use]
    pub fn table(&self) -> String {
        let mut matrix = table();
        matrix.set_header(["receiver", "listed SYNs", "unlisted SYNs", "other traffic"]);
        for line in &self.matrix {
            matrix.add_row(line);
        }
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
        let mut text = format!(
            "{figures}\n\nA receiver's own rate, its time for a frame, and its rate as a part of the empty program's:\n{matrix}\n"
        );
        for note in &self.notes {
            text.push_str(&format!("- {note}\n"));
        }
        for wrong in &self.wrong {
            text.push_str(&format!("WRONG: {wrong}\n"));
        }
        text
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn quotients(of: &[f64], by: &[f64]) -> Vec<f64> {
    of.iter().zip(by).map(|(of, by)| of / by).collect()
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The middle of values in order; of an even number the mean of the two in the middle.
fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => (sorted[length / 2 - 1] + sorted[length / 2]) / 2.0,
    }
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
    fn a_row_has_its_goal_and_its_spread() {
        let mut rows = Rows::default();
        rows.put("vs_nftables", "", vec![9.0, 7.0, 8.0]);
        let row = &rows.0[0];
        assert_eq!((row.value, row.low, row.high, row.rounds), (8.0, 7.0, 9.0, 3));
        assert_eq!(row.goal.as_deref(), Some(">= 8"));
    }
}
