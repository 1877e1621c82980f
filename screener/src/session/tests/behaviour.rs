//! What each kind of client meets.

use std::time::Duration;

use bytes::Bytes;

use super::rig::{DAY, Rig, START, arrival, listed, policy, unlisted};
use crate::pass::{Stamps, Test};
use crate::session::{Action, AfterTests, Arrival, DnsblReport, DnsblUnknown, Event, Input, Moment, Standing};

const HELLO: &str = "250-mx.test\r\n250-SIZE 1000\r\n250-STARTTLS\r\n250 8BITMIME\r\n";

#[test]
fn a_client_with_manners_is_handed_over_at_its_first_recipient_and_remembered() {
    let mut rig = Rig::new();
    assert_eq!(rig.take(), "220-mx.test ESMTP\r\n");
    assert!(rig.asked);
    rig.lists_say(unlisted());
    rig.seconds(5);
    assert_eq!(rig.take(), "", "it waits for the whole greet wait");
    rig.seconds(1);
    assert_eq!((rig.take().as_str(), rig.greetings), ("220 mx.test ESMTP\r\n", 1));
    rig.says("EHLO c.test\r\n");
    assert_eq!(rig.take(), HELLO);
    rig.says("MAIL FROM:<a@b.test> SIZE=10\r\n");
    assert_eq!(rig.take(), "250 2.1.0 Ok\r\n");
    rig.says("RCPT TO:<x@example.test> NOTIFY=NEVER\r\n");
    assert_eq!(rig.take(), "", "the reply to RCPT is the MTA's");
    let replay = ["EHLO c.test", "MAIL FROM:<a@b.test> SIZE=10", "RCPT TO:<x@example.test> NOTIFY=NEVER"];
    assert_eq!(rig.replay(), replay.map(Bytes::from));
    assert_eq!(rig.events, [Event::Connect, Event::PassNew]);
    let stamps = rig.granted.expect("a pass");
    assert_eq!(stamps.get(Test::Pregreet), Some(START.plus(DAY + Duration::from_secs(6))));
    assert_eq!(stamps.get(Test::Dnsbl), Some(START.plus(Duration::from_secs(300))));
    assert_eq!(stamps.get(Test::BareNewline), Some(START.plus(30 * DAY + Duration::from_secs(6))));
    assert_eq!((rig.decisions, rig.closed, rig.greetings), (1, false, 1));
}

#[test]
fn an_early_talker_is_logged_and_refused_at_each_recipient_and_not_remembered() {
    let mut rig = Rig::new();
    rig.waits(Duration::from_millis(1_200)).says("EHLO c.test\r\n").lists_say(unlisted());
    assert_eq!(rig.take(), "220-mx.test ESMTP\r\n220 mx.test ESMTP\r\n".to_owned() + HELLO, "the greeting is lawful");
    rig.says("MAIL FROM:<a@b.test>\r\n").take();
    rig.says("RCPT TO:<x@example.test>\r\n");
    assert_eq!(rig.take(), "550 5.5.1 Protocol error; session=000000000abc\r\n");
    rig.says("RCPT TO:<y@example.test>\r\nQUIT\r\n");
    assert!(rig.take().ends_with("221 2.0.0 Bye\r\n"));
    let said = Bytes::from_static(b"EHLO c.test\r\n");
    assert_eq!(rig.events[1], Event::Pregreet(13, Duration::from_millis(1_200), said));
    assert!(rig.closed && rig.granted.is_none() && rig.handoff.is_none());
    let rejected = rig.events.iter().filter(|event| matches!(event, Event::Reject { .. })).count();
    assert_eq!((rejected, rig.decisions), (2, 1));
}

