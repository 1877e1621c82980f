//! The dialogue, command by command.

use super::super::script::{Script, Step};
use super::super::setting::Setting;
use super::{ANY, BYE, HELLO, MAIL, RCPT};

use Step::{Ask, AskRaw, End, Greeting, Reply, Send};

/// A line after EHLO, and a whole mail after it.
macro_rules! after_ehlo {
    ($name:literal, $($line:literal),+) => {
        Script::new($name, ANY, &[HELLO, &[$(Ask($line)),+], MAIL, RCPT, BYE])
    };
}

/// A line after MAIL, and the recipient after it.
macro_rules! after_mail {
    ($name:literal, $($line:literal),+) => {
        Script::new($name, ANY, &[HELLO, MAIL, &[$(Ask($line)),+], RCPT, BYE])
    };
}

/// A MAIL command, and the recipient after it.
macro_rules! mail {
    ($name:literal, $line:literal) => {
        Script::new($name, ANY, &[HELLO, &[Ask($line)], RCPT, BYE])
    };
}

/// A RCPT command, and another one after it.
macro_rules! rcpt {
    ($name:literal, $line:literal) => {
        Script::new($name, ANY, &[HELLO, MAIL, &[Ask($line)], RCPT, BYE])
    };
}

/// A line after the greeting, and EHLO after it.
macro_rules! first {
    ($name:literal, $($line:literal),+) => {
        Script::new($name, ANY, &[&[Greeting, $(Ask($line)),+], &[Ask("EHLO c.test")], MAIL, RCPT, BYE])
    };
}

/// A line that ends the session.
macro_rules! ends {
    ($name:literal, $before:expr, $line:literal) => {
        Script::new($name, ANY, &[HELLO, $before, &[Ask($line), End]])
    };
}

const NONE: &[Step] = &[];

/// Longer than RFC 5321 section 4.5.3.1.3 allows.
macro_rules! long {
    () => {
        "lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll\
         lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll\
         lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll"
    };
}

