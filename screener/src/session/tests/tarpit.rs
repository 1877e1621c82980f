//! Who is answered slowly, how slowly, and how that ends.

use std::time::Duration;

use super::rig::{Rig, arrival, listed, policy, unlisted};
use crate::session::{Action, Arrival, Event, Input, Moment, Outcome, Standing};

fn pregreeter() -> Rig {
    let mut rig = Rig::under(|policy| policy.pregreet.action = Action::Tarpit);
    rig.says("EHLO c.test\r\nMAIL FROM:<a@b>\r\n");
    rig
}

#[test]
fn an_early_talker_hears_every_reply_a_byte_a_second() {
    let mut rig = pregreeter();
    assert!(rig.events.contains(&Event::Tarpit));
    assert_eq!(rig.take(), "220-mx.test ESMTP\r\n", "the first line had gone out before it spoke");
    for expected in ["2", "2", "0", " ", "m"] {
        rig.seconds(1);
        assert_eq!(rig.take(), expected);
    }
    rig.seconds(61);
    let said = rig.take();
    assert!(said.starts_with("x.test ESMTP\r\n250-mx.test\r\n250-SIZE"), "{said}");
    assert!(said.ends_with("250 8BITMIME\r\n250 2"), "its commands are carried out one after the other: {said}");
}

#[test]
fn what_a_client_says_meanwhile_waits_and_is_not_kept_without_bound() {
    let mut rig = pregreeter();
    for _ in 0..100 {
        rig.says([b'x'; 1_000]);
    }
    assert!(!rig.closed && rig.events.iter().all(|event| !matches!(event, Event::LengthLimit(_))));
}

#[test]
fn the_first_recipient_is_the_end() {
    let mut rig = Rig::under(|policy| policy.pipelining.action = Action::Tarpit);
    rig.lists_say(super::rig::unlisted()).seconds(6).take();
    rig.says("EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n").seconds(200);
    let said = rig.take();
    assert!(said.ends_with("\r\n250 2.1.0 Ok\r\n521 5.5.1 Protocol error; session=000000000abc\r\n"), "{said}");
    assert!(rig.closed);
    let reply = "521 5.5.1 Protocol error; session=000000000abc".to_owned();
    assert!(rig.events.iter().any(|event| matches!(event, Event::Reject { reply: it, .. } if *it == reply)));
    assert_eq!(rig.decision.map(|decision| decision.outcome), Some(Outcome::Refused));
}

#[test]
fn without_a_place_it_is_drop() {
    let mut policy = policy();
    policy.dnsbl.as_mut().unwrap().action = Action::Tarpit;
    let mut rig = Rig::with(policy, arrival());
    rig.place = false;
    rig.lists_say(listed(4));
    assert!(rig.events.contains(&Event::TarpitFull) && rig.closed);
    assert!(rig.take().contains("\r\n220 mx.test ESMTP\r\n521 5.7.1 Service unavailable; client [203.0.113.5]"));
}

#[test]
fn a_tarpitted_class_is_answered_slowly_from_the_first_byte_on() {
    let mut rig = Rig::with(policy(), Arrival { standing: Standing::Tarpitted, ..arrival() });
    assert_eq!(rig.events, [Event::Connect, Event::Denylisted, Event::Tarpit]);
    rig.waits(Duration::from_millis(2_500));
    assert_eq!(rig.take(), "22");
    rig.seconds(30).says("HELO c\r\n").seconds(30).says("MAIL FROM:<a@b>\r\n").seconds(30).take();
    rig.says("RCPT TO:<c@d>\r\n").seconds(100);
    assert_eq!(rig.take(), "521 5.3.2 Service currently unavailable; session=000000000abc\r\n");
    assert!(rig.closed && rig.handoff.is_none());
}