#[test]
fn an_early_talker_under_drop_gets_a_lawful_greeting_and_the_reason() {
    let mut policy = policy();
    policy.pregreet.action = Action::Drop;
    let mut rig = Rig::with(policy, arrival());
    rig.says("EHLO c.test\r\n");
    let expected = "220-mx.test ESMTP\r\n220 mx.test ESMTP\r\n521 5.5.1 Protocol error; session=000000000abc\r\n";
    assert_eq!(rig.take(), expected);
    assert!(rig.closed);
    assert_eq!(rig.greetings, 0, "it may not speak");
    assert_eq!(rig.events.last(), Some(&Event::Disconnect));
}

#[test]
fn an_early_talker_under_ignore_waits_like_everybody_and_is_tested_again_next_time() {
    let mut policy = policy();
    policy.pregreet.action = Action::Ignore;
    let mut rig = Rig::with(policy, arrival());
    rig.says("EHLO c.test\r\n").lists_say(unlisted()).seconds(5);
    assert_eq!(rig.take(), "220-mx.test ESMTP\r\n");
    rig.seconds(1).says("MAIL FROM:<a@b.test>\r\n").says("RCPT TO:<x@example.test>\r\n");
    assert!(rig.handoff.is_some() && rig.granted.is_none());
}

#[test]
fn a_listed_client_hears_the_lists_name() {
    let mut rig = Rig::new();
    rig.lists_say(listed(4)).seconds(6);
    rig.says("HELO c.test\r\n").says("MAIL FROM:<>\r\n").says("RCPT TO:<x@example.test>\r\n");
    let refusal =
        "550 5.7.1 Service unavailable; client [203.0.113.5] blocked using zen.test; session=000000000abc\r\n";
    assert!(rig.take().ends_with(refusal));
    assert!(rig.events.contains(&Event::DnsblRank(4)));
    assert!(rig.granted.is_none());
}

#[test]
fn a_listed_client_under_drop_is_gone_as_soon_as_the_score_cannot_fall_below_the_threshold() {
    let mut policy = policy();
    policy.dnsbl.as_mut().unwrap().action = Action::Drop;
    let mut rig = Rig::with(policy, arrival());
    let pending = DnsblReport { complete: false, lowest: 2, highest: 8, ..listed(4) };
    rig.lists_say(pending.clone());
    assert!(!rig.closed, "an allow list that has not answered could still save it");
    rig.lists_say(DnsblReport { lowest: 3, ..pending });
    assert!(rig.closed);
    assert!(rig.take().contains("\r\n220 mx.test ESMTP\r\n521 5.7.1 Service unavailable; client [203.0.113.5]"));
}

#[test]
fn a_list_that_is_silent_costs_the_wait_and_nothing_more() {
    let mut rig = Rig::new();
    rig.seconds(6);
    assert!(rig.take().ends_with("\r\n220 mx.test ESMTP\r\n"));
    rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    let until = rig.granted.expect("a pass").get(Test::Dnsbl);
    assert_eq!(until, Some(START.plus(Duration::from_secs(66))), "for the shortest time: nobody vouched for it");
}

#[test]
fn an_allow_listed_client_is_spared_the_wait_and_the_dialogue() {
    let mut rig = Rig::new();
    rig.lists_say(allowed(-2, -2));
    let handoff = rig.handoff.as_ref().expect("a handoff at once");
    assert!(handoff.replay.is_empty() && handoff.teaser_sent);
    assert_eq!(rig.granted.unwrap().get(Test::Pipelining), Some(START.plus(Duration::from_secs(300))));
}

fn allowed(score: i32, without_best_ally: i32) -> DnsblReport {
    DnsblReport { score, lowest: score, highest: score, without_best_ally, ..unlisted() }
}

#[test]
fn one_allow_list_alone_spares_the_wait_and_is_not_remembered() {
    let mut rig = Rig::new();
    rig.lists_say(allowed(-2, 0));
    assert!(rig.handoff.as_ref().expect("a handoff at once").replay.is_empty());
    assert_eq!(rig.granted, None);
}

