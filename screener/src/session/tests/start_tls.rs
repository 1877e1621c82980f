//! STARTTLS that is ours to carry out: what holds before, in and behind the handshake.

use std::time::Duration;

use bytes::Bytes;

use super::rig::{AGREED, DAY, Rig, START, arrival, listed, policy, unlisted};
use crate::pass::Stamps;
use crate::session::{Action, AfterTests, Arrival, Event, Input, Moment, Outcome, Pace, Standing};

const READY: &str = "220 2.0.0 Ready to start TLS\r\n";
const BEFORE: &str = "250-mx.test\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250 8BITMIME\r\n";
const BEHIND: &str = "250-mx.test\r\n250-SIZE 1000\r\n250 8BITMIME\r\n";

fn with_certificate() -> Arrival {
    Arrival { terminates_tls: true, ..arrival() }
}

/// Up to the complete greeting.
fn greeted() -> Rig {
    let mut rig = Rig::with(policy(), with_certificate());
    rig.lists_say(unlisted()).seconds(6).take();
    rig
}

/// Up to the end of the handshake.
fn under_tls() -> Rig {
    let mut rig = greeted();
    rig.says("EHLO c.test\r\n").says("STARTTLS\r\n").shakes_hands().take();
    rig
}

#[test]
fn a_client_starts_tls_says_ehlo_again_and_is_handed_over_with_what_it_said_inside() {
    let mut rig = greeted();
    rig.says("EHLO outside.test\r\n");
    assert_eq!(rig.take(), BEFORE);
    rig.says("STARTTLS\r\n");
    assert_eq!((rig.take().as_str(), rig.handshakes, rig.handoff.is_some()), (READY, 1, false));
    assert!(rig.granted.is_none(), "STARTTLS is not the end of the tests");
    rig.shakes_hands().says("EHLO inside.test\r\n");
    assert_eq!(rig.take(), BEHIND, "STARTTLS is not offered again");
    rig.says("MAIL FROM:<a@b.test>\r\n").says("RCPT TO:<x@example.test>\r\n");
    let replay = ["EHLO inside.test", "MAIL FROM:<a@b.test>", "RCPT TO:<x@example.test>"];
    assert_eq!(rig.replay(), replay.map(Bytes::from));
    assert_eq!(rig.handoff.as_ref().and_then(|handoff| handoff.tls), Some(AGREED));
    assert_eq!(rig.events, [Event::Connect, Event::TlsEstablished(AGREED), Event::PassNew]);
    assert_eq!(rig.decision.as_ref().and_then(|decision| decision.tls), Some(AGREED));
    assert!(rig.granted.is_some());
}

#[test]
fn nothing_said_before_the_handshake_counts_behind_it() {
    let mut rig = greeted();
    rig.says("EHLO c.test\r\n").says("MAIL FROM:<a@b.test>\r\n").says("STARTTLS\r\n").shakes_hands().take();
    rig.says("RCPT TO:<x@example.test>\r\n");
    assert_eq!(rig.take(), "503 5.5.1 Error: need MAIL command\r\n");
    rig.says("MAIL FROM:<a@b.test>\r\n");
    assert_eq!(rig.take(), "503 5.5.1 Error: send HELO/EHLO first\r\n");
}

#[test]
fn plain_text_behind_starttls_is_thrown_away_and_is_evidence() {
    let mut rig = greeted();
    rig.says("EHLO c.test\r\n").says("STARTTLS\r\nMAIL FROM:<evil@b.test>\r\n").shakes_hands();
    rig.take();
    let ahead = Bytes::from_static(b"MAIL FROM:<evil@b.test>\r\n");
    assert!(rig.events.contains(&Event::Pipelining("STARTTLS".to_owned(), ahead)), "{:?}", rig.events);
    rig.says("EHLO c.test\r\n");
    assert_eq!(rig.take(), BEHIND, "the reply to EHLO and to nothing else");
    rig.says("MAIL FROM:<a@b.test>\r\n").take();
    rig.says("RCPT TO:<x@example.test>\r\n");
    assert_eq!(rig.take(), "550 5.5.1 Protocol error; session=000000000abc\r\n");
    assert!(rig.granted.is_none() && rig.handoff.is_none());
}

#[test]
fn half_a_line_behind_starttls_is_no_part_of_the_first_line_under_tls() {
    let mut policy = policy();
    policy.pipelining.action = Action::Ignore;
    let mut rig = Rig::with(policy, with_certificate());
    rig.lists_say(unlisted()).seconds(6).says("EHLO c.test\r\n").says("STARTTLS\r\nNOOP ").shakes_hands().take();
    rig.says("EHLO c.test\r\n");
    assert_eq!(rig.take(), BEHIND);
}

#[test]
fn starttls_under_tls_and_with_an_argument_are_refused() {
    let mut rig = under_tls();
    rig.says("STARTTLS\r\n");
    assert_eq!(rig.take(), "554 5.5.1 Error: TLS already active\r\n");
    let mut rig = greeted();
    rig.says("EHLO c.test\r\n").take();
    rig.says("STARTTLS now\r\n");
    assert_eq!((rig.take().as_str(), rig.handshakes), ("501 5.5.4 Syntax: STARTTLS\r\n", 0));
}

