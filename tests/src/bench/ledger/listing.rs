//! Many passes listed, dumped, deleted and put back: how long each takes, and that neither side holds them all meanwhile.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::crowd::{Mx, STRANGER, dump};
use crate::bench::greeting::beside;
use crate::bench::report::{Rows, median, percentile, sorted};
use crate::host::Host;

const FILE: &str = "/var/tmp/passes";
const AGAIN: &str = "/var/tmp/passes-again";

/// Fills a host whose daemon has no pass yet, and measures. Gives what was wrong; all passes are there when this returns.
///
/// # Errors
/// When a command does not succeed.
pub(super) fn measure(clients: &Host, mx: &Mx, passes: u32, rows: &mut Rows) -> Result<Vec<String>> {
    let given = dump(passes);
    mx.host.write(FILE, &given)?;
    eprintln!("bench: {passes} passes listed, dumped, deleted and put back");
    let first = mx.run(&["pass", "restore", FILE])?;
    mx.wait_for_kernel(Instant::now(), passes)?;

    // The same walk, of which nothing is shown.
    let none = mx.run(&["pass", "list", "--origin", "pool"])?;
    let (list, meanwhile) = beside(clients, STRANGER, mx.server, || mx.run(&["pass", "list"]))?;
    let dumped = mx.run(&["pass", "dump", AGAIN])?;
    let same = |what: &str| -> Result<Option<String>> {
        let written = fs::read(mx.host.path(AGAIN)).context("the dump")?;
        let is_same = written == given.as_bytes();
        Ok((!is_same).then(|| format!("a dump of {passes} passes {what} is not the dump that was restored")))
    };
    let mut wrong = Vec::from_iter(same("given by it")?);
    let deleted = mx.run(&["pass", "del", "--prefix", "0.0.0.0/0", "--yes"])?;
    mx.wait_for_kernel(Instant::now(), 0)?;
    let (again, restoring) = beside(clients, STRANGER, mx.server, || mx.run(&["pass", "restore", AGAIN]))?;
    mx.wait_for_kernel(Instant::now(), passes)?;
    mx.run(&["pass", "dump", AGAIN])?;
    wrong.extend(same("given a second time")?);

    const MIB: f64 = 1024.0 * 1024.0;
    for (name, ran) in [("pass_list", &list), ("pass_list_none", &none), ("pass_dump", &dumped)] {
        rows.put(&format!("{name}_seconds"), "s", vec![ran.seconds]);
        rows.put(&format!("{name}_peak_mib"), "MiB", vec![ran.peak as f64 / MIB]);
        rows.put(&format!("{name}_daemon_growth_mib"), "MiB", vec![ran.grown as f64 / MIB]);
    }
    rows.put("pass_delete_seconds", "s", vec![deleted.seconds]);
    rows.put("pass_restore_seconds", "s", vec![first.seconds, again.seconds]);
    for (name, times) in [("pass_list", meanwhile), ("pass_restore", restoring)] {
        rows.put(&format!("{name}_greeting_ms"), "ms", vec![median(&sorted(times.clone()))]);
        rows.put(&format!("{name}_greeting_p99_ms"), "ms", vec![percentile(&times, 99)]);
    }
    Ok(wrong)
}