#[test]
fn who_keeps_failing_is_answered_slowly_when_it_fails_again_and_let_in_when_it_does_not() {
    let slow = || Arrival { slow: true, ..arrival() };
    let mut rig = Rig::with(policy(), slow());
    rig.says("EHLO c.test\r\n");
    assert!(rig.events.contains(&Event::Tarpit), "{:?}", rig.events);
    rig.seconds(100).says("MAIL FROM:<a@b>\r\n").seconds(30).says("RCPT TO:<c@d>\r\n").seconds(100);
    assert!(rig.take().ends_with("521 5.5.1 Protocol error; session=000000000abc\r\n") && rig.closed);
    let decision = rig.decision.unwrap();
    assert_eq!(decision.failed.iter().collect::<Vec<_>>(), [crate::pass::Test::Pregreet]);
    assert!(decision.lasted >= Duration::from_secs(100));

    let mut policy = policy();
    policy.pregreet.action = Action::Ignore;
    let mut ignored = Rig::with(policy.clone(), slow());
    ignored.says("EHLO c.test\r\n");
    assert!(!ignored.events.contains(&Event::Tarpit), "what is ignored stays so");
    let mut well_behaved = Rig::with(policy, slow());
    well_behaved
        .lists_say(unlisted())
        .seconds(6)
        .says("EHLO c\r\n")
        .says("MAIL FROM:<a@b>\r\n")
        .says("RCPT TO:<c@d>\r\n");
    assert!(well_behaved.handoff.is_some() && well_behaved.granted.is_some());
}

#[test]
fn leaving_ends_it_at_once() {
    let mut rig = pregreeter();
    rig.seconds(4).input(Input::Eof);
    assert!(rig.closed);
    let hangup = Event::Hangup(Duration::from_secs(4), Moment::AfterHandshake);
    assert!(rig.events.ends_with(&[hangup, Event::Disconnect]));
}

#[test]
fn the_last_words_of_a_session_whose_time_is_over_come_at_once() {
    let mut rig = Rig::under(|policy| {
        policy.pregreet.action = Action::Tarpit;
        policy.command_time.normal = Duration::from_secs(3600);
    });
    rig.says("EHLO c.test\r\n").seconds(899).take();
    rig.seconds(1);
    assert_eq!(rig.take(), "421 4.4.2 mx.test Error: timeout exceeded\r\n");
    assert!(rig.closed);
}

#[test]
fn the_time_of_a_session_is_its_time_in_the_tarpit_too() {
    let mut rig = Rig::under(|policy| {
        policy.pregreet.action = Action::Tarpit;
        policy.tarpit_pace = Duration::from_secs(60);
    });
    rig.says("EHLO c.test\r\n").seconds(899);
    assert!(!rig.closed);
    rig.take();
    rig.seconds(1);
    assert!(rig.closed);
    assert_eq!(rig.take(), "MTP\r\n421 4.4.2 mx.test Error: timeout exceeded\r\n", "a begun reply is finished first");
}

#[test]
fn stress_and_shutdown_empty_the_tarpit() {
    let mut rig = pregreeter();
    rig.input(Input::Stress(true));
    assert!(rig.closed);
    let said = rig.take();
    assert!(said.ends_with("220 mx.test ESMTP\r\n421 mx.test Service unavailable - try again later\r\n"), "{said}");
    let mut rig = pregreeter();
    rig.input(Input::Shutdown);
    assert!(rig.closed && rig.take().ends_with("\r\n421 4.3.2 Service is going down, try again later\r\n"));
}

#[test]
fn vrfy_hears_the_refusal_and_that_is_the_end() {
    let tarpitted = Arrival { standing: Standing::Tarpitted, ..arrival() };
    let mut rig = Rig::of_mta(["VRFY"], tarpitted);
    rig.says("EHLO c\r\n").seconds(60).says("VRFY a@b\r\n").seconds(100);
    assert!(rig.take().ends_with("521 5.3.2 Service currently unavailable; session=000000000abc\r\n"));
    assert!(rig.closed);
}
