//! The way of a connection: what each kind of client must meet, seen on real traffic, as rows of a table.
//!
//! Holds the lab that the scenarios share and the list of them. Each scenario has clients of its own.

mod lab;
mod scenarios;

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

pub use lab::Lab;

use crate::net::Family;

/// One thing that must be seen.
struct Scenario {
    name: &'static str,
    expected: &'static str,
    /// Plays it; what was seen, or what was seen instead.
    play: fn(&mut Lab, Family) -> Result<String>,
}

/// A scenario played in one family.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What is done.
    pub scenario: &'static str,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// What must be seen.
    pub expected: &'static str,
    /// What was seen.
    pub seen: String,
    /// Whether they agree.
    pub ok: bool,
    /// How long it took.
    pub seconds: f64,
}

/// Plays every scenario in both families, in the order of the table; `progress` hears of each before it starts.
pub fn play(lab: &mut Lab, mut progress: impl FnMut(&str, Family)) -> Vec<Row> {
    let mut rows = Vec::new();
    for scenario in scenarios::ALL {
        for family in Family::BOTH {
            progress(scenario.name, family);
            let began = Instant::now();
            let seen = (scenario.play)(lab, family);
            rows.push(Row {
                scenario: scenario.name,
                family: family.to_string(),
                expected: scenario.expected,
                ok: seen.is_ok(),
                seen: seen.unwrap_or_else(|error| format!("{error:#}")),
                seconds: began.elapsed().as_secs_f64(),
            });
        }
    }
    rows
}
