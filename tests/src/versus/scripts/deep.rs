//! The tests after the greeting.

use super::super::script::{Script, Step};
use super::{ANY, BYE, DEEP, HELLO, MAIL, RCPT};

use Step::{Ask, AskRaw, Connect, End, Greeting, Reply, Send};

/// Something that is no SMTP, at the moment when EHLO is due; then the client goes on as if nothing had been.
macro_rules! odd {
    ($name:literal, $line:literal) => {
        Script::new($name, DEEP, &[&[Greeting, AskRaw($line)], &[Ask("EHLO c.test")], MAIL, RCPT, BYE])
    };
}

pub(super) const ALL: &[Script] = &[
    // Commands that do not wait for the reply.
    Script::new(
        "pipelining-after-ehlo",
        DEEP,
        &[&[Greeting, Send(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n"), Reply, Reply], RCPT, BYE],
    ),
    Script::new(
        "pipelining-after-mail",
        DEEP,
        &[HELLO, &[Send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.com>\r\n"), Reply, Reply], BYE],
    ),
    Script::new(
        "pipelining-after-rcpt",
        DEEP,
        &[HELLO, MAIL, &[Send(b"RCPT TO:<bob@example.com>\r\nDATA\r\n"), Reply, Reply, End]],
    ),
    Script::new(
        "pipelining-recipients",
        DEEP,
        &[HELLO, MAIL, &[Send(b"RCPT TO:<bob@example.com>\r\nRCPT TO:<x@example.com>\r\n"), Reply, Reply], BYE],
    ),
    Script::new("pipelining-quit", DEEP, &[HELLO, &[Send(b"NOOP\r\nQUIT\r\n"), Reply, Reply, End]]),
    Script::new(
        "pipelining-all-at-once",
        DEEP,
        &[&[
            Greeting,
            Send(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"),
            Reply,
            Reply,
            Reply,
            Reply,
            End,
        ]],
    ),
    Script::new(
        "pipelining-twice",
        ANY,
        &[
            &[Greeting, Send(b"EHLO c.test\r\nNOOP\r\n"), Reply, Reply],
            &[Send(b"RSET\r\nNOOP\r\n"), Reply, Reply],
            MAIL,
            RCPT,
            BYE,
        ],
    ),
    Script::new(
        "pipelining-in-lower-case",
        ANY,
        &[HELLO, &[Send(b"noop\r\nxyzzy 1\r\nrset\r\n"), Reply, Reply, Reply], BYE],
    ),
    Script::new(
        "pipelining-part-of-a-command",
        ANY,
        &[&[Greeting, Send(b"EHLO c.test\r\nMAIL FR"), Reply, Send(b"OM:<a@b.test>\r\n"), Reply], RCPT, BYE],
    ),
    Script::new("pipelining-bdat", DEEP, &[HELLO, MAIL, &[Send(b"BDAT 4 LAST\r\nx\r\n\r\n"), Reply, End]]),
    Script::new(
        "pipelining-and-comes-again",
        ANY,
        &[
            &[Greeting, Send(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n"), Reply, Reply],
            RCPT,
            BYE,
            &[Connect],
            HELLO,
            MAIL,
            RCPT,
            BYE,
        ],
    ),
    Script::new(
        "pipelining-after-the-recipient",
        DEEP,
        &[HELLO, MAIL, RCPT, &[Send(b"RSET\r\nNOOP\r\n"), Reply, Reply], BYE, &[Connect], HELLO, MAIL, RCPT, BYE],
    ),
    // What is no SMTP.
    odd!("non-smtp-get", b"GET / HTTP/1.1\r\n"),
    odd!("non-smtp-get-lower-case", b"get / http/1.1\r\n"),
    odd!("non-smtp-post", b"POST /x HTTP/1.0\r\n"),
    odd!("non-smtp-connect", b"CONNECT mx.example.com:25 HTTP/1.0\r\n"),
    odd!("non-smtp-header", b"Subject: Hello\r\n"),
    odd!("non-smtp-header-with-a-dash", b"X-Mailer: Hello\r\n"),
    odd!("non-smtp-header-with-a-space", b"Subject : Hello\r\n"),
    odd!("non-smtp-header-alone", b"Subject:\r\n"),
    odd!("non-smtp-number", b"123\r\n"),
    odd!("non-smtp-dot", b".\r\n"),
    odd!("non-smtp-markup", b"<html>\r\n"),
    odd!("non-smtp-binary", b"\x16\x03\x01\x02\r\n"),
    odd!("non-smtp-utf8", b"\xc3\x84\xc3\x96 x\r\n"),
    odd!("non-smtp-not-utf8", b"EHL\xff c.test\r\n"),
    odd!("non-smtp-option", b"OPTIONS * HTTP/1.1\r\n"),
    odd!("non-smtp-ssh", b"SSH-2.0-Go\r\n"),
    odd!("non-smtp-colon-first", b": x\r\n"),
    Script::new("non-smtp-after-mail", DEEP, &[HELLO, MAIL, &[AskRaw(b"Subject: Hello\r\n")], RCPT, BYE]),
    Script::new(
        "non-smtp-whole-request",
        DEEP,
        &[&[
            Greeting,
            Send(b"GET / HTTP/1.1\r\nHost: mx.example.com\r\nUser-Agent: x\r\n\r\n"),
            Reply,
            Reply,
            Reply,
            Reply,
        ]],
    ),
    Script::new(
        "non-smtp-and-comes-again",
        ANY,
        &[HELLO, &[AskRaw(b"Subject: Hello\r\n")], MAIL, RCPT, BYE, &[Connect], HELLO, MAIL, RCPT, BYE],
    ),
    // Line ends.
    Script::new("bare-newline-ehlo", DEEP, &[&[Greeting, AskRaw(b"EHLO c.test\n")], MAIL, RCPT, BYE]),
    Script::new("bare-newline-mail", DEEP, &[HELLO, &[AskRaw(b"MAIL FROM:<a@b.test>\n")], RCPT, BYE]),
    Script::new("bare-newline-rcpt", DEEP, &[HELLO, MAIL, &[AskRaw(b"RCPT TO:<bob@example.com>\n")], BYE]),
    Script::new("bare-newline-quit", ANY, &[HELLO, &[AskRaw(b"QUIT\n"), End]]),
    Script::new(
        "bare-newline-and-pipelining",
        DEEP,
        &[&[Greeting, Send(b"EHLO c.test\nMAIL FROM:<a@b.test>\n"), Reply, Reply], RCPT, BYE],
    ),
    Script::new("bare-newline-empty", DEEP, &[HELLO, &[AskRaw(b"\n")], MAIL, RCPT, BYE]),
    Script::new("bare-cr", DEEP, &[HELLO, &[AskRaw(b"NO\rOP\r\n")], MAIL, RCPT, BYE]),
    Script::new("two-crs", DEEP, &[HELLO, &[AskRaw(b"NOOP\r\r\n")], MAIL, RCPT, BYE]),
    Script::new("nul", DEEP, &[HELLO, &[AskRaw(b"NOOP \0x\r\n")], MAIL, RCPT, BYE]),
];
