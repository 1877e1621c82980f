//! The bench of the ledger in a lab: how long a pass takes from one host to the kernel of another.
//!
//! What is measured without hosts (lookups, updates, start, memory) is the crate's own bench. Nothing here judges a time.

mod share;

use anyhow::Result;

use super::report::{Goal, Rows, percentile, quotients};
use super::{Options, Report};

/// What is to be reached.
const GOALS: [Goal; 1] = [("share_pass_to_other_kernel_p99_ms", "<= 1000")];

/// Measures. To be called inside a cell.
///
/// # Errors
/// When the lab cannot be built, or a pass does not arrive.
pub fn run(options: &Options) -> Result<Report> {
    let rounds = options.rounds.unwrap_or(if options.quick { 40 } else { 500 });
    eprintln!(
        "two MX hosts and a store: {rounds} passes from one to the other's kernel, {rounds} messages beside them"
    );
    let times = share::measure(rounds)?;
    let mut rows = Rows::new(&GOALS);
    for (name, of) in [
        ("share_pass_to_other_kernel", &times.other_kernel),
        ("share_pass_to_own_kernel", &times.own_kernel),
        ("share_message", &times.message),
    ] {
        rows.put(&format!("{name}_ms"), "ms", of.clone());
        rows.put(&format!("{name}_p99_ms"), "ms", vec![percentile(of, 99)]);
    }
    rows.put("share_pass_ratio", "", quotients(&times.other_kernel, &times.message));
    let notes = vec![
        "share_pass_to_*: from before a pass is asked for at one host's control socket until it is in that kernel's map".to_owned(),
        "share_message: PUBLISH on one host until SUBSCRIBE on the other has it, by the same Redis, in turns with the passes"
            .to_owned(),
    ];
    Ok(Report { rows: rows.rows(), notes, wrong: Vec::new(), beside: String::new() })
}
