//! A client whose other address has just passed: when it is asked for, waited for, and let through.

use std::net::IpAddr;
use std::time::Duration;

use super::rig::{DAY, Rig, START, arrival, policy, unlisted};
use crate::clock::UnixTime;
use crate::pass::{Stamps, Test};
use crate::session::{Action, AfterTests, Arrival, Event, Input, Outcome, Policy, Sibling};

const DEFERRED: &str = "450 4.3.2 Service currently unavailable; session=000000000abc\r\n";
const WAIT: Duration = Duration::from_secs(5);

fn deferring() -> Policy {
    Policy { after_tests: AfterTests::Defer, link: Some(WAIT), ..policy() }
}

/// Up to the sender's address.
fn session(policy: Policy, arrival: Arrival) -> Rig {
    let mut rig = Rig::with(policy, arrival);
    rig.lists_say(unlisted()).seconds(6).says("EHLO mail.test\r\n").says("MAIL FROM:<a@b>\r\n").take();
    rig
}

fn sibling(until: UnixTime) -> Option<Sibling> {
    let address: IpAddr = "2001:db8::1".parse().unwrap();
    Some(Sibling { address, name: "mail.test".to_owned(), stamps: Stamps::all_until(until) })
}

fn linked(rig: &Rig) -> bool {
    rig.events.iter().any(|event| matches!(event, Event::Linked(..)))
}

#[test]
fn a_client_whose_other_address_has_passed_is_handed_over_at_its_recipient() {
    let mut rig = session(deferring(), arrival());
    assert_eq!(rig.siblings, ["mail.test"]);
    rig.input(Input::Sibling(sibling(START.plus(DAY)))).says("RCPT TO:<c@d>\r\n");
    assert_eq!(rig.take(), "");
    assert_eq!(rig.replay(), ["EHLO mail.test", "MAIL FROM:<a@b>", "RCPT TO:<c@d>"]);
    assert!(linked(&rig));
    assert_eq!(rig.decision.as_ref().map(|decision| decision.outcome), Some(Outcome::HandedOff));
    assert!(rig.granted.is_some(), "it has gone through every test itself");
}

#[test]
fn the_reply_to_a_recipient_waits_for_the_answer_and_no_longer_than_the_policy_says() {
    let mut rig = session(deferring(), arrival());
    rig.says("RCPT TO:<c@d>\r\n");
    assert_eq!(rig.take(), "");
    rig.seconds(2).input(Input::Sibling(sibling(START.plus(DAY))));
    assert!(rig.handoff.is_some() && rig.take().is_empty());

    let mut rig = session(deferring(), arrival());
    rig.says("RCPT TO:<c@d>\r\n").seconds(2).input(Input::Sibling(None));
    assert_eq!(rig.take(), DEFERRED);
    assert!(rig.granted.is_some() && !linked(&rig));

    let mut rig = session(deferring(), arrival());
    rig.says("RCPT TO:<c@d>\r\n").seconds(6);
    assert_eq!(rig.take(), DEFERRED);
    // What comes now comes too late, and the next recipient hears the same at once.
    rig.input(Input::Sibling(sibling(START.plus(DAY)))).says("RCPT TO:<e@f>\r\n");
    assert_eq!(rig.take(), DEFERRED);
    assert!(rig.handoff.is_none() && !linked(&rig));

    // Nothing but a recipient waits.
    let mut rig = session(deferring(), arrival());
    rig.says("NOOP\r\n").says("QUIT\r\n");
    assert!(rig.take().starts_with("250 2.0.0 Ok\r\n221 "));
}

