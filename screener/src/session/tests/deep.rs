//! The deep tests, and what is as good as one of them.

use bytes::Bytes;

use super::rig::{Rig, START, arrival, listed, policy, unlisted};
use crate::pass::{Stamps, Test};
use crate::session::{Action, Arrival, DnsblReport, Event, Features, Input};

/// What a client behind the greeting says, with a reply each; then whether the pipelining test has seen something.
fn is_ahead(lines: &[&str], ahead: &str) -> bool {
    let mut rig = Rig::greeted();
    for line in lines {
        rig.says(format!("{line}\r\n"));
    }
    rig.says(ahead);
    rig.events.iter().any(|event| matches!(event, Event::Pipelining(..)))
}

#[test]
fn pipelining_is_seen_wherever_a_client_must_wait() {
    let mail = ["EHLO c", "MAIL FROM:<a@b>"];
    for (lines, command) in [
        (&[][..], "EHLO c"),
        (&[], "HELO c"),
        (&[], "NOOP"),
        (&[], "XYZZY"),
        (&[], "QUIT"),
        (&mail[..1], "MAIL FROM:<a@b>"),
        (&mail[..1], "STARTTLS"),
        (&mail[..1], "RSET"),
        (&mail, "RCPT TO:<c@d>"),
        (&mail, "DATA"),
    ] {
        assert!(is_ahead(lines, &format!("{command}\r\nN")), "behind {command}");
        assert!(!is_ahead(lines, &format!("{command}\r\n")), "{command} alone");
    }
}

#[test]
fn a_command_that_comes_before_the_reply_has_arrived_was_sent_ahead() {
    let mut rig = Rig::greeted();
    rig.says("EHLO c\r\n").blurts("MAIL FROM:<a@b>\r\n");
    assert!(rig.events.contains(&Event::Pipelining("EHLO".to_owned(), Bytes::from_static(b"MAIL FROM:<a@b>\r\n"))));
    rig.says("RCPT TO:<c@d>\r\n");
    assert!(rig.take().ends_with("550 5.5.1 Protocol error; session=000000000abc\r\n"));
    assert!(rig.granted.is_none());
}

#[test]
fn a_first_command_that_crosses_the_greeting_was_sent_ahead() {
    let mut rig = Rig::greeted();
    rig.blurts("EHLO c\r\n");
    assert!(matches!(&rig.events[1], Event::Pipelining(behind, _) if behind == "CONNECT"));
}

#[test]
fn the_rest_of_a_line_that_was_begun_before_the_greeting_is_not_another_offence() {
    let mut rig = Rig::new();
    rig.says("EH").lists_say(unlisted()).blurts("LO c\r\n");
    let offences = rig.events.iter().filter(|event| matches!(event, Event::Pregreet(..) | Event::Pipelining(..)));
    assert_eq!(offences.count(), 1);
    assert!(matches!(&rig.events[1], Event::Pregreet(..)), "{:?}", rig.events);
    rig.blurts("MAIL FROM:<a@b>\r\n");
    assert!(rig.events.iter().any(|event| matches!(event, Event::Pipelining(behind, _) if behind == "EHLO")));
}

#[test]
fn under_drop_a_command_sent_ahead_is_the_last() {
    let mut rig = Rig::greeted_under(|policy| policy.pipelining.action = Action::Drop);
    rig.says("EHLO c\r\n").take();
    rig.blurts("MAIL FROM:<a@b>\r\n");
    assert_eq!(rig.take(), "521 5.5.1 Protocol error; session=000000000abc\r\n");
    assert!(rig.closed);
}

#[test]
fn the_data_of_bdat_is_not_sent_ahead() {
    assert!(!is_ahead(&["EHLO c", "MAIL FROM:<a@b>"], "BDAT 4 LAST\r\nx\r\n"));
}

#[test]
fn what_a_list_says_is_told_rather_than_a_broken_rule() {
    let mut rig = Rig::new();
    rig.says("EHLO c\r\n").lists_say(listed(4)).says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.take().contains("\r\n550 5.7.1 Service unavailable; client [203.0.113.5] blocked using zen.test"));
}

