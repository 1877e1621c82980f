//! What happens before the greeting is complete, and clients that go.

use super::super::script::{Script, Step};
use super::super::setting::Setting;
use super::{ACTIONS, BYE, HELLO, MAIL, MOST, RCPT};

use Setting::{Drop, Early, Enforce, Ignore, Relay};
use Step::{Ask, Close, Connect, End, Greeting, HalfClose, Line, Logged, Reply, Reset, Send};

/// Says its first command without waiting.
const TOO_SOON: &[Step] = &[Send(b"EHLO c.test\r\n"), Reply];

pub(super) const ALL: &[Script] = &[
    // Clients that do nothing wrong.
    Script::new("greeted-and-gone", &[Enforce, Early], &[&[Greeting], BYE]),
    Script::new("one-mail", &[Enforce, Early], &[HELLO, MAIL, RCPT, BYE]),
    Script::new("one-mail-ipv6", MOST, &[HELLO, MAIL, RCPT, BYE]).over_ipv6(),
    Script::new("one-mail-helo", &[Enforce], &[&[Greeting, Ask("HELO c.test")], MAIL, RCPT, BYE]),
    Script::new("comes-again", MOST, &[HELLO, MAIL, RCPT, BYE, &[Connect], HELLO, MAIL, RCPT, BYE]),
    Script::new("comes-again-early", &[Early], &[&[Greeting], BYE, &[Connect], HELLO, MAIL, RCPT, BYE]),
    Script::new("comes-again-ipv6", &[Enforce], &[HELLO, MAIL, RCPT, BYE, &[Connect], HELLO, MAIL, RCPT, BYE])
        .over_ipv6(),
    Script::new(
        "comes-again-while-the-first-stays",
        &[Enforce],
        &[HELLO, MAIL, RCPT, &[Connect], HELLO, MAIL, RCPT, BYE, BYE],
    ),
    Script::new(
        "comes-again-before-any-recipient",
        &[Enforce],
        &[HELLO, MAIL, BYE, &[Connect], HELLO, MAIL, RCPT, BYE],
    ),
    // Clients that speak before the greeting.
    Script::new("pregreet", MOST, &[TOO_SOON, MAIL, RCPT, BYE]),
    Script::new("pregreet-early", &[Early], &[TOO_SOON, MAIL, RCPT, BYE]),
    Script::new("pregreet-ipv6", &[Enforce], &[TOO_SOON, MAIL, RCPT, BYE]).over_ipv6(),
    Script::new("pregreet-helo", &[Enforce], &[&[Send(b"HELO c.test\r\n"), Reply], MAIL, RCPT, BYE]),
    Script::new("pregreet-quit", ACTIONS, &[&[Send(b"QUIT\r\n"), Reply, End]]),
    Script::new(
        "pregreet-everything-at-once",
        ACTIONS,
        &[&[Send(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.com>\r\n"), Reply, Reply, Reply], BYE],
    ),
    Script::new(
        "pregreet-http",
        ACTIONS,
        &[&[Send(b"GET / HTTP/1.1\r\nHost: mx\r\n\r\n"), Reply, Reply, Reply, Close]],
    ),
    Script::new("pregreet-tls", ACTIONS, &[&[Send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"), Reply, Close]]),
    Script::new(
        "pregreet-half-a-line",
        &[Enforce],
        &[&[Send(b"EH"), Logged("PREGREET"), Send(b"LO c.test\r\n"), Reply], MAIL, RCPT, BYE],
    ),
    Script::new("pregreet-twice", &[Enforce], &[TOO_SOON, MAIL, RCPT, BYE, &[Connect], HELLO, MAIL, RCPT, BYE]),
    Script::new("pregreet-and-gone-later", &[Enforce, Relay], &[TOO_SOON, &[Close]]),
    Script::new("pregreet-and-gone", &[Ignore], &[&[Send(b"EHLO c.test\r\n"), Logged("PREGREET"), Close]]),
    // Clients that go at each moment.
    Script::new("gone-at-once", MOST, &[&[Logged("CONNECT"), Close]]),
    Script::new("gone-after-the-first-line", &[Enforce, Early], &[&[Line, Close]]),
    Script::new("gone-after-the-first-line-ipv6", &[Enforce], &[&[Line, Close]]).over_ipv6(),
    Script::new("reset-after-the-first-line", &[Enforce], &[&[Line, Reset]]),
    Script::new("half-closed-after-the-first-line", &[Enforce], &[&[Line, HalfClose, End]]),
    Script::new("gone-after-the-greeting", MOST, &[&[Greeting, Close]]),
    Script::new("half-closed-after-the-greeting", &[Enforce], &[&[Greeting, HalfClose, End]]),
    Script::new("reset-after-the-greeting", &[Enforce], &[&[Greeting, Reset]]),
    Script::new("gone-after-ehlo", MOST, &[HELLO, &[Close]]),
    Script::new("gone-after-mail", MOST, &[HELLO, MAIL, &[Close]]),
    Script::new("gone-after-rcpt", ACTIONS, &[HELLO, MAIL, RCPT, &[Close]]),
    Script::new("gone-within-a-line", &[Enforce, Relay], &[HELLO, &[Send(b"MAIL FR"), Close]]),
    // The backup MX.
    Script::new("backup", &[Enforce, Drop, Ignore], &[HELLO, MAIL, RCPT, BYE]).to_backup(),
    Script::new("backup-relay", &[Relay], &[HELLO, MAIL, RCPT, BYE]).to_backup(),
    Script::new("backup-twice", &[Enforce], &[HELLO, MAIL, RCPT, BYE, &[Connect], HELLO, MAIL, RCPT, BYE]).to_backup(),
    Script::new("backup-ipv6", &[Enforce], &[HELLO, MAIL, RCPT, BYE]).over_ipv6().to_backup(),
    Script::new("backup-pregreet", &[Enforce, Ignore], &[TOO_SOON, MAIL, RCPT, BYE]).to_backup(),
    Script::new("backup-early", &[Early], &[HELLO, MAIL, RCPT, BYE]).to_backup(),
];