#[test]
fn a_second_allow_list_is_waited_for_since_with_it_the_client_is_remembered() {
    let mut rig = Rig::new();
    let first = DnsblReport { complete: false, lowest: -5, ..allowed(-3, 0) };
    rig.lists_say(first);
    assert!(rig.handoff.is_none());
    rig.lists_say(allowed(-5, -2));
    assert!(rig.handoff.is_some() && rig.granted.is_some());
}

#[test]
fn a_listed_client_that_goes_on_to_the_dialogue_is_told_with_its_whole_score() {
    let mut rig = Rig::new();
    rig.lists_say(DnsblReport { complete: false, lowest: 3, highest: 4, ..listed(3) });
    assert!(rig.take().ends_with("220 mx.test ESMTP\r\n"), "it is refused whatever comes");
    assert!(!rig.events.iter().any(|event| matches!(event, Event::DnsblRank(_))));
    rig.lists_say(listed(4));
    assert!(rig.events.contains(&Event::DnsblRank(4)));
}

#[test]
fn a_listed_client_that_one_allow_list_saves_is_served_and_not_remembered() {
    let mut rig = Rig::new();
    rig.lists_say(allowed(1, 3)).seconds(6);
    rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.handoff.is_some());
    assert_eq!(rig.granted, None);
}

#[test]
fn a_client_passes_as_soon_as_no_missing_answer_can_change_it() {
    let mut stamps = Stamps::all_until(START.plus(DAY));
    stamps.set(Test::Dnsbl, None);
    let known = || Arrival { stamps: Some(stamps), ..arrival() };
    let open = |lowest, highest| DnsblReport { complete: false, lowest, highest, ..unlisted() };
    for (lowest, highest, decided) in [(0, 2, true), (0, 3, false), (-2, 2, false), (-1, 2, true), (-5, -2, true)] {
        let mut rig = Rig::with(policy(), known());
        rig.lists_say(open(lowest, highest));
        assert_eq!(rig.handoff.is_some(), decided, "{lowest} to {highest}");
    }
}

#[test]
fn a_late_answer_counts_as_long_as_the_client_is_here() {
    for action in [Action::Enforce, Action::Drop] {
        let mut policy = policy();
        policy.dnsbl.as_mut().unwrap().action = action;
        let mut rig = Rig::with(policy, arrival());
        rig.seconds(6).says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n");
        rig.take();
        rig.lists_say(listed(3));
        assert_eq!(rig.take(), "", "nothing is said unasked");
        assert!(rig.events.contains(&Event::DnsblRank(3)));
        rig.says("RCPT TO:<c@d>\r\n");
        assert!(rig.take().starts_with("550 5.7.1 Service unavailable; client [203.0.113.5] blocked using zen.test"));
        assert!(rig.granted.is_none() && rig.handoff.is_none());
    }
}

#[test]
fn a_late_answer_counts_while_the_greeting_is_waited_for_too() {
    for action in [Action::Enforce, Action::Drop] {
        let mut rig = Rig::under(|policy| policy.dnsbl.as_mut().unwrap().action = action);
        // One list has given up after a deadline of its own, so all have had their time.
        rig.seconds(2).lists_say(unlisted()).seconds(1).lists_say(listed(4));
        assert!(rig.events.contains(&Event::DnsblRank(4)), "{action:?}: {:?}", rig.events);
        if action == Action::Enforce {
            rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
        }
        assert!(rig.take().contains(" 5.7.1 Service unavailable; client [203.0.113.5] blocked using zen.test"));
        assert!(rig.granted.is_none() && rig.handoff.is_none());
    }
    let mut rig = Rig::new();
    rig.seconds(2).lists_say(unlisted()).lists_say(DnsblReport { score: 2, without_best_ally: 5, ..unlisted() });
    rig.seconds(4).says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.handoff.is_some() && rig.granted.is_none(), "it rests on one allow list alone");
}

