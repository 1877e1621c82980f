//! The bench of the daemon: Screener beside postscreen and beside the bare MTA, in one run.
//!
//! Seven hosts hang on one router by wires of the same make: `front`, `socket`, `handover` and `steer` have a Screener before a Postfix,
//! `postscreen` has Postfix with its own screener, `proxy` has haproxy before it, `bare` has Postfix alone. All log to files, all
//! have the same settings as far as they know them. The rounds go from one to the next, beginning with another each time, so that whatever disturbs the machine
//! disturbs them all. Nothing here judges a time; what is wrong is a client that got another answer than it should have.
//!
//! The whole bench, servers and clients, goes before other work on the machine (nice −20): all sides alike.

mod epoll;
mod load;
mod passes;
mod refusal;
mod relay;
mod rivals;
mod usage;
mod waiting;

use anyhow::{Context as _, Result};

use super::report::{Goal, Rows};
use super::{Options, Report};

use rivals::Hosts;

/// What is to be reached.
const GOALS: [Goal; 8] = [
    ("refusal_cpu_ratio", "<= 0.7"),
    ("waiting_client_bytes", "<= 2048"),
    ("pass_steer_ratio", "<= 1.05"),
    ("pass_front_ratio", "<= pass_postscreen_ratio"),
    ("pass_front_handover_ratio", "<= pass_postscreen_ratio"),
    ("relay_ratio", ">= 0.9"),
    ("relay_socket_ratio", ">= 0.9"),
    ("relay_pass_ratio", ">= 0.9"),
];

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Clients that speak before the greeting.
    Refusal,
    /// Clients that wait for the greeting.
    Waiting,
    /// Clients with a pass.
    Passes,
    /// Mails.
    Relay,
}

impl Part {
    /// All, in their order.
    pub const ALL: [Self; 4] = [Self::Refusal, Self::Waiting, Self::Passes, Self::Relay];

    fn what(self) -> &'static str {
        match self {
            Self::Refusal => "clients that speak before the greeting",
            Self::Waiting => "clients that wait for the greeting",
            Self::Passes => "clients with a pass",
            Self::Relay => "mails",
        }
    }
}

/// How much is measured in a round.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: u32,
    /// Clients that speak too early, of each side.
    refused: u32,
    /// Clients that wait for the greeting at once.
    waiting: u32,
    /// How long they wait, in seconds: longer than it takes them all to connect.
    wait: u32,
    /// Sessions with a pass, of each side.
    passes: u32,
    /// Mails, of each side.
    mails: u32,
}

impl Effort {
    fn of(options: &Options) -> Self {
        let effort = if options.quick {
            Self { rounds: 1, refused: 512, waiting: 300, wait: 3, passes: 20, mails: 20 }
        } else {
            Self { rounds: 5, refused: 65_536, waiting: 15_000, wait: 20, passes: 500, mails: 3_000 }
        };
        Self { rounds: options.rounds.unwrap_or(effort.rounds).max(1), ..effort }
    }
}

/// What the parts leave behind.
struct Findings {
    rows: Rows,
    notes: Vec<String>,
    wrong: Vec<String>,
}

/// Measures everything; must run inside a cell.
///
/// # Errors
/// When a server does not come about or stops to answer. A wrong answer to a client is no error here but part of the report.
pub fn run(options: &Options, only: Option<Part>) -> Result<Report> {
    let effort = Effort::of(options);
    rustix::process::setpriority_process(None, -20).context("going before other work on the machine")?;
    let mut findings = Findings { rows: Rows::new(&GOALS), notes: Vec::new(), wrong: Vec::new() };
    if options.quick {
        findings.notes.push("the goals are for the whole bench: this run only shows that it works".to_owned());
    }
    let hosts = Hosts::new()?;
    for part in Part::ALL.into_iter().filter(|&part| only.is_none_or(|only| only == part)) {
        eprintln!("bench: {}", part.what());
        let measured = match part {
            Part::Refusal => refusal::measure(&hosts, &effort, &mut findings),
            Part::Waiting => waiting::measure(&hosts, &effort, &mut findings),
            Part::Passes => passes::measure(&hosts, &effort, &mut findings),
            Part::Relay => relay::measure(&hosts, &effort, &mut findings),
        };
        measured.context(part.what())?;
    }
    let Findings { rows, notes, wrong } = findings;
    Ok(Report { rows: rows.rows(), notes, wrong, beside: String::new() })
}
