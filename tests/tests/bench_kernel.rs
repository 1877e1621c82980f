//! The bench of the kernel half runs, has every row, and every verdict in it is right. No time makes it fail.

use std::time::Duration;

use anyhow::ensure;

use screener_tests::bench::{Options, kernel};
use screener_tests::cell;

/// The rows that DESIGN.md promises, and the rates of each filter that must be there.
const ROWS: [&str; 16] = [
    "drop_listed_ratio",
    "lookup_unlisted_v4_ns",
    "lookup_listed_v4_ns",
    "lookup_unlisted_v6_ns",
    "other_traffic_extra_ns",
    "vs_nftables",
    "vs_ipset",
    "fill_seconds",
    "fill_mib",
    "empty_drop_listed_mpps",
    "empty_pass_other_mpps",
    "ours_listed_mpps",
    "ours_unlisted_mpps",
    "ours_other_mpps",
    "nftables_listed_mpps",
    "ipset_listed_mpps",
];

#[test]
fn the_bench_has_every_row_and_every_verdict_is_right() {
    cell::test_within("the_bench_has_every_row_and_every_verdict_is_right", Duration::from_secs(300), || {
        let report = kernel::run(&Options { quick: true, rounds: Some(1) })?;
        ensure!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
        for name in ROWS {
            let row = report.rows.iter().find(|row| row.name == name);
            ensure!(row.is_some_and(|row| row.value.is_finite()), "{name} is missing");
        }
        let goals = report.rows.iter().filter(|row| row.goal.is_some()).count();
        ensure!(goals == 9, "{goals} rows have a goal");
        Ok(())
    });
}