#[test]
fn a_decision_holds_the_arithmetic_of_its_score() {
    let mut rig = Rig::new();
    let mut report = listed(4);
    report.hits[0].codes = vec![[127, 0, 0, 4].into()];
    report.hits[0].url = Some("https://zen.test/203.0.113.5".to_owned());
    report.unknown = vec![DnsblUnknown { list: "dead.test".to_owned(), why: "no answer in time".to_owned() }];
    rig.lists_say(report).seconds(6);
    rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.take().contains("blocked using zen.test; see https://zen.test/203.0.113.5; session="));
    rig.says("QUIT\r\n");
    let told = serde_json::to_value(rig.decision.expect("a decision")).unwrap();
    assert_eq!(told["dnsbl"]["score"], 4);
    assert_eq!(told["dnsbl"]["hits"][0]["codes"][0], "127.0.0.4");
    assert_eq!(told["dnsbl"]["unknown"][0]["list"], "dead.test");
    assert_eq!(told["evidence"][0]["reason"], "score 4 at threshold 3: zen.test +4 (127.0.0.4)");
}

#[test]
fn a_client_with_a_valid_pass_goes_to_the_mta_without_a_word() {
    let known = Arrival { stamps: Some(Stamps::all_until(START.plus(DAY))), ..arrival() };
    let rig = Rig::with(policy(), known);
    assert_eq!(rig.sent, "");
    assert_eq!(rig.events, [Event::Connect, Event::PassOld]);
    assert!(!rig.handoff.unwrap().teaser_sent);
}

#[test]
fn a_client_owes_only_the_tests_that_have_expired() {
    let mut stamps = Stamps::all_until(START.plus(DAY));
    stamps.set(Test::Dnsbl, Some(START));
    let mut rig = Rig::with(policy(), Arrival { stamps: Some(stamps), ..arrival() });
    assert_eq!(rig.sent, "", "no teaser: the greet wait is not due");
    rig.lists_say(unlisted());
    assert_eq!(rig.events, [Event::Connect, Event::PassOld]);
    let granted = rig.granted.expect("a renewal");
    assert_eq!((granted.get(Test::Dnsbl).is_some(), granted.get(Test::Pregreet)), (true, None));
    assert!(rig.handoff.expect("a handoff").replay.is_empty());
}

#[test]
fn permitted_clients_are_not_screened_and_denied_ones_not_heard() {
    let permitted = Rig::with(policy(), Arrival { standing: Standing::Permitted, ..arrival() });
    assert_eq!(permitted.events, [Event::Connect, Event::Allowlisted]);
    assert!(permitted.handoff.is_some());
    let denied = Rig::with(policy(), Arrival { standing: Standing::Denied, ..arrival() });
    assert_eq!(denied.sent, "521 5.3.2 Service currently unavailable; session=000000000abc\r\n");
    assert!(denied.closed);
}

#[test]
fn a_tagged_client_does_every_test_again_and_earns_nothing() {
    let known = Arrival { tagged: true, stamps: Some(Stamps::all_until(START.plus(DAY))), ..arrival() };
    let mut rig = Rig::with(policy(), known);
    assert_eq!(rig.take(), "220-mx.test ESMTP\r\n");
    rig.lists_say(unlisted()).seconds(6);
    rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.handoff.is_some() && rig.granted.is_none());
}

#[test]
fn on_an_address_without_passes_a_client_is_served_and_not_remembered() {
    let mut rig = Rig::with(policy(), Arrival { may_pass: false, ..arrival() });
    rig.lists_say(unlisted()).seconds(6);
    rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.handoff.is_some() && rig.granted.is_none());
}

#[test]
fn pipelining_is_seen_and_refused() {
    let mut rig = Rig::greeted();
    rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    assert!(rig.take().ends_with("250 2.1.0 Ok\r\n550 5.5.1 Protocol error; session=000000000abc\r\n"));
    let ahead = Bytes::from_static(b"RCPT TO:<c@d>\r\n");
    assert!(rig.events.contains(&Event::Pipelining("MAIL".to_owned(), ahead)));
}

