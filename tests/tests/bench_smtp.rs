//! The bench of the daemon runs, has every row, and every client in it got the answer that it should have. No time makes it
//! fail.

use std::time::Duration;

use anyhow::ensure;

use screener_tests::bench::{Options, smtp};
use screener_tests::cell;

/// The rows that DESIGN.md promises, and the rivals' that must stand beside them.
const ROWS: [&str; 17] = [
    "refusal_cpu_ratio",
    "refusal_cpu_us",
    "refusal_cpu_postscreen_us",
    "waiting_client_bytes",
    "waiting_client_postscreen_bytes",
    "greeting_late_p99_ms",
    "pass_steer_ratio",
    "pass_front_ratio",
    "pass_front_handover_ratio",
    "pass_postscreen_ratio",
    "relay_ratio",
    "relay_pass_ratio",
    "relay_bare_mails_per_second",
    "relay_haproxy_ratio",
    "relay_socket_ratio",
    "relay_for_nothing_ratio",
    "relay_cpu_us",
];

#[test]
fn the_bench_has_every_row_and_every_client_got_its_answer() {
    cell::test_within("the_bench_has_every_row_and_every_client_got_its_answer", Duration::from_secs(300), || {
        let report = smtp::run(&Options { quick: true, rounds: Some(1) }, None)?;
        ensure!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
        for name in ROWS {
            let row = report.rows.iter().find(|row| row.name == name);
            ensure!(row.is_some_and(|row| row.value.is_finite()), "{name} is missing");
        }
        Ok(())
    });
}
