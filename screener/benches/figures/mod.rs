//! What the crate's own benches can be told and what they report: each figure's median and span over the rounds, with its goal; as JSON or as lines. In the
//! form of the lab's (`tests/src/bench/report.rs`), since `cargo xtask bench` puts both together.
//!
//! Never fails for a time: a goal is printed beside a value.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

/// What every bench can be told.
#[derive(Debug, Args)]
pub(crate) struct Usual {
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Little of everything: to see that it works
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds; the median counts
    #[arg(long)]
    rounds: Option<usize>,
    /// What cargo itself adds
    #[arg(long, hide = true)]
    bench: bool,
}

impl Usual {
    /// How many rounds, at least one.
    pub(crate) fn rounds(&self, unless_said: usize) -> usize {
        let _from_cargo = self.bench;
        self.rounds.unwrap_or(unless_said).max(1)
    }
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: Option<&'static str>,
    rounds: usize,
    low: f64,
    high: f64,
}

#[derive(Debug, Serialize)]
struct Rows {
    rows: Vec<Row>,
}

/// Collects what the rounds measured.
pub(crate) struct Figures {
    goals: &'static [(&'static str, &'static str)],
    measured: Vec<(&'static str, &'static str, Vec<f64>)>,
}

impl Figures {
    /// `goals`: what some figures should be, by their names.
    pub(crate) fn new(goals: &'static [(&'static str, &'static str)]) -> Self {
        Self { goals, measured: Vec::new() }
    }

    /// One more value of a figure; an empty unit is a ratio's.
    pub(crate) fn put(&mut self, name: &'static str, unit: &'static str, value: f64) {
        match self.measured.iter_mut().find(|(it, ..)| *it == name) {
            Some((.., values)) => values.push(value),
            None => self.measured.push((name, unit, vec![value])),
        }
    }

    /// On standard output.
    pub(crate) fn print(self, json: bool) -> Result<()> {
        let rows = self.rows();
        if json {
            println!("{}", serde_json::to_string_pretty(&Rows { rows })?);
            return Ok(());
        }
        for Row { name, value, unit, goal, low, high, .. } in &rows {
            let goal = goal.map_or_else(String::new, |goal| format!(" (goal {goal})"));
            println!("{name:<36} {value:>14.3} {unit:<12} {low:.3} to {high:.3}{goal}");
        }
        Ok(())
    }

    fn rows(self) -> Vec<Row> {
        let row = |(name, unit, mut values): (&'static str, &'static str, Vec<f64>)| {
            values.sort_unstable_by(f64::total_cmp);
            let goal = self.goals.iter().find(|(of, _)| *of == name).map(|(_, goal)| *goal);
            let (low, high, value) = (values[0], values[values.len() - 1], values[values.len() / 2]);
            Row { name, value, unit, goal, rounds: values.len(), low, high }
        };
        self.measured.into_iter().map(row).collect()
    }
}