#[test]
fn a_line_in_pieces_is_no_pipelining() {
    let mut rig = Rig::greeted();
    rig.says("EHLO c\r\n").says("MAI");
    rig.blurts("L FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.handoff.is_some() && rig.granted.is_some());
}

#[test]
fn each_kind_of_odd_newline_is_named_and_never_replayed() {
    for (line, found) in [
        ("EHLO c\n", "a bare LF"),
        ("EHLO c\rd\r\n", "a bare CR"),
        ("EHLO c\r\r\n", "a bare CR"),
        ("EHLO c\0\r\n", "a NUL"),
    ] {
        let mut rig = Rig::greeted_under(|policy| policy.bare_newline.action = Action::Ignore);
        rig.says(line);
        let taken = rig.take().starts_with("250-");
        assert_eq!(taken, found == "a bare LF", "{line:?}: what could be two lines to the MTA is no command");
        rig.says("HELO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
        assert_eq!(rig.replay()[0], "HELO c");
        assert!(rig.granted.is_none());
        let reason = format!("sent {found} in a command line");
        assert_eq!(rig.decision.unwrap().evidence[0].reason, reason);
    }
}

#[test]
fn what_is_no_smtp_is_what_the_operator_says_and_headers_and_no_text() {
    let is_non_smtp = |line: &[u8]| {
        let mut rig = Rig::greeted_under(|policy| policy.forbidden = "NOOP FOO".parse().unwrap());
        rig.says([line, b"\r\n"].concat());
        rig.closed
    };
    for line in [&b"foo bar"[..], b"Received: from x", b"\xff\xfe"] {
        assert!(is_non_smtp(line), "{}", line.escape_ascii());
    }
    for line in [&b"GET / HTTP/1.1"[..], b"NOOP", "GRÜSSE".as_bytes()] {
        assert!(!is_non_smtp(line), "{}", line.escape_ascii());
    }
}

/// A client that the MTA may have told of PIPECONNECT, with every pass expired.
fn acquainted(weight: i32) -> Rig {
    let mut policy = policy();
    policy.pregreet.pipeconnect_weight = weight;
    let expired = Stamps::all_until(START);
    Rig::start(policy, Features::from_mta(["PIPECONNECT", "8BITMIME"]), Arrival { stamps: Some(expired), ..arrival() })
}

#[test]
fn one_early_ehlo_of_a_client_that_the_mta_may_have_told_so_costs_the_wait_and_nothing_else() {
    let mut rig = acquainted(1);
    rig.says("EHL").says("O c.test\r\n").lists_say(unlisted()).seconds(5);
    assert_eq!(rig.take(), "220-mx.test ESMTP\r\n");
    rig.seconds(1);
    assert_eq!(rig.take(), "220-mx.test ESMTP\r\n220 mx.test ESMTP\r\n250-mx.test\r\n250 8BITMIME\r\n"[19..]);
    rig.says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.granted.unwrap().get(Test::Pregreet).is_some() && rig.handoff.is_some());
    assert!(matches!(rig.events[1], Event::EarlyHello(..)));
    assert_eq!(rig.decision.unwrap().evidence[0].weight, 1);
}

#[test]
fn an_early_ehlo_counts_beside_what_the_lists_say() {
    let mut rig = acquainted(1);
    let near = DnsblReport { complete: true, ..listed(2) };
    rig.says("EHLO c.test\r\n").lists_say(near).seconds(6);
    rig.says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.take().ends_with("550 5.5.1 Protocol error; session=000000000abc\r\n") && rig.granted.is_none());
}

#[test]
fn anything_but_one_clean_ehlo_is_speaking_first_whoever_says_it() {
    for said in ["EHLO c\r\nMAIL FROM:<a@b>\r\n", "EHLO c\n", "EHLO\r\n", "HELO c\r\n", "EHLO c\r\nN", "EHLX"] {
        let mut rig = acquainted(1);
        rig.says(said).lists_say(unlisted()).seconds(6);
        let early = Event::Pregreet(said.len(), std::time::Duration::ZERO, Bytes::from_static(said.as_bytes()));
        assert!(rig.events.contains(&early), "{said:?}: {:?}", rig.events);
    }
    let mut rig = acquainted(1);
    rig.says("EHLO").lists_say(unlisted()).seconds(6);
    assert!(matches!(rig.events[1], Event::Pregreet(4, ..)), "what never became a line");
    let mut rig = acquainted(1);
    rig.says("EHLO c\r\n").seconds(1).says("QUIT\r\n");
    assert!(matches!(rig.events[2], Event::Pregreet(14, ..)));
}

#[test]
fn a_stranger_cannot_have_learned_it() {
    let mut rig = Rig::of_mta(["PIPECONNECT"], arrival());
    rig.says("EHLO c\r\n");
    assert!(matches!(rig.events[1], Event::Pregreet(8, ..)));
    rig.input(Input::Eof);
}