#[test]
fn http_is_sent_away_at_once() {
    let mut rig = Rig::greeted();
    rig.says("GET / HTTP/1.1\r\nHost: mx\r\n");
    assert_eq!(rig.take(), "521 5.7.0 Error: I can break rules, too. Goodbye.; session=000000000abc\r\n");
    let line = Bytes::from_static(b"GET / HTTP/1.1");
    assert!(rig.events.contains(&Event::NonSmtpCommand("CONNECT".to_owned(), line)));
    assert!(rig.closed);
}

#[test]
fn a_bare_newline_is_refused_at_the_recipient() {
    let mut rig = Rig::greeted();
    rig.says("EHLO c\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.take().ends_with("550 5.5.1 Protocol error; session=000000000abc\r\n"));
    assert!(rig.events.contains(&Event::BareNewline(Bytes::from_static(b"EHLO c"))));
}

#[test]
fn a_recipient_out_of_order_passes_nothing() {
    let mut rig = Rig::greeted();
    rig.says("RCPT TO:<c@d>\r\n");
    assert_eq!(rig.take(), "503 5.5.1 Error: need MAIL command\r\n");
    rig.says("MAIL FROM:<a@b>\r\n");
    assert_eq!(rig.take(), "503 5.5.1 Error: send HELO/EHLO first\r\n");
    rig.says("HELO\r\n").says("HELO c\r\n").says("MAIL FROM:<a@b>\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO\r\n");
    let expected = "501 Syntax: HELO hostname\r\n250 mx.test\r\n250 2.1.0 Ok\r\n\
                    503 5.5.1 Error: nested MAIL command\r\n501 5.5.4 Syntax: RCPT TO:<address>\r\n";
    assert_eq!(rig.take(), expected);
    assert!(rig.handoff.is_none() && rig.granted.is_none());
}

#[test]
fn starttls_hands_over_without_what_was_smuggled_behind_it() {
    let mut policy = policy();
    policy.pipelining.action = Action::Ignore;
    let mut rig = Rig::with(policy, arrival());
    rig.lists_say(unlisted()).seconds(6).says("EHLO c\r\n").says("STARTTLS\r\nMAIL FROM:<evil@x>\r\n");
    let handoff = rig.handoff.as_ref().expect("a handoff");
    assert_eq!(handoff.replay, [Bytes::from_static(b"EHLO c"), Bytes::from_static(b"STARTTLS")]);
    assert!(handoff.pending.is_empty());
}

#[test]
fn the_mta_refusing_the_sender_is_the_answer_to_the_recipient_and_the_session_goes_on() {
    let mut rig = Rig::greeted();
    rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n").take();
    rig.input(Input::HandoffFailed(Some(Bytes::from_static(b"550 5.1.8 <a@b>: Sender address rejected\r\n"))));
    assert_eq!(rig.take(), "550 5.1.8 <a@b>: Sender address rejected\r\n");
    rig.says("RSET\r\n").says("MAIL FROM:<e@f>\r\n").says("RCPT TO:<c@d>\r\n");
    assert_eq!(rig.replay()[1], "MAIL FROM:<e@f>");
    rig.input(Input::HandoffFailed(None));
    assert!(rig.take().ends_with("451 4.3.0 Mail system not available, try again later\r\n"));
    assert_eq!(rig.decisions, 1);
    assert!(rig.granted.is_some(), "the client keeps its pass");
}

#[test]
fn an_mta_that_is_away_at_the_greeting_ends_it_lawfully() {
    let mut rig = Rig::new();
    rig.lists_say(allowed(-2, -2));
    rig.input(Input::HandoffFailed(None));
    let expected = "220-mx.test ESMTP\r\n220 mx.test ESMTP\r\n421 4.3.2 All server ports are busy\r\n";
    assert_eq!(rig.take(), expected);
    assert!(rig.closed);
}

#[test]
fn leaving_is_logged_with_the_phase() {
    let mut rig = Rig::new();
    rig.seconds(2).input(Input::Eof);
    let before = Event::Hangup(Duration::from_secs(2), Moment::BeforeHandshake);
    assert_eq!(rig.events[1..], [before, Event::Disconnect]);
    let mut rig = Rig::greeted();
    rig.seconds(3).input(Input::Eof);
    let after = Event::Hangup(Duration::from_secs(3), Moment::AfterHandshake);
    assert_eq!(rig.events[1..], [after, Event::Disconnect]);
}

#[test]
fn a_silent_client_is_timed_out() {
    let mut rig = Rig::greeted();
    rig.says("NOOP\r\n").take();
    rig.seconds(299);
    assert!(!rig.closed);
    rig.seconds(1);
    assert_eq!(rig.take(), "421 4.4.2 mx.test Error: timeout exceeded\r\n");
    assert!(rig.events.contains(&Event::TimeLimit("NOOP".to_owned())));
    assert!(rig.closed);
}

#[test]
fn commands_and_lines_have_limits() {
    let mut rig = Rig::greeted();
    for _ in 0..20 {
        rig.says("NOOP\r\n");
    }
    assert!(!rig.closed);
    rig.says("NOOP\r\n");
    assert!(rig.events.contains(&Event::CountLimit("NOOP".to_owned())) && rig.closed);
    let mut rig = Rig::greeted();
    rig.says(vec![b'x'; 2_048]);
    assert!(rig.events.contains(&Event::LengthLimit("CONNECT".to_owned())) && rig.closed);
    assert_eq!(rig.take(), "421 mx.test Service unavailable - try again later\r\n");
}

#[test]
fn data_without_a_recipient_ends_the_session() {
    let mut rig = Rig::greeted();
    rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").take();
    rig.says("DATA\r\n");
    assert_eq!(rig.take(), "554 5.5.1 Error: no valid recipients\r\n");
    assert!(rig.closed && rig.events.contains(&Event::DataWithoutRcpt("DATA")));
}

#[test]
fn a_shutdown_tells_the_client_to_come_again() {
    let mut rig = Rig::new();
    rig.input(Input::Shutdown);
    let expected = "220-mx.test ESMTP\r\n220 mx.test ESMTP\r\n421 4.3.2 Service is going down, try again later\r\n";
    assert_eq!(rig.take(), expected);
    assert!(rig.closed);
}

#[test]
fn under_defer_a_good_client_hears_450_and_is_welcome_next_time() {
    let mut policy = policy();
    policy.after_tests = AfterTests::Defer;
    let mut rig = Rig::with(policy.clone(), arrival());
    rig.lists_say(unlisted()).seconds(6).says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").take();
    for _ in 0..2 {
        rig.says("RCPT TO:<c@d>\r\n");
        assert_eq!(rig.take(), "450 4.3.2 Service currently unavailable; session=000000000abc\r\n");
    }
    rig.says("QUIT\r\n");
    assert!(rig.handoff.is_none() && rig.closed);
    assert_eq!(rig.events.iter().filter(|event| **event == Event::PassNew).count(), 1);
    let stamps = rig.granted.expect("a pass");
    let again = Rig::with(policy, Arrival { stamps: Some(stamps), ..arrival() });
    assert!(again.handoff.is_some_and(|handoff| handoff.replay.is_empty()));
}

#[test]
fn under_defer_an_address_without_passes_serves_only_clients_that_have_one() {
    let mut policy = policy();
    policy.after_tests = AfterTests::Defer;
    let backup = Arrival { may_pass: false, ..arrival() };
    let mut rig = Rig::with(policy.clone(), backup.clone());
    assert_eq!(rig.events[1], Event::AllowlistVeto);
    rig.lists_say(unlisted()).seconds(6).says("EHLO c\r\n").says("STARTTLS\r\n");
    assert!(rig.take().ends_with("454 4.7.0 TLS not available due to local problem\r\n"));
    rig.says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.take().ends_with("450 4.3.2 Service currently unavailable; session=000000000abc\r\n"));
    assert!(rig.handoff.is_none() && rig.granted.is_none());
    let known = Arrival { stamps: Some(Stamps::all_until(START.plus(DAY))), ..backup };
    assert!(Rig::with(policy, known).handoff.is_some());
}

