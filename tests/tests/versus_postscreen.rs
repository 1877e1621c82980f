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

/// Transcripts that still differ though nobody wants that. Each goes as soon as it does not.
const OPEN: &[&str] = &[
    "deep/bdat-without-argument",
    "deep/commands-over-the-limit-help",
    "deep/data-with-argument",
    "deep/ehlo-not-ascii",
    "deep/ehlo-not-utf8",
    "deep/ehlo-quoted",
    "deep/helo-not-ascii",
    "deep/mail-long-address",
    "deep/mail-not-ascii",
    "deep/mail-not-utf8",
    "deep/mail-smtputf8",
    "deep/non-smtp-binary",
    "deep/non-smtp-header-with-a-space",
    "deep/non-smtp-not-utf8",
    "deep/non-smtp-utf8",
    "deep/pipelining-after-the-recipient",
    "deep/pipelining-bdat",
    "deep/rcpt-long-address",
    "deep/rcpt-not-ascii",
    "deepdrop/non-smtp-binary",
    "deepdrop/non-smtp-header-with-a-space",
    "deepdrop/non-smtp-not-utf8",
    "deepdrop/non-smtp-utf8",
    "deepdrop/pipelining-after-the-recipient",
    "deepdrop/pipelining-bdat",
    "deepignore/bare-newline-and-pipelining",
    "deepignore/bare-newline-ehlo",
    "deepignore/bare-newline-empty",
    "deepignore/bare-newline-mail",
    "deepignore/bare-newline-rcpt",
    "deepignore/non-smtp-after-mail",
    "deepignore/non-smtp-binary",
    "deepignore/non-smtp-colon-first",
    "deepignore/non-smtp-connect",
    "deepignore/non-smtp-dot",
    "deepignore/non-smtp-get",
    "deepignore/non-smtp-get-lower-case",
    "deepignore/non-smtp-header",
    "deepignore/non-smtp-header-alone",
    "deepignore/non-smtp-header-with-a-dash",
    "deepignore/non-smtp-header-with-a-space",
    "deepignore/non-smtp-markup",
    "deepignore/non-smtp-not-utf8",
    "deepignore/non-smtp-number",
    "deepignore/non-smtp-post",
    "deepignore/non-smtp-utf8",
    "deepignore/pipelining-after-ehlo",
    "deepignore/pipelining-after-mail",
    "deepignore/pipelining-after-rcpt",
    "deepignore/pipelining-after-the-recipient",
    "deepignore/pipelining-all-at-once",
    "deepignore/pipelining-bdat",
    "deepignore/pipelining-recipients",
    "enforce/listed-pipelining",
    "enforce/listed-pregreet",
    "enforce/pregreet-tls",
    "ignore/listed-comes-again",
    "ignore/pregreet-tls",
    "limits/commands-over-a-tight-limit",
    "limits/connections-over-the-limit",
    "limits/connections-over-the-limit-ipv6",
    "limits/footer-at-a-listed-client",
    "limits/footer-at-a-recipient",
    "limits/footer-at-a-wrong-command",
    "limits/footer-at-data",
    "limits/time-after-ehlo",
    "limits/time-after-mail",
    "limits/time-after-the-greeting",
    "limits/time-within-a-line",
    "limits/unknown-commands-over-a-tight-limit",
    "limits/vrfy-disabled",
    "relay/listed-pregreet",
];

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
    let (mut wrong, mut open) = (Vec::new(), OPEN.to_vec());
    for played in played {
        let comparison = ledger.compare(played);
        if comparison.unwanted > 0 {
            open.retain(|name| *name != played.name);
            if !OPEN.contains(&played.name.as_str()) {
                wrong.push(format!("{}:\n{}", played.name, comparison.text));
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} transcripts differ without a reason:\n\n{}",
        wrong.len(),
        played.len(),
        wrong.join("\n")
    );
    let unmet = ledger.unmet();
    ensure!(unmet.is_empty(), "wanted differences that nobody meets any more:\n{}", unmet.join("\n"));
    ensure!(open.is_empty(), "mended, and still in the list of what is not:\n{}", open.join("\n"));
    Ok(())
}

#[test]
fn every_difference_has_its_reason_on_the_page_and_the_page_names_no_other() {
    let used: BTreeSet<&str> = differences::all().iter().map(|difference| difference.reason).collect();
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let explained: BTreeSet<&str> = rows.filter(|(_, rest)| rest.starts_with(" |")).map(|(name, _)| name).collect();
    assert_eq!(used, explained, "the table of the test, and the first table of the page");
}
