//! Limits: of commands, lines, time and connections.

use super::super::script::{Script, Step};
use super::super::setting::Setting;
use super::{ANY, BYE, HELLO, MAIL, RCPT};

use Step::{Ask, AskTimes, Connect, ConnectAsNext, End, Greeting, Logged, Reply, Send, SendTimes};

const TIGHT: &[Setting] = &[Setting::Limits];

pub(super) const ALL: &[Script] = &[
    Script::new("commands-at-the-limit", ANY, &[HELLO, &[AskTimes(19, "NOOP")], BYE]),
    Script::new("commands-over-the-limit", ANY, &[HELLO, &[AskTimes(20, "NOOP"), End]]),
    Script::new("commands-over-the-limit-help", ANY, &[HELLO, &[AskTimes(20, "HELP"), End]]),
    Script::new("commands-over-the-limit-auth", ANY, &[HELLO, &[AskTimes(20, "AUTH"), End]]),
    Script::new("commands-over-a-tight-limit", TIGHT, &[HELLO, MAIL, RCPT, RCPT, RCPT, &[Ask("NOOP"), End]]),
    Script::new("unknown-commands-over-a-tight-limit", TIGHT, &[&[Greeting, AskTimes(6, "XYZZY"), End]]),
    Script::new(
        "a-line-at-the-limit",
        ANY,
        &[&[Greeting, Send(b"NOOP "), SendTimes(2000, b'x'), Send(b"\r\n"), Reply], BYE],
    ),
    Script::new("a-line-over-the-limit", ANY, &[&[Greeting, SendTimes(3000, b'x'), Send(b"\r\n"), Reply, End]]),
    Script::new("a-line-without-end", ANY, &[HELLO, &[SendTimes(5000, b'x'), End]]),
    Script::new(
        "pregreet-long",
        &[Setting::Enforce, Setting::Drop],
        &[&[Send(&[b'x'; 900]), Logged("PREGREET"), Send(b"\r\n"), Reply, Ask("QUIT"), End]],
    ),
    Script::new("time-after-the-greeting", TIGHT, &[&[Greeting, End]]),
    Script::new("time-after-ehlo", TIGHT, &[HELLO, &[End]]),
    Script::new("time-after-mail", TIGHT, &[HELLO, MAIL, &[End]]),
    Script::new("time-within-a-line", TIGHT, &[HELLO, &[Send(b"MAIL FROM:<a@b"), End]]),
    Script::new("connections-at-the-limit", TIGHT, &[&[Greeting, Connect, Greeting], BYE, BYE]),
    Script::new(
        "connections-over-the-limit",
        TIGHT,
        &[&[Greeting, Connect, Greeting, Connect, Greeting, End], BYE, BYE],
    ),
    Script::new(
        "connections-over-the-limit-ipv6",
        TIGHT,
        &[&[Greeting, Connect, Greeting, Connect, Greeting, End], BYE, BYE],
    )
    .over_ipv6(),
    Script::new(
        "connections-of-two-clients",
        TIGHT,
        &[&[Greeting, Connect, Greeting, ConnectAsNext, Greeting], BYE, BYE, BYE],
    ),
    Script::new("footer-at-a-recipient", TIGHT, &[HELLO, MAIL, RCPT, BYE]),
    Script::new("footer-at-a-wrong-command", TIGHT, &[HELLO, &[Ask("XYZZY")], BYE]),
    Script::new("footer-at-data", TIGHT, &[HELLO, MAIL, &[Ask("DATA"), End]]),
    Script::new("vrfy-disabled", TIGHT, &[HELLO, &[Ask("VRFY bob")], BYE]),
];
