//! Times, ceilings and stress.

use std::sync::Arc;
use std::time::Duration;

use super::rig::{Rig, arrival, listed, policy, unlisted};
use crate::clock::{Now, UnixTime};
use crate::session::{Action, Ceiling, Event, Features, Input, Outcome, Output, Session};

#[test]
fn stress_shortens_waits_that_go_on_already() {
    let mut rig = Rig::new();
    rig.lists_say(unlisted()).seconds(3);
    assert_eq!(rig.take(), "220-mx.test ESMTP\r\n");
    rig.input(Input::Stress(true));
    assert_eq!(rig.take(), "220 mx.test ESMTP\r\n", "two seconds are over");
    rig.seconds(9);
    assert!(!rig.closed);
    rig.seconds(1);
    assert!(rig.closed && rig.take().starts_with("421 4.4.2 "), "a command has ten seconds now");
}

#[test]
fn the_end_of_stress_lengthens_waits_again() {
    let mut rig = Rig::with(policy(), crate::session::Arrival { stressed: true, ..arrival() });
    rig.lists_say(unlisted()).seconds(1).input(Input::Stress(false)).seconds(4);
    assert_eq!(rig.take(), "220-mx.test ESMTP\r\n");
    rig.seconds(1);
    assert_eq!(rig.take(), "220 mx.test ESMTP\r\n");
}

#[test]
fn a_silent_list_holds_nobody_under_stress() {
    let mut rig = Rig::new();
    rig.input(Input::Stress(true)).seconds(2);
    assert!(rig.take().ends_with("220 mx.test ESMTP\r\n"));
}

#[test]
fn bytes_that_trickle_in_do_not_put_the_deadline_off() {
    let mut rig = Rig::greeted();
    for _ in 0..299 {
        rig.seconds(1).says("x");
    }
    assert!(!rig.closed);
    rig.seconds(1);
    assert!(rig.closed && rig.events.contains(&Event::TimeLimit("CONNECT".to_owned())));
}

#[test]
fn a_session_ends_whatever_it_does_if_it_is_not_handed_over() {
    let mut rig = Rig::greeted();
    for _ in 0..8 {
        rig.seconds(100).says("NOOP\r\n");
    }
    rig.seconds(93);
    assert!(!rig.closed);
    rig.seconds(1);
    assert!(rig.closed && rig.take().ends_with("421 4.4.2 mx.test Error: timeout exceeded\r\n"));
}

#[test]
fn a_listed_client_waits_no_longer_than_until_that_is_certain() {
    let mut rig = Rig::new();
    let open = crate::session::DnsblReport { complete: false, lowest: 2, ..listed(4) };
    rig.lists_say(open);
    assert_eq!(rig.take(), "220-mx.test ESMTP\r\n", "an allow list could still save it");
    rig.lists_say(listed(4));
    assert_eq!(rig.take(), "220 mx.test ESMTP\r\n");
    rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.take().contains("550 5.7.1 Service unavailable; client [203.0.113.5] blocked using zen.test"));
}

#[test]
fn what_is_said_before_the_greeting_is_bounded() {
    let mut rig = Rig::under(|policy| policy.pregreet.action = Action::Ignore);
    rig.says([b'x'; 8_192]);
    assert!(!rig.closed);
    rig.says("x");
    let expected = "220-mx.test ESMTP\r\n220 mx.test ESMTP\r\n421 mx.test Service unavailable - try again later\r\n";
    assert_eq!(rig.take(), expected, "the greeting is lawful");
    assert!(rig.closed && rig.events.contains(&Event::LengthLimit("CONNECT".to_owned())));
}

#[test]
fn the_log_calls_what_nobody_knows_as_postscreen_does() {
    let mut rig = Rig::greeted_under(|policy| policy.commands = 1);
    rig.says("XYZZY 1\r\n").says("NOOP\r\n");
    assert!(rig.events.contains(&Event::CountLimit("UNIMPLEMENTED".to_owned())));
    let mut rig = Rig::greeted_under(|policy| policy.commands = 1);
    rig.says("AUTH PLAIN\r\n").says("NOOP\r\n");
    assert!(rig.events.contains(&Event::CountLimit("AUTH".to_owned())));
}

#[test]
fn a_client_at_a_ceiling_hears_which_and_is_logged_like_any_other() {
    for (ceiling, words) in [
        (Ceiling::Client, "421 4.7.0 Error: too many connections\r\n"),
        (Ceiling::Screening, "421 4.3.2 All screening ports are busy\r\n"),
    ] {
        let now = Now { instant: std::time::Instant::now(), unix: UnixTime(1) };
        let features = Arc::new(Features::default());
        let mut session = Session::turned_away(Arc::new(policy()), features, arrival(), ceiling, now);
        let outputs: Vec<_> = std::iter::from_fn(|| session.poll_output()).collect();
        let [
            Output::Log(Event::Connect),
            Output::Log(Event::Limited(logged)),
            Output::Decided(decision),
            Output::Send(reply),
            Output::Log(Event::Disconnect),
            Output::Close,
        ] = &outputs[..]
        else {
            panic!("{outputs:?}")
        };
        assert_eq!((*logged, decision.outcome, &reply[..]), (ceiling, Outcome::Limited, words.as_bytes()));
        assert!(session.is_closed() && session.deadline().is_none());
    }
}

#[test]
fn an_mta_that_takes_nobody_is_logged_as_postscreen_does() {
    let stamps = crate::pass::Stamps::all_until(super::rig::START.plus(Duration::from_secs(9)));
    let mut rig = Rig::with(policy(), crate::session::Arrival { stamps: Some(stamps), ..arrival() });
    rig.input(Input::HandoffFailed(None));
    assert_eq!(rig.take(), "421 4.3.2 All server ports are busy\r\n");
    assert!(rig.events.ends_with(&[Event::Limited(Ceiling::Server), Event::Disconnect]));
}
