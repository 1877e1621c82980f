//! `after_tests = "defer"`: what a client finds when it comes again.

use std::time::Duration;

use super::rig::{Rig, START, arrival, listed, policy, unlisted};
use crate::pass::{Stamps, Test};
use crate::session::{Action, AfterTests, Arrival, DnsblReport, Event, Policy};

fn deferring(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = policy();
    policy.after_tests = AfterTests::Defer;
    change(&mut policy);
    policy
}

/// A visit up to its first recipient.
fn visit(policy: &Policy, stamps: Option<Stamps>, report: DnsblReport, ehlo: &str) -> Rig {
    let mut rig = Rig::with(policy.clone(), Arrival { stamps, ..arrival() });
    if rig.asked {
        rig.lists_say(report);
    }
    rig.seconds(6);
    if rig.handoff.is_none() {
        rig.says(ehlo).says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    }
    rig
}

#[test]
fn a_listed_client_under_ignore_gets_in_when_it_comes_again() {
    let policy = deferring(|policy| policy.dnsbl.as_mut().unwrap().action = Action::Ignore);
    let first = visit(&policy, None, listed(4), "EHLO c\r\n");
    assert!(first.sent.contains("\r\n450 4.3.2 ") && !first.events.contains(&Event::PassNew));
    let stamps = first.granted.expect("what it did pass");
    assert_eq!((stamps.get(Test::Dnsbl), stamps.get(Test::Pipelining).is_some()), (None, true));
    let again = visit(&policy, Some(stamps), listed(4), "EHLO c\r\n");
    assert!(again.handoff.is_some_and(|handoff| handoff.replay.is_empty()));
}

#[test]
fn a_deep_test_that_is_ignored_counts_for_a_minute() {
    let policy = deferring(|policy| policy.bare_newline.action = Action::Ignore);
    let first = visit(&policy, None, unlisted(), "EHLO c\n");
    assert!(first.events.contains(&Event::PassNew), "as in postscreen");
    let stamps = first.granted.expect("a pass");
    assert_eq!(stamps.get(Test::BareNewline), Some(START.plus(Duration::from_secs(66))));
    assert!(visit(&policy, Some(stamps), unlisted(), "").handoff.is_some());
}

#[test]
fn a_client_that_one_allow_list_saves_gets_in_when_it_comes_again() {
    let policy = deferring(|_| {});
    let saved = || DnsblReport { without_best_ally: 4, ..listed(1) };
    let first = visit(&policy, None, saved(), "EHLO c\r\n");
    let stamps = first.granted.expect("what it did pass");
    assert_eq!(stamps.get(Test::Dnsbl), None);
    assert!(visit(&policy, Some(stamps), saved(), "").handoff.is_some());
}

#[test]
fn a_failure_that_is_enforced_still_withholds_everything() {
    let policy = deferring(|policy| policy.bare_newline.action = Action::Ignore);
    let rig = visit(&policy, None, listed(4), "EHLO c\n");
    assert!(rig.granted.is_none() && rig.sent.contains("\r\n550 5.7.1 "));
}

#[test]
fn a_late_answer_that_leaves_the_pass_to_one_allow_list_takes_it_back() {
    let mut rig = visit(&deferring(|_| {}), None, unlisted(), "EHLO c\r\n");
    assert!(rig.granted.is_some_and(|stamps| stamps.get(Test::Dnsbl).is_some()));
    for _ in 0..2 {
        rig.lists_say(DnsblReport { without_best_ally: 4, ..listed(1) });
    }
    assert_eq!(rig.withdrawn, [Test::Dnsbl]);
}

#[test]
fn a_failure_behind_the_recipient_takes_the_pass_back() {
    let policy = deferring(|_| {});
    let mut rig = visit(&policy, None, unlisted(), "EHLO c\r\n");
    assert!(rig.granted.is_some());
    rig.says("RCPT TO:<e@f>\r\nQUIT\r\n");
    assert_eq!(rig.withdrawn, [Test::Pipelining]);
    assert!(rig.sent.contains("\r\n550 5.5.1 Protocol error"));
}