#[test]
fn what_the_other_address_has_not_passed_counts_for_nothing() {
    let mut stamps = Stamps::all_until(START.plus(DAY));
    stamps.set(Test::Pipelining, Some(START));
    let mut rig = session(deferring(), arrival());
    rig.input(Input::Sibling(sibling(START.plus(DAY)).map(|sibling| Sibling { stamps, ..sibling })));
    rig.says("RCPT TO:<c@d>\r\n");
    assert_eq!(rig.take(), DEFERRED);
    // Its own list answers are asked for itself.
    stamps.set(Test::Pipelining, Some(START.plus(DAY)));
    stamps.set(Test::Dnsbl, None);
    let mut rig = session(deferring(), arrival());
    rig.input(Input::Sibling(sibling(START.plus(DAY)).map(|sibling| Sibling { stamps, ..sibling })));
    rig.says("RCPT TO:<c@d>\r\n");
    assert!(rig.handoff.is_some());
}

#[test]
fn a_failure_stands_whatever_the_other_address_has_passed() {
    let mut rig = session(deferring(), arrival());
    rig.input(Input::Sibling(sibling(START.plus(DAY)))).says("NOOP\r\nNOOP\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.take().contains("550 5.5.1 Protocol error"));
    assert!(rig.handoff.is_none() && rig.granted.is_none());

    // Whoever does not wait for the reply has sent ahead.
    let mut rig = session(deferring(), arrival());
    rig.says("RCPT TO:<c@d>\r\n").blurts("DATA\r\n");
    assert!(rig.take().starts_with("550 5.5.1 Protocol error"), "{}", rig.sent);
    assert!(rig.events.iter().any(|event| matches!(event, Event::Pipelining(..))));
    let mut policy = deferring();
    policy.pipelining.action = Action::Drop;
    let mut rig = session(policy, arrival());
    rig.says("RCPT TO:<c@d>\r\n").blurts("DATA\r\n");
    assert!(rig.take().starts_with("521 5.5.1 Protocol error") && rig.closed);
}

#[test]
fn a_client_that_leaves_while_it_waits_has_left() {
    let mut rig = session(deferring(), arrival());
    rig.says("RCPT TO:<c@d>\r\n").input(Input::Eof);
    assert!(rig.closed && rig.take().is_empty());
    let mut rig = session(deferring(), arrival());
    rig.says("RCPT TO:<c@d>\r\n").input(Input::Shutdown);
    assert!(rig.closed && rig.take().starts_with("421 "));
}

#[test]
fn on_a_backup_a_linked_client_is_served_and_earns_nothing() {
    let mut rig = session(deferring(), Arrival { may_pass: false, ..arrival() });
    rig.input(Input::Sibling(sibling(START.plus(DAY)))).says("RCPT TO:<c@d>\r\n");
    assert!(rig.handoff.is_some() && rig.granted.is_none());
    // STARTTLS that is the MTA's waits like a recipient: behind it nothing can be put off.
    let mut rig = session(deferring(), Arrival { may_pass: false, ..arrival() });
    rig.says("STARTTLS\r\n");
    assert_eq!(rig.take(), "");
    rig.input(Input::Sibling(sibling(START.plus(DAY))));
    assert_eq!(rig.replay(), ["EHLO mail.test", "STARTTLS"]);
}

#[test]
fn nobody_is_asked_for_who_would_not_be_deferred_and_nobody_twice() {
    let asked = |policy: Policy, arrival: Arrival| session(policy, arrival).siblings;
    assert!(asked(Policy { after_tests: AfterTests::Relay, ..deferring() }, arrival()).is_empty());
    assert!(asked(Policy { link: None, ..deferring() }, arrival()).is_empty());
    assert!(asked(deferring(), Arrival { tagged: true, ..arrival() }).is_empty());
    let mut early = Rig::with(deferring(), arrival());
    early.blurts("EHLO mail.test\r\n").lists_say(unlisted()).seconds(6);
    assert!(early.siblings.is_empty(), "it is refused already");
    let mut rig = session(deferring(), arrival());
    rig.input(Input::Sibling(None)).says("EHLO other.test\r\n").says("HELO third.test\r\n");
    assert_eq!(rig.siblings, ["mail.test"]);
}