#[test]
fn the_deep_tests_go_on_under_tls() {
    let mut rig = under_tls();
    rig.says("EHLO c.test\n").says("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@example.test>\r\n");
    assert!(rig.take().ends_with("550 5.5.1 Protocol error; session=000000000abc\r\n"));
    let failed = rig.events.iter().filter(|event| matches!(event, Event::BareNewline(_) | Event::Pipelining(..)));
    assert_eq!(failed.count(), 2);
    rig.says("GET / HTTP/1.1\r\n");
    assert!(rig.closed && rig.take().starts_with("521 5.7.0"));
}

#[test]
fn a_refused_client_gets_tls_and_hears_its_refusal_inside() {
    let mut rig = Rig::with(policy(), with_certificate());
    rig.lists_say(listed(4)).seconds(6).says("EHLO c.test\r\n").says("STARTTLS\r\n");
    assert!(rig.take().ends_with(READY));
    rig.shakes_hands().says("EHLO c.test\r\n").says("MAIL FROM:<a@b.test>\r\n").take();
    rig.says("RCPT TO:<x@example.test>\r\n");
    assert!(rig.take().starts_with("550 5.7.1 Service unavailable; client [203.0.113.5] blocked using zen.test"));
}

#[test]
fn a_client_to_be_deferred_hears_so_inside() {
    let mut policy = policy();
    policy.after_tests = AfterTests::Defer;
    let mut rig = Rig::with(policy, Arrival { may_pass: false, ..with_certificate() });
    rig.lists_say(unlisted()).seconds(6).says("EHLO c.test\r\n").says("STARTTLS\r\n").shakes_hands();
    rig.says("EHLO c.test\r\n").says("MAIL FROM:<a@b.test>\r\n").take();
    rig.says("RCPT TO:<x@example.test>\r\n");
    assert!(rig.take().starts_with("450 4.3.2 Service currently unavailable"));
}

#[test]
fn an_answer_of_the_lists_that_comes_in_the_handshake_counts() {
    let mut rig = Rig::with(policy(), with_certificate());
    rig.seconds(6).says("EHLO c.test\r\n").says("STARTTLS\r\n").lists_say(listed(4)).shakes_hands();
    rig.says("EHLO c.test\r\n").says("MAIL FROM:<a@b.test>\r\n").take();
    rig.says("RCPT TO:<x@example.test>\r\n");
    assert!(rig.take().starts_with("550 5.7.1"));
}

#[test]
fn a_failed_handshake_ends_the_session_and_is_no_evidence() {
    let mut rig = greeted();
    rig.says("EHLO c.test\r\n").says("STARTTLS\r\n").seconds(1).take();
    rig.input(Input::TlsFailed("no shared cipher".to_owned()));
    assert_eq!(rig.take(), "", "nothing can be said in the middle of a handshake");
    let hangup = Event::Hangup(Duration::from_secs(1), Moment::AfterHandshake);
    assert_eq!(rig.events[1..], [Event::TlsFailed("no shared cipher".to_owned()), hangup, Event::Disconnect]);
    let decision = rig.decision.as_ref().expect("a decision");
    assert_eq!((decision.outcome, decision.evidence.len()), (Outcome::Left, 0));
    assert!(rig.closed);
}

#[test]
fn a_client_that_stalls_in_the_handshake_is_let_go() {
    let mut rig = greeted();
    rig.says("EHLO c.test\r\n").says("STARTTLS\r\n").take();
    rig.seconds(59);
    assert!(!rig.closed);
    rig.seconds(1);
    assert!(rig.closed && rig.take().is_empty());
    assert!(rig.events.contains(&Event::TimeLimit("STARTTLS".to_owned())), "{:?}", rig.events);
}

#[test]
fn the_handshake_takes_no_longer_than_a_command_may() {
    let mut policy = policy();
    policy.command_time = Pace::steady(Duration::from_secs(10));
    let mut rig = Rig::with(policy, with_certificate());
    rig.lists_say(unlisted()).seconds(6).says("STARTTLS\r\n").seconds(10);
    assert!(rig.closed);
}

#[test]
fn starttls_is_offered_with_a_certificate_though_the_mta_has_none() {
    let mut rig = Rig::of_mta(["SIZE 1000", "8BITMIME"], with_certificate());
    rig.lists_say(unlisted()).seconds(6).take();
    rig.says("EHLO c.test\r\n");
    assert_eq!(rig.take(), "250-mx.test\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250 STARTTLS\r\n");
}

#[test]
fn whoever_owes_no_test_gets_tls_here_if_the_mta_has_none() {
    let passed = Stamps::all_until(START.plus(DAY));
    for arrival in [
        Arrival { stamps: Some(passed), ..with_certificate() },
        Arrival { standing: Standing::Permitted, ..with_certificate() },
    ] {
        let mut rig = Rig::of_mta(["8BITMIME"], arrival.clone());
        assert_eq!(rig.take(), "220 mx.test ESMTP\r\n", "at once");
        // It owes no test and gets none, not even that of the line ends.
        rig.says("EHLO c.test\r\n").says("STARTTLS\r\n").shakes_hands().says("EHLO c.test\n").take();
        rig.says("MAIL FROM:<a@b.test>\r\n").says("RCPT TO:<x@example.test>\r\n");
        assert_eq!(rig.replay().len(), 3);
        assert!(rig.handoff.as_ref().is_some_and(|handoff| handoff.tls == Some(AGREED)));
        assert!(rig.granted.is_none(), "who is not tested earns nothing");
        let at_once = Rig::with(policy(), arrival);
        assert!(at_once.handoff.is_some(), "an MTA with a certificate of its own has it at once");
    }
}
