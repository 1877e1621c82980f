//! Debian's postscreen and the screener side by side: whatever a client does, both answer and log alike, except where
//! docs/postscreen-differences.md says why not.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::versus::lab::{Lab, Played};
use screener_tests::versus::setting::Setting;
use screener_tests::versus::{Ledger, differences, scripts};

/// Most of it is the machine's other work: alone it takes a quarter of that.
const LIMIT: Duration = Duration::from_secs(240);

/// The page that explains the differences.
const PAGE: &str = include_str!("../../docs/postscreen-differences.md");

#[test]
fn postscreen_and_the_screener_answer_and_log_alike_or_differ_for_a_reason() {
    cell::test_within("postscreen_and_the_screener_answer_and_log_alike_or_differ_for_a_reason", LIMIT, || {
        let lab = Lab::build(&Setting::ALL)?;
        let scripts: Vec<_> = scripts::all().collect();
        judge(&lab.play(&scripts)?)
    });
}

fn judge(played: &[Played]) -> Result<()> {
    let wanted = differences::all();
    let mut ledger = Ledger::new(&wanted);
    ledger.compare_all(played)?;
    let unmet = ledger.unmet();
    ensure!(unmet.is_empty(), "wanted differences that nobody meets any more:\n{}", unmet.join("\n"));
    Ok(())
}

#[test]
fn every_difference_has_its_reason_on_the_page_and_the_page_names_no_other() {
    let used: BTreeSet<&str> = differences::all().iter().map(|difference| difference.reason).collect();
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let explained: BTreeSet<&str> = rows.filter(|(_, rest)| rest.starts_with(" |")).map(|(name, _)| name).collect();
    assert_eq!(used, explained, "the table of the test, and the first table of the page");
}