#[test]
fn a_connection_without_a_client_is_greeted_and_its_mail_is_put_off_without_a_trace() {
    let unnamed = |mta_answers| Arrival { standing: Standing::Unnamed { mta_answers }, may_pass: false, ..arrival() };
    let mut check = Rig::with(policy(), unnamed(true));
    assert_eq!(check.sent, "220 mx.test ESMTP\r\n", "at once");
    // Not even the deep tests: what looks at health may be a shell script.
    check.says(b"EHLO lb\nMAIL FROM:<>\r\n");
    assert!(check.events.is_empty() && check.decisions == 0, "{:?}", check.events);
    check.says(b"RCPT TO:<a@b.test>\r\n");
    assert!(check.sent.contains("\r\n450 4.3.2 "), "{}", check.sent);
    assert!(check.handoff.is_none() && check.granted.is_none());
    assert!(
        matches!(check.events[..], [Event::Reject { .. }]),
        "mail without an address is told of: {:?}",
        check.events
    );
    check.says(b"STARTTLS\r\nQUIT\r\n");
    assert!(
        check.sent.ends_with("454 4.7.0 TLS not available due to local problem\r\n221 2.0.0 Bye\r\n"),
        "{}",
        check.sent
    );
    assert!(check.closed);

    let away = Rig::with(policy(), unnamed(false));
    assert_eq!(away.sent, "421 4.3.2 All server ports are busy\r\n", "so that the proxy looks for another host");
    assert!(away.closed && away.events.is_empty());
}

