//! DNS lists, and the static list.

use super::super::script::{Script, Step, Who};
use super::super::setting::Setting;
use super::{BYE, HELLO, MAIL, MOST, RCPT};

use Setting::{Drop, Early, Enforce, Ignore, Relay};
use Step::{Ask, Close, Connect, End, Greeting, Logged, Reply, Send};

const TOO_SOON: &[Step] = &[Send(b"EHLO c.test\r\n"), Reply];

/// Where a client that is refused stays until it is told so at a recipient.
const UNLESS_DROPPED: &[Setting] = &[Enforce, Ignore, Early, Relay];

pub(super) const ALL: &[Script] = &[
    Script::new("listed", UNLESS_DROPPED, &[HELLO, MAIL, RCPT, BYE]).by(Who::Listed),
    Script::new("listed-ipv6", UNLESS_DROPPED, &[HELLO, MAIL, RCPT, BYE]).by(Who::Listed).over_ipv6(),
    Script::new(
        "listed-twice",
        UNLESS_DROPPED,
        &[&[Greeting, Logged("DNSBL rank"), Ask("EHLO c.test")], MAIL, RCPT, BYE],
    )
    .by(Who::ListedTwice),
    Script::new("listed-dropped", &[Drop], &[&[Greeting, End]]).by(Who::Listed),
    Script::new("listed-dropped-ipv6", &[Drop], &[&[Greeting, End]]).by(Who::Listed).over_ipv6(),
    Script::new(
        "listed-comes-again",
        &[Enforce, Ignore],
        &[HELLO, MAIL, RCPT, BYE, &[Connect], HELLO, MAIL, RCPT, BYE],
    )
    .by(Who::Listed),
    Script::new("listed-pregreet", MOST, &[TOO_SOON, MAIL, RCPT, BYE]).by(Who::Listed),
    Script::new("listed-and-gone-after-the-greeting", &[Enforce], &[&[Greeting, Logged("DNSBL rank"), Close]])
        .by(Who::Listed),
    Script::new("listed-vrfy", &[Enforce], &[HELLO, &[Ask("VRFY bob@example.com")], BYE]).by(Who::Listed),
    Script::new("listed-many-recipients", &[Enforce], &[HELLO, MAIL, RCPT, RCPT, &[Ask("RCPT TO:<x@y.test>")], BYE])
        .by(Who::Listed),
    Script::new(
        "listed-pipelining",
        &[Enforce],
        &[&[Greeting, Logged("DNSBL rank"), Send(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n"), Reply, Reply], RCPT, BYE],
    )
    .by(Who::Listed),
    Script::new("below-the-threshold", MOST, &[HELLO, MAIL, RCPT, BYE]).by(Who::Suspect),
    Script::new("praised", MOST, &[HELLO, MAIL, RCPT, BYE]).by(Who::Praised),
    Script::new("praised-early", &[Early], &[HELLO, MAIL, RCPT, BYE]).by(Who::Praised),
    Script::new("praised-comes-again", &[Enforce], &[HELLO, MAIL, RCPT, BYE, &[Connect], HELLO, MAIL, RCPT, BYE])
        .by(Who::Praised),
    Script::new("praised-twice", MOST, &[HELLO, MAIL, RCPT, BYE]).by(Who::PraisedTwice),
    Script::new("praised-twice-ipv6", &[Enforce], &[HELLO, MAIL, RCPT, BYE]).by(Who::PraisedTwice).over_ipv6(),
    Script::new("praised-twice-comes-again", &[Enforce], &[HELLO, MAIL, RCPT, BYE, &[Connect], HELLO, MAIL, RCPT, BYE])
        .by(Who::PraisedTwice),
    Script::new("praised-pregreet", &[Enforce, Ignore], &[TOO_SOON, MAIL, RCPT, BYE]).by(Who::PraisedTwice),
    Script::new("disputed", MOST, &[HELLO, MAIL, RCPT, BYE]).by(Who::Disputed),
    Script::new("permitted", &[Enforce, Early, Relay], &[HELLO, MAIL, RCPT, BYE]).by(Who::Permitted),
    Script::new("permitted-ipv6", &[Enforce], &[HELLO, MAIL, RCPT, BYE]).by(Who::Permitted).over_ipv6(),
    Script::new("permitted-backup", &[Enforce], &[HELLO, MAIL, RCPT, BYE]).by(Who::Permitted).to_backup(),
    Script::new("permitted-speaks-at-once", &[Enforce], &[&[Send(b"EHLO c.test\r\n"), Reply], MAIL, RCPT, BYE])
        .by(Who::Permitted),
    Script::new("denied", &[Drop], &[&[Greeting, End]]).by(Who::Denied),
    Script::new("denied-enforced", &[Enforce], &[HELLO, MAIL, RCPT, BYE]).by(Who::Denied),
    Script::new("denied-and-gone", &[Enforce, Ignore, Relay], &[&[Greeting, Close]]).by(Who::Denied),
    Script::new("denied-ipv6", &[Drop], &[&[Greeting, End]]).by(Who::Denied).over_ipv6(),
    Script::new("denied-backup", &[Drop], &[&[Greeting, End]]).by(Who::Denied).to_backup(),
    Script::new("denied-speaks-at-once", &[Drop], &[&[Send(b"EHLO c.test\r\n"), Logged("DENYLISTED"), End]])
        .by(Who::Denied),
];