pub(super) const ALL: &[Script] = &[
    // HELO and EHLO.
    first!("helo-without-argument", "HELO"),
    first!("ehlo-without-argument", "EHLO"),
    first!("ehlo-with-a-space-and-no-argument", "EHLO "),
    first!("ehlo-with-two-arguments", "EHLO c.test d.test"),
    first!("ehlo-address-literal", "EHLO [198.51.100.1]"),
    first!("ehlo-odd-name", "EHLO c_test!"),
    first!("ehlo-lower-case", "ehlo c.test"),
    first!("ehlo-twice", "EHLO c.test", "EHLO d.test"),
    first!("helo-then-ehlo", "HELO c.test"),
    Script::new("helo-not-ascii", ANY, &[&[Greeting, AskRaw(b"HELO \xc3\xa4.test\r\n")], MAIL, RCPT, BYE]),
    Script::new("ehlo-not-ascii", ANY, &[&[Greeting, AskRaw(b"EHLO \xc3\xa4.test\r\n")], MAIL, RCPT, BYE]),
    Script::new("ehlo-not-utf8", ANY, &[&[Greeting, AskRaw(b"EHLO \xff.test\r\n")], MAIL, RCPT, BYE]),
    Script::new("ehlo-quoted", ANY, &[&[Greeting, Ask("EHLO \"c\\test\"")], MAIL, RCPT, BYE]),
    Script::new("ehlo-again-after-mail", ANY, &[HELLO, MAIL, &[Ask("EHLO d.test")], RCPT, MAIL, RCPT, BYE]),
    Script::new("leading-space", ANY, &[&[Greeting, Ask(" EHLO c.test")], MAIL, RCPT, BYE]),
    Script::new("trailing-space", ANY, &[&[Greeting, Ask("EHLO c.test  ")], MAIL, RCPT, BYE]),
    Script::new("tabs", ANY, &[&[Greeting, Ask("EHLO\tc.test")], MAIL, RCPT, BYE]),
    // MAIL.
    Script::new("mail-before-helo", ANY, &[&[Greeting], MAIL, RCPT, BYE]),
    Script::new("mail-before-helo-alone", ANY, &[&[Greeting], MAIL, BYE]),
    after_mail!("mail-nested", "MAIL FROM:<c@d.test>"),
    after_ehlo!("mail-without-argument", "MAIL"),
    after_ehlo!("mail-without-address", "MAIL FROM:"),
    after_ehlo!("mail-without-colon", "MAIL FROM <a@b.test>"),
    after_ehlo!("mail-to", "MAIL TO:<a@b.test>"),
    mail!("mail-null-sender", "MAIL FROM:<>"),
    mail!("mail-with-a-space", "MAIL FROM: <a@b.test>"),
    mail!("mail-space-before-colon", "MAIL FROM :<a@b.test>"),
    mail!("mail-without-brackets", "MAIL FROM:a@b.test"),
    mail!("mail-lower-case", "mail from:<A@b.test>"),
    mail!("mail-size", "MAIL FROM:<a@b.test> SIZE=1000"),
    mail!("mail-body", "MAIL FROM:<a@b.test> BODY=8BITMIME"),
    mail!("mail-size-and-body", "MAIL FROM:<a@b.test> SIZE=1000 BODY=8BITMIME"),
    mail!("mail-size-too-large", "MAIL FROM:<a@b.test> SIZE=99999999999"),
    mail!("mail-unknown-parameter", "MAIL FROM:<a@b.test> FOO=BAR"),
    mail!("mail-dsn", "MAIL FROM:<a@b.test> RET=HDRS ENVID=x"),
    mail!("mail-auth", "MAIL FROM:<a@b.test> AUTH=<>"),
    mail!("mail-quoted-local-part", "MAIL FROM:<\"a b\"@b.test>"),
    mail!("mail-quoted-bracket", "MAIL FROM:<\"a>b\"@b.test>"),
    mail!("mail-no-domain", "MAIL FROM:<a>"),
    mail!("mail-source-route", "MAIL FROM:<@x.test,@y.test:a@b.test>"),
    mail!("mail-address-literal", "MAIL FROM:<a@[198.51.100.1]>"),
    mail!("mail-open-bracket", "MAIL FROM:<a@b.test"),
    mail!("mail-words-before-the-address", "MAIL FROM:Alice <a@b.test>"),
    mail!("mail-two-at", "MAIL FROM:<a@b@c.test>"),
    mail!("mail-dots", "MAIL FROM:<.a..b.@b.test>"),
    Script::new("mail-long-address", ANY, &[HELLO, &[Ask(concat!("MAIL FROM:<", long!(), "@b.test>"))], RCPT, BYE]),
    Script::new("mail-smtputf8", ANY, &[HELLO, &[AskRaw(b"MAIL FROM:<\xc3\xa4@b.test> SMTPUTF8\r\n")], RCPT, BYE]),
    Script::new("mail-not-ascii", ANY, &[HELLO, &[AskRaw(b"MAIL FROM:<\xc3\xa4@b.test>\r\n")], RCPT, BYE]),
    Script::new("mail-not-utf8", ANY, &[HELLO, &[AskRaw(b"MAIL FROM:<\xff@b.test>\r\n")], RCPT, BYE]),
    // RCPT.
    after_ehlo!("rcpt-before-mail", "RCPT TO:<bob@example.com>"),
    Script::new("rcpt-before-mail-alone", ANY, &[HELLO, RCPT, BYE]),
    Script::new("rcpt-before-everything", ANY, &[&[Greeting], RCPT, BYE]),
    after_mail!("rcpt-without-argument", "RCPT"),
    after_mail!("rcpt-without-address", "RCPT TO:"),
    after_mail!("rcpt-empty-address", "RCPT TO:<>"),
    after_mail!("rcpt-from", "RCPT FROM:<bob@example.com>"),
    Script::new("rcpt-wrong-and-gone", ANY, &[HELLO, MAIL, &[Ask("RCPT bob@example.com")], BYE]),
    rcpt!("rcpt-with-a-space", "RCPT TO: <bob@example.com>"),
    rcpt!("rcpt-without-brackets", "RCPT TO:bob@example.com"),
    rcpt!("rcpt-lower-case", "rcpt to:<Bob@Example.com>"),
    rcpt!("rcpt-dsn", "RCPT TO:<bob@example.com> NOTIFY=NEVER"),
    rcpt!("rcpt-unknown-parameter", "RCPT TO:<bob@example.com> FOO=BAR"),
    rcpt!("rcpt-no-domain", "RCPT TO:<postmaster>"),
    rcpt!("rcpt-quoted-local-part", "RCPT TO:<\"bob b\"@example.com>"),
    rcpt!("rcpt-elsewhere", "RCPT TO:<x@y.test>"),
    rcpt!("rcpt-source-route", "RCPT TO:<@x.test:bob@example.com>"),
    rcpt!("rcpt-percent", "RCPT TO:<x%y.test@example.com>"),
    Script::new("rcpt-not-ascii", ANY, &[HELLO, MAIL, &[AskRaw(b"RCPT TO:<b\xc3\xb6b@example.com>\r\n")], BYE]),
    Script::new("rcpt-long-address", ANY, &[HELLO, MAIL, &[Ask(concat!("RCPT TO:<", long!(), "@example.com>"))], BYE]),
    Script::new("rcpt-many", ANY, &[HELLO, MAIL, RCPT, RCPT, &[Ask("RCPT TO:<x@example.com>")], BYE]),
    Script::new("second-mail-after-rset", ANY, &[HELLO, MAIL, RCPT, &[Ask("RSET")], MAIL, RCPT, BYE]),
    // DATA and BDAT.
    ends!("data-before-mail", NONE, "DATA"),
    ends!("data-before-rcpt", MAIL, "DATA"),
    ends!("data-with-argument", MAIL, "DATA x"),
    Script::new("data-before-helo", ANY, &[&[Greeting, Ask("DATA"), End]]),
    Script::new("data-after-a-refused-recipient", ANY, &[HELLO, MAIL, RCPT, &[Ask("DATA"), End]]),
    ends!("bdat-before-mail", NONE, "BDAT 4 LAST"),
    ends!("bdat-before-rcpt", MAIL, "BDAT 4 LAST"),
    ends!("bdat-without-argument", MAIL, "BDAT"),
    ends!("bdat-no-number", MAIL, "BDAT x"),
    ends!("bdat-more-arguments", MAIL, "BDAT 4 LAST x"),
    ends!("bdat-zero", MAIL, "BDAT 0"),
    Script::new("bdat-before-helo", ANY, &[&[Greeting, Ask("BDAT 4"), End]]),
    // The others.
    after_ehlo!("rset", "RSET"),
    after_ehlo!("rset-with-argument", "RSET x"),
    after_mail!("rset-after-mail", "RSET"),
    first!("rset-before-helo", "RSET"),
    after_ehlo!("noop", "NOOP"),
    after_ehlo!("noop-with-argument", "NOOP x y z"),
    first!("noop-before-helo", "NOOP"),
    after_ehlo!("vrfy-without-argument", "VRFY"),
    after_ehlo!("vrfy", "VRFY bob@example.com"),
    after_ehlo!("vrfy-twice", "VRFY bob", "VRFY <bob@example.com>"),
    Script::new("vrfy-alone", ANY, &[HELLO, &[Ask("VRFY bob@example.com")], BYE]),
    first!("vrfy-before-helo", "VRFY bob@example.com"),
    after_ehlo!("expn", "EXPN bob"),
    after_ehlo!("help", "HELP"),
    after_ehlo!("help-with-argument", "HELP MAIL"),
    after_ehlo!("etrn", "ETRN example.com"),
    after_ehlo!("etrn-without-argument", "ETRN"),
    first!("etrn-before-helo", "ETRN example.com"),
    after_ehlo!("auth", "AUTH PLAIN AGEAYg=="),
    after_ehlo!("auth-without-argument", "AUTH"),
    after_ehlo!("auth-login", "AUTH LOGIN"),
    after_ehlo!("xclient", "XCLIENT ADDR=127.0.0.1"),
    after_ehlo!("xforward", "XFORWARD ADDR=127.0.0.1"),
    after_ehlo!("unknown", "XYZZY 1"),
    after_ehlo!("unknown-short", "X"),
    after_ehlo!("send-and-turn", "SEND FROM:<a@b.test>", "SOML FROM:<a@b.test>", "SAML FROM:<a@b.test>", "TURN"),
    after_ehlo!("verb-too-long", "MAILX FROM:<a@b.test>"),
    after_ehlo!("starttls-not-offered", "STARTTLS"),
    after_ehlo!("starttls-with-argument", "STARTTLS x"),
    first!("starttls-before-helo", "STARTTLS"),
    after_ehlo!("empty-line", ""),
    after_ehlo!("only-spaces", "   "),
    first!("empty-line-first", ""),
    // QUIT at each moment.
    Script::new("quit-first", ANY, &[&[Greeting], BYE]),
    Script::new("quit-after-ehlo", ANY, &[HELLO, BYE]),
    Script::new("quit-after-mail", ANY, &[HELLO, MAIL, BYE]),
    Script::new("quit-with-argument", ANY, &[HELLO, &[Ask("QUIT now"), End]]),
    Script::new("quit-lower-case", ANY, &[HELLO, &[Ask("quit"), End]]),
    Script::new(
        "line-in-pieces",
        ANY,
        &[&[Greeting, Send(b"EH"), Send(b"LO c.te"), Send(b"st\r"), Send(b"\n"), Reply], MAIL, RCPT, BYE],
    ),
    // The session that goes on with the MTA.
    Script::new("relay-rest-of-the-session", &[Setting::Relay], &[HELLO, MAIL, RCPT, &[Ask("RSET"), Ask("NOOP")], BYE]),
];
