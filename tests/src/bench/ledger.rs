//! The bench of the ledger in a lab: how long a pass takes from one host to the kernel of another, what a store that fails costs
//! a host's clients, and what becomes of a host with a million passes.
//!
//! What is measured without hosts (lookups, updates, start, memory) is the crate's own bench. Nothing here judges a time.

mod crowd;
mod faults;
mod join;
mod listing;
mod share;
mod start;

use anyhow::{Context as _, Result};

use super::report::{Goal, Rows, percentile, quotients};
use super::{Options, Report};
use crate::net::{Net, Plan};

use crowd::{Mx, config};

/// What is to be reached.
const GOALS: [Goal; 3] =
    [("share_pass_to_other_kernel_p99_ms", "<= 1000"), ("*_slower_ms", "<= 1"), ("*_slower_p99_ms", "<= 1")];

/// How much is measured.
struct Effort {
    /// Passes from one host to the other.
    shared: u32,
    /// Rounds in which stores fail, and sessions with each side in each.
    faults: (u32, u32),
    /// The passes of a host that has many, and how often it is started.
    passes: u32,
    starts: u32,
}

impl Effort {
    fn of(options: &Options) -> Self {
        let effort = if options.quick {
            Self { shared: 40, faults: (1, 60), passes: 20_000, starts: 1 }
        } else {
            Self { shared: 500, faults: (3, 500), passes: 1_000_000, starts: 3 }
        };
        Self { shared: options.rounds.unwrap_or(effort.shared), ..effort }
    }
}

/// Measures. To be called inside a cell.
///
/// # Errors
/// When the lab cannot be built, or a pass does not arrive.
pub fn run(options: &Options) -> Result<Report> {
    let effort = Effort::of(options);
    rustix::process::setpriority_process(None, -20).context("going before other work on the machine")?;
    let mut rows = Rows::new(&GOALS);
    let net = Net::new()?;
    share(effort.shared, &mut rows)?;
    let clients = net.host(&Plan { name: "clients", addresses: &["198.51.100.10"], prefixes: &["198.18.0.0/15"] })?;
    let (rounds, sessions) = effort.faults;
    let mut wrong = faults::measure(&net, &clients, rounds, sessions, &mut rows).context("stores that fail")?;
    let mut full = Mx::start(&net, "mx-full", "192.0.2.41", &config(""))?;
    let mut empty = Mx::start(&net, "mx-empty", "192.0.2.42", &config(""))?;
    let passes = effort.passes;
    wrong.extend(listing::measure(&clients, &full, passes, &mut rows).context("passes listed and put back")?);
    start::measure(&clients, &mut full, passes, &mut empty, effort.starts, &mut rows).context("starts")?;
    wrong.extend(join::measure(&net, &clients, &mut full, passes, &mut empty, &mut rows).context("joining")?);
    let mut notes = NOTES.map(str::to_owned).to_vec();
    if options.quick {
        notes.push("the goals are for the whole bench: this run only shows that it works".to_owned());
    }
    Ok(Report { rows: rows.rows(), notes, wrong, beside: String::new() })
}

/// What to know of the figures.
const NOTES: [&str; 5] = [
    "share_pass_to_*: from before a pass is asked for at one host's control socket until it is in that kernel's map",
    "share_message: PUBLISH on one host until SUBSCRIBE on the other has it, by the same Redis, in turns with the passes",
    "share_SIDE_*: strangers of hosts whose store is none, healthy, slow, silent, down or cut off, in turns; slower: than none",
    "pass_*: commands of a host with many passes; pass_list_none walks over them all and shows none",
    "start_full: with many passes, maps made anew; start_again: they are there; start_empty: no pass",
];

fn share(rounds: u32, rows: &mut Rows) -> Result<()> {
    eprintln!(
        "two MX hosts and a store: {rounds} passes from one to the other's kernel, {rounds} messages beside them"
    );
    let times = share::measure(rounds)?;
    for (name, of) in [
        ("share_pass_to_other_kernel", &times.other_kernel),
        ("share_pass_to_own_kernel", &times.own_kernel),
        ("share_message", &times.message),
    ] {
        rows.put(&format!("{name}_ms"), "ms", of.clone());
        rows.put(&format!("{name}_p99_ms"), "ms", vec![percentile(of, 99)]);
    }
    rows.put("share_pass_ratio", "", quotients(&times.other_kernel, &times.message));
    Ok(())
}
