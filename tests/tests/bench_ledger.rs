//! The bench of the ledger runs, and every pass arrives. No time makes it fail.

use anyhow::ensure;

use screener_tests::bench::{Options, ledger};
use screener_tests::cell;

#[test]
fn the_bench_of_the_ledger_has_every_row_and_every_pass_arrives() {
    cell::test("the_bench_of_the_ledger_has_every_row_and_every_pass_arrives", || {
        let report = ledger::run(&Options { quick: true, rounds: Some(20) })?;
        for name in [
            "share_pass_to_other_kernel_ms",
            "share_pass_to_other_kernel_p99_ms",
            "share_pass_to_own_kernel_ms",
            "share_message_ms",
            "share_pass_ratio",
        ] {
            let row = report.rows.iter().find(|row| row.name == name);
            ensure!(row.is_some_and(|row| row.value.is_finite()), "{name} is missing");
        }
        Ok(())
    });
}