#[test]
fn a_connection_without_a_client_does_not_reach_the_mta_by_starttls() {
    let standing = Standing::Unnamed { mta_answers: true };
    let mut rig = Rig::with(policy(), Arrival { standing, ..arrival() });
    rig.says("EHLO lb\r\n").take();
    rig.says("STARTTLS\r\n");
    assert_eq!(rig.take(), "454 4.7.0 TLS not available due to local problem\r\n");
    rig.says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.handoff.is_none() && rig.granted.is_none());
}

#[test]
fn what_a_late_answer_shows_to_rest_on_one_allow_list_is_not_remembered() {
    let mut rig = Rig::new();
    rig.seconds(6).lists_say(DnsblReport { score: 2, without_best_ally: 5, ..unlisted() }).take();
    rig.says("EHLO c\r\n").says("MAIL FROM:<a@b>\r\n").says("RCPT TO:<c@d>\r\n");
    assert!(rig.handoff.is_some() && rig.granted.is_none());
}

#[test]
fn a_421_of_the_mta_is_the_end_and_the_pass_stays() {
    let mut rig = Rig::with(policy(), arrival());
    rig.lists_say(unlisted())
        .seconds(6)
        .says("EHLO a.test\r\n")
        .says("MAIL FROM:<>\r\n")
        .says("RCPT TO:<a@b.test>\r\n");
    assert!(rig.handoff.is_some() && rig.granted.is_some());
    rig.take();
    rig.input(Input::HandoffFailed(Some(Bytes::from_static(b"421-4.7.0 enough\r\n421 4.7.0 of you\r\n"))));
    assert_eq!(rig.take(), "421-4.7.0 enough\r\n421 4.7.0 of you\r\n");
    assert!(rig.closed, "an open connection behind a 421 would be a lie");
    assert_eq!(rig.events.last(), Some(&Event::Disconnect));
}
