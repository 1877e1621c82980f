//! The bench of the ledger runs, every pass arrives, and nothing that is done to many is done wrong. No time makes it fail.

use std::time::Duration;

use anyhow::ensure;

use screener_tests::bench::{Options, ledger};
use screener_tests::cell;

/// What the quick run takes on a quiet machine is less than a minute.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn the_bench_of_the_ledger_has_every_row_and_every_pass_arrives() {
    cell::test_within("the_bench_of_the_ledger_has_every_row_and_every_pass_arrives", LIMIT, || {
        let report = ledger::run(&Options { quick: true, rounds: Some(20) })?;
        ensure!(report.wrong.is_empty(), "{:?}", report.wrong);
        let mut names: Vec<String> = [
            "share_pass_to_other_kernel_ms",
            "share_pass_to_other_kernel_p99_ms",
            "share_pass_to_own_kernel_ms",
            "share_message_ms",
            "share_pass_ratio",
            "share_none_greeting_p99_ms",
            "share_none_session_p99_ms",
            "pass_list_seconds",
            "pass_list_peak_mib",
            "pass_list_daemon_growth_mib",
            "pass_list_none_peak_mib",
            "pass_dump_seconds",
            "pass_delete_seconds",
            "pass_restore_seconds",
        ]
        .map(str::to_owned)
        .to_vec();
        for side in ["healthy", "slow", "silent", "down", "cut"] {
            for time in ["greeting", "session"] {
                names.extend(["", "_slower", "_slower_p99"].map(|of| format!("share_{side}_{time}{of}_ms")));
            }
        }
        for start in ["full", "again", "empty"] {
            names.extend(["greeting", "kernel"].map(|until| format!("start_{start}_{until}_seconds")));
        }
        for way in ["tell", "hear"] {
            names.extend(["", "_kernel"].map(|until| format!("share_{way}{until}_seconds")));
            names.extend(["before", "meanwhile"].map(|when| format!("share_{way}_greeting_{when}_ms")));
        }
        for name in names {
            let row = report.rows.iter().find(|row| row.name == name);
            ensure!(row.is_some_and(|row| row.value.is_finite()), "{name} is missing");
        }
        Ok(())
    });
}
