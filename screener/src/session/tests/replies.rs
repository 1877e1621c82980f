//! The words.

use super::rig::{Rig, arrival, policy, unlisted};
use crate::session::{Arrival, Event, Standing};

#[test]
fn a_footer_stands_behind_refusals_and_not_in_the_log() {
    let footer = "call us\\nabout [$client_address]:$client_port at $server_name";
    let mut rig = Rig::greeted_under(|policy| policy.replies.footer = footer.parse().unwrap());
    rig.says("EHLO c\n").says("MAIL FROM:<a@b>\r\n").take();
    rig.says("RCPT TO:<c@d>\r\n");
    let expected = "550-5.5.1 Protocol error; session=000000000abc\r\n550-5.5.1 call us\r\n\
                    550 5.5.1 about [203.0.113.5]:34209 at mx.test\r\n";
    assert_eq!(rig.take(), expected);
    let logged = "550 5.5.1 Protocol error; session=000000000abc";
    assert!(rig.events.iter().any(|event| matches!(event, Event::Reject { reply, .. } if reply == logged)));
    rig.says("HELO\r\n");
    assert_eq!(
        rig.take(),
        "501-Syntax: HELO hostname\r\n501-call us\r\n501 about [203.0.113.5]:34209 at mx.test\r\n",
        "a reply without an enhanced code gets none"
    );
}

#[test]
fn a_trial_turns_refusals_into_deferrals_on_the_wire_and_in_the_log() {
    let mut rig = Rig::greeted_under(|policy| policy.replies.soft_bounce = true);
    rig.says("EHLO c\n").says("MAIL FROM:<a@b>\r\n").take();
    rig.says("RCPT TO:<c@d>\r\n");
    assert_eq!(rig.take(), "450 4.5.1 Protocol error; session=000000000abc\r\n");
    let logged = "450 4.5.1 Protocol error; session=000000000abc";
    assert!(rig.events.iter().any(|event| matches!(event, Event::Reject { reply, .. } if reply == logged)));
    rig.says("GET / HTTP/1.0\r\n");
    assert_eq!(rig.take(), "421 4.7.0 Error: I can break rules, too. Goodbye.; session=000000000abc\r\n");
}

#[test]
fn the_greeting_says_what_the_operator_wants_behind_the_name() {
    let mut policy = policy();
    policy.replies.banner = "ESMTP Postfix".to_owned();
    let mut rig = Rig::with(policy.clone(), arrival());
    rig.lists_say(unlisted()).seconds(6);
    assert_eq!(rig.take(), "220-mx.test ESMTP Postfix\r\n220 mx.test ESMTP Postfix\r\n");
    policy.replies.banner = String::new();
    assert_eq!(Rig::with(policy, arrival()).take(), "220-mx.test\r\n");
}

#[test]
fn ehlo_offers_what_the_mta_does_less_what_the_operator_names() {
    let mut rig = Rig::greeted_under(|policy| policy.replies.withheld = vec!["SIZE".to_owned(), "STARTTLS".to_owned()]);
    rig.says("EHLO c\r\n");
    assert_eq!(rig.take(), "250-mx.test\r\n250 8BITMIME\r\n");
    assert!(rig.events.contains(&Event::KeywordsWithheld("SIZE, STARTTLS".to_owned())));
    rig.says("STARTTLS\r\n");
    assert_eq!(rig.take(), "502 5.5.1 Error: command not implemented\r\n");
}

#[test]
fn every_command_has_postscreens_answer() {
    let mut rig = Rig::greeted();
    for (command, reply) in [
        ("NOOP", "250 2.0.0 Ok"),
        ("noop x", "250 2.0.0 Ok"),
        ("RSET", "250 2.0.0 Ok"),
        ("HELP", "502 5.5.2 Error: command not recognized"),
        ("EXPN staff", "502 5.5.2 Error: command not recognized"),
        ("AUTH PLAIN", "502 5.5.2 Error: command not recognized"),
        ("XCLIENT ADDR=1", "502 5.5.2 Error: command not recognized"),
        ("ETRN x", "502 5.5.2 Error: command not recognized"),
        ("VRFY x", "502 5.5.1 VRFY command is disabled"),
        ("EHLO", "501 Syntax: EHLO hostname"),
        ("MAIL FROM:<a@b>", "503 5.5.1 Error: send HELO/EHLO first"),
        ("HELO c", "250 mx.test"),
        ("MAIL a@b", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL FROM:<a@b>SIZE=1", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("RCPT TO:<c@d>", "503 5.5.1 Error: need MAIL command"),
        ("STARTTLS x", "501 5.5.4 Syntax: STARTTLS"),
    ] {
        rig.says(format!("{command}\r\n"));
        assert_eq!(rig.take(), format!("{reply}\r\n"), "{command}");
    }
    for (command, reply) in [
        ("DATA", "503 5.5.1 Error: need RCPT command"),
        ("DATA x", "501 5.5.4 Syntax: DATA"),
        ("BDAT", "501 5.5.4 Syntax: BDAT count [LAST]"),
        ("BDAT 10 LAST", "554 5.5.1 Error: need MAIL command"),
        ("QUIT", "221 2.0.0 Bye"),
    ] {
        let mut rig = Rig::greeted();
        rig.says(format!("{command}\r\n"));
        assert_eq!((rig.take(), rig.closed), (format!("{reply}\r\n"), true), "{command}");
    }
}

#[test]
fn vrfy_is_there_where_the_mta_has_it_and_tells_nothing() {
    let mut rig = Rig::of_mta(["VRFY"], arrival());
    rig.lists_say(unlisted()).seconds(6).take();
    rig.says("VRFY\r\n").says("VRFY x\r\n");
    assert_eq!(rig.take(), "501 5.5.4 Syntax: VRFY address\r\n252 2.0.0 Send some mail, I'll try my best\r\n");
    let mut rig = Rig::of_mta(["VRFY"], arrival());
    rig.says("x").lists_say(unlisted()).seconds(6).says("\r\nVRFY x\r\n");
    assert!(rig.take().ends_with("550 5.5.1 Protocol error; session=000000000abc\r\n"));
}

#[test]
fn a_decision_holds_what_the_client_said() {
    let mut rig = Rig::greeted();
    rig.says("EHLO c\n")
        .says("MAIL FROM:<a@b>\r\n")
        .says("RCPT TO:<c@d>\r\n")
        .says("RCPT TO:<e@d>\r\n")
        .says("QUIT\r\n");
    let told = serde_json::to_value(rig.decision.unwrap()).unwrap();
    assert_eq!((&told["helo"], &told["sender"]), (&"c".into(), &"a@b".into()));
    assert_eq!((&told["recipients"], &told["commands"]), (&2.into(), &5.into()));
    let denied = Rig::with(policy(), Arrival { standing: Standing::Denied, ..arrival() });
    let told = serde_json::to_value(denied.decision.unwrap()).unwrap();
    assert_eq!((told.get("helo"), &told["commands"]), (None, &0.into()));
}
