//! Where the screener differs from postscreen on purpose, as far as transcripts show it. docs/postscreen-differences.md
//! says why, under the same names.
//!
//! An entry that no transcript meets any more fails the test, like a difference that has no entry.

/// A difference in what is heard (`S: …`), done (`C: …`, where the client could go on on one side only) or logged (`log: …`).
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// Its name in the document.
    pub reason: &'static str,
    /// In which transcripts, as `setting/name`; `*` stands for anything. Each must meet it.
    pub within: &'static [&'static str],
    /// postscreen's lines; each `*` stands for the same as the one in the screener's lines.
    pub postscreen: &'static [&'static str],
    /// The screener's lines instead. One line that is the same as postscreen's: it stands at another place.
    pub screener: &'static [&'static str],
}

/// What is different wherever it can be.
const EVERYWHERE: &[Difference] = &[
    Difference { reason: "features", within: &["*"], postscreen: &["S: 250-ETRN"], screener: &[] },
    Difference { reason: "features", within: &["*"], postscreen: &["S: 250-CHUNKING"], screener: &[] },
    Difference {
        reason: "session-name",
        within: &["*"],
        postscreen: &["S: 450 4.3.2 *"],
        screener: &["S: 450 4.3.2 *; session=ID"],
    },
    Difference {
        reason: "session-name",
        within: &["*"],
        postscreen: &["S: 550 *"],
        screener: &["S: 550 *; session=ID"],
    },
    // With a footer behind it.
    Difference {
        reason: "session-name",
        within: &["limits/*"],
        postscreen: &["S: 450-4.3.2 *"],
        screener: &["S: 450-4.3.2 *; session=ID"],
    },
    Difference {
        reason: "session-name",
        within: &["*"],
        postscreen: &["S: 521 *"],
        screener: &["S: 521 *; session=ID"],
    },
    Difference {
        reason: "session-name",
        within: &["*"],
        postscreen: &["log: NOQUEUE: reject: RCPT from *; from=*"],
        screener: &["log: NOQUEUE: reject: RCPT from *; session=ID; from=*"],
    },
];

/// Before the greeting is complete.
const EARLY: &[Difference] = &[
    Difference {
        reason: "lawful-greeting",
        within: &["*/pregreet*", "*/*-pregreet", "drop/listed-*dropped*"],
        postscreen: &[],
        screener: &["S: 220 mx.example.com ESMTP"],
    },
    Difference {
        reason: "hangup-at-once",
        within: &["ignore/pregreet-and-gone"],
        postscreen: &["log: HANGUP after T from CLIENT#1 in tests after SMTP handshake"],
        screener: &["log: HANGUP after T from CLIENT#1 in tests before SMTP handshake"],
    },
];

/// What is remembered, and when that is logged.
const PASSES: &[Difference] = &[
    Difference {
        reason: "pass-at-once",
        within: &[
            "*/gone-after-rcpt",
            "enforce/comes-again-while-the-first-stays",
            "deep/rcpt-*",
            "deep/second-mail-after-rset",
            "deep/data-after-a-refused-recipient",
            "deepignore/pipelining-*",
            "limits/commands-over-a-tight-limit",
        ],
        postscreen: &["log: PASS NEW *"],
        screener: &["log: PASS NEW *"],
    },
    // The pass is taken back when the client fails later.
    Difference {
        reason: "pass-at-once",
        within: &["deep/pipelining-after-the-recipient", "deepdrop/pipelining-after-the-recipient"],
        postscreen: &[],
        screener: &["log: PASS NEW CLIENT#1"],
    },
    Difference {
        reason: "parallel-logged",
        within: &["enforce/comes-again-while-the-first-stays"],
        postscreen: &[],
        screener: &["log: PASS OLD CLIENT#2"],
    },
    Difference {
        reason: "whole-pass",
        within: &["enforce/comes-again-before-any-recipient"],
        postscreen: &[],
        screener: &["S: 220-mx.example.com ESMTP"],
    },
    Difference {
        reason: "one-ally",
        within: &["*/praised", "*/praised-early", "*/disputed", "enforce/praised-comes-again"],
        postscreen: &["log: PASS NEW CLIENT#1"],
        screener: &[],
    },
    Difference {
        reason: "one-ally",
        within: &["enforce/praised-comes-again"],
        postscreen: &["log: PASS OLD CLIENT#2"],
        screener: &[],
    },
    Difference {
        reason: "one-ally",
        within: &["enforce/praised-comes-again"],
        postscreen: &[],
        screener: &["S: 220-mx.example.com ESMTP"],
    },
];

/// The static list has no softer word than no.
const DENIED: &[Difference] = &[
    Difference {
        reason: "denied-is-dropped",
        within: &["enforce/denied-enforced", "*/denied-and-gone"],
        postscreen: &["S: 220-mx.example.com ESMTP", "S: 220 mx.example.com ESMTP"],
        screener: &["S: 521 5.3.2 Service currently unavailable; session=ID"],
    },
    Difference {
        reason: "denied-is-dropped",
        within: &["*/denied-and-gone"],
        postscreen: &["log: HANGUP after T from CLIENT#1 in tests after SMTP handshake"],
        screener: &[],
    },
    Difference {
        reason: "denied-is-dropped",
        within: &["enforce/denied-enforced"],
        postscreen: &[
            "S: 250-mx.example.com",
            "S: 250-SIZE 10240000",
            "S: 250-VRFY",
            "S: 250-ETRN",
            "S: 250-ENHANCEDSTATUSCODES",
            "S: 250-8BITMIME",
            "S: 250-DSN",
            "S: 250-SMTPUTF8",
            "S: 250-CHUNKING",
            "C: MAIL FROM:<a@b.test>",
            "S: 250 2.1.0 Ok",
            "C: RCPT TO:<bob@example.com>",
            "S: 550 5.3.2 Service currently unavailable",
            "C: QUIT",
            "S: 221 2.0.0 Bye",
        ],
        screener: &[],
    },
    Difference {
        reason: "denied-is-dropped",
        within: &["enforce/denied-enforced"],
        postscreen: &["log: NOQUEUE: reject: RCPT from *: 550 5.3.2 *"],
        screener: &[],
    },
];

/// The tests after the greeting.
const DEEP: &[Difference] = &[
    Difference {
        reason: "dialogue",
        within: &[
            "deep/rcpt-before-mail-alone",
            "deep/rcpt-before-everything",
            "deep/rcpt-wrong-and-gone",
            "deep/rset-after-mail",
            "deep/mail-before-helo",
            "deep/mail-open-bracket",
        ],
        postscreen: &["log: PASS NEW CLIENT#1"],
        screener: &[],
    },
    Difference {
        reason: "bare-cr",
        within: &["deep/bare-cr", "deep/two-crs", "deep/nul"],
        postscreen: &["S: 450 4.3.2 Service currently unavailable"],
        screener: &["S: 550 5.5.1 Protocol error; session=ID"],
    },
    Difference {
        reason: "bare-cr",
        within: &["deep/bare-cr", "deep/two-crs", "deep/nul"],
        postscreen: &["log: NOQUEUE: reject: RCPT from CLIENT#1: 450 4.3.2 Service currently unavailable; from=*"],
        screener: &["log: NOQUEUE: reject: RCPT from CLIENT#1: 550 5.5.1 Protocol error; session=ID; from=*"],
    },
    Difference {
        reason: "bare-cr",
        within: &["*/bare-cr", "*/two-crs", "*/nul"],
        postscreen: &[],
        screener: &["log: BARE NEWLINE *"],
    },
    Difference {
        reason: "bare-cr",
        within: &["*/bare-cr", "*/two-crs", "*/nul"],
        postscreen: &["log: PASS NEW CLIENT#1"],
        screener: &[],
    },
    Difference {
        reason: "bare-cr",
        within: &["deep/two-crs", "deepignore/two-crs"],
        postscreen: &["S: 502 5.5.2 Error: command not recognized"],
        screener: &["S: 250 2.0.0 Ok"],
    },
    Difference {
        reason: "bare-cr",
        within: &["deepdrop/bare-cr", "deepdrop/two-crs"],
        postscreen: &["S: 502 5.5.2 Error: command not recognized"],
        screener: &["S: 521 5.5.1 Protocol error; session=ID"],
    },
    Difference {
        reason: "bare-cr",
        within: &["deepdrop/nul"],
        postscreen: &["S: 250 2.0.0 Ok"],
        screener: &["S: 521 5.5.1 Protocol error; session=ID"],
    },
    Difference {
        reason: "bare-cr",
        within: &["deepdrop/bare-cr", "deepdrop/two-crs", "deepdrop/nul"],
        postscreen: &[
            "S: 250 2.1.0 Ok",
            "C: RCPT TO:<bob@example.com>",
            "S: 450 4.3.2 Service currently unavailable",
            "C: QUIT",
            "S: 221 2.0.0 Bye",
        ],
        screener: &[],
    },
    Difference {
        reason: "bare-cr",
        within: &["deepdrop/bare-cr", "deepdrop/two-crs", "deepdrop/nul"],
        postscreen: &["log: NOQUEUE: reject: RCPT from CLIENT#1: 450 *"],
        screener: &[],
    },
];

/// The text of log lines.
const LOG: &[Difference] = &[
    Difference {
        reason: "no-trailing-space",
        within: &["*/non-smtp-*"],
        postscreen: &["log: NON-SMTP COMMAND * "],
        screener: &["log: NON-SMTP COMMAND *"],
    },
    Difference {
        reason: "whole-line",
        within: &["*/pregreet-tls"],
        postscreen: &["log: NON-SMTP COMMAND from CLIENT#1 after CONNECT: ???? "],
        screener: &["log: NON-SMTP COMMAND from CLIENT#1 after CONNECT: ???????????"],
    },
];

/// Who fails twice.
const TWICE: &[Difference] = &[
    Difference {
        reason: "list-first",
        within: &["enforce/listed-pipelining"],
        postscreen: &["S: 550 5.5.1 Protocol error"],
        screener: &["S: 550 5.7.1 Service unavailable; client [203.0.113.23] blocked using bl.example; session=ID"],
    },
    Difference {
        reason: "list-first",
        within: &["enforce/listed-pipelining"],
        postscreen: &["log: NOQUEUE: reject: RCPT from CLIENT#1: 550 5.5.1 Protocol error; from=*"],
        screener: &["log: NOQUEUE: reject: RCPT from CLIENT#1: 550 5.7.1 Service unavailable; client [203.0.113.23] \
            blocked using bl.example; session=ID; from=*"],
    },
];

/// Commands.
const COMMANDS: &[Difference] = &[
    Difference {
        reason: "features",
        within: &["deep/etrn", "deep/etrn-before-helo"],
        postscreen: &["S: 458 Unable to queue messages"],
        screener: &["S: 502 5.5.2 Error: command not recognized"],
    },
    Difference {
        reason: "features",
        within: &["deep/etrn-without-argument"],
        postscreen: &["S: 500 Syntax: ETRN domain"],
        screener: &["S: 502 5.5.2 Error: command not recognized"],
    },
    Difference {
        reason: "tab",
        within: &["deep/tabs"],
        postscreen: &["S: 502 5.5.2 Error: command not recognized"],
        screener: &[
            "S: 250-mx.example.com",
            "S: 250-SIZE 10240000",
            "S: 250-VRFY",
            "S: 250-ENHANCEDSTATUSCODES",
            "S: 250-8BITMIME",
            "S: 250-DSN",
            "S: 250-SMTPUTF8",
        ],
    },
    Difference {
        reason: "tab",
        within: &["deep/tabs"],
        postscreen: &["log: NOQUEUE: reject: RCPT from *; from=*, proto=SMTP, helo=<>"],
        screener: &["log: NOQUEUE: reject: RCPT from *; session=ID; from=*, proto=ESMTP, helo=<c.test>"],
    },
    Difference {
        reason: "helo-first",
        within: &["deep/mail-before-helo", "deep/mail-before-helo-alone"],
        postscreen: &["S: 250 2.1.0 Ok"],
        screener: &["S: 503 5.5.1 Error: send HELO/EHLO first"],
    },
    Difference {
        reason: "helo-first",
        within: &["deep/mail-before-helo"],
        postscreen: &["S: 450 4.3.2 Service currently unavailable"],
        screener: &["S: 503 5.5.1 Error: need MAIL command"],
    },
    Difference {
        reason: "helo-first",
        within: &["deep/mail-before-helo"],
        postscreen: &["log: NOQUEUE: reject: RCPT from CLIENT#1: 450 *"],
        screener: &[],
    },
    Difference {
        reason: "well-formed",
        within: &["deep/mail-without-address", "deep/mail-to", "deep/mail-open-bracket"],
        postscreen: &["S: 250 2.1.0 Ok"],
        screener: &["S: 501 5.5.4 Syntax: MAIL FROM:<address>"],
    },
    Difference {
        reason: "well-formed",
        within: &["deep/mail-without-address", "deep/mail-to"],
        postscreen: &["S: 503 5.5.1 Error: nested MAIL command"],
        screener: &["S: 250 2.1.0 Ok"],
    },
    Difference {
        reason: "well-formed",
        within: &["deep/mail-without-address"],
        postscreen: &["log: NOQUEUE: reject: RCPT from *; from=<>, *"],
        screener: &["log: NOQUEUE: reject: RCPT from *; session=ID; from=<a@b.test>, *"],
    },
    Difference {
        reason: "well-formed",
        within: &["deep/mail-open-bracket"],
        postscreen: &["S: 450 4.3.2 Service currently unavailable"],
        screener: &["S: 503 5.5.1 Error: need MAIL command"],
    },
    Difference {
        reason: "well-formed",
        within: &["deep/mail-open-bracket", "deep/rcpt-without-address", "deep/rcpt-empty-address", "deep/rcpt-from"],
        postscreen: &["log: NOQUEUE: reject: RCPT from CLIENT#1: 450 *"],
        screener: &[],
    },
    Difference {
        reason: "well-formed",
        within: &["deep/rcpt-without-address", "deep/rcpt-empty-address", "deep/rcpt-from"],
        postscreen: &["S: 450 4.3.2 Service currently unavailable"],
        screener: &["S: 501 5.5.4 Syntax: RCPT TO:<address>"],
    },
    Difference {
        reason: "address-as-sent",
        within: &["deep/mail-source-route"],
        postscreen: &["log: NOQUEUE: reject: RCPT from *; from=<a@b.test>, *"],
        screener: &["log: NOQUEUE: reject: RCPT from *; session=ID; from=<@x.test,@y.test:a@b.test>, *"],
    },
    Difference {
        reason: "address-as-sent",
        within: &["deep/mail-two-at"],
        postscreen: &["log: NOQUEUE: reject: RCPT from *; from=<\"a@b\"@c.test>, *"],
        screener: &["log: NOQUEUE: reject: RCPT from *; session=ID; from=<a@b@c.test>, *"],
    },
    Difference {
        reason: "address-as-sent",
        within: &["deep/mail-dots"],
        postscreen: &["log: NOQUEUE: reject: RCPT from *; from=<\".a..b.\"@b.test>, *"],
        screener: &["log: NOQUEUE: reject: RCPT from *; session=ID; from=<.a..b.@b.test>, *"],
    },
    Difference {
        reason: "address-as-sent",
        within: &["deep/rcpt-source-route"],
        postscreen: &["log: NOQUEUE: reject: RCPT from *; from=<a@b.test>, to=<bob@example.com>, *"],
        screener: &["log: NOQUEUE: reject: RCPT from *; session=ID; from=<a@b.test>, to=<@x.test:bob@example.com>, *"],
    },
    Difference {
        reason: "starttls-syntax",
        within: &["deep/starttls-with-argument"],
        postscreen: &["S: 501 Syntax: EHLO hostname"],
        screener: &["S: 501 5.5.4 Syntax: STARTTLS"],
    },
];

/// The session goes on with the MTA.
const RELAY: &[Difference] = &[
    Difference {
        reason: "relay",
        within: &["relay/*"],
        postscreen: &["S: 450 4.3.2 Service currently unavailable"],
        screener: &["S: 250 2.1.5 Ok"],
    },
    Difference {
        reason: "relay",
        within: &["relay/*"],
        postscreen: &["log: NOQUEUE: reject: RCPT from *: 450 *"],
        screener: &[],
    },
    Difference { reason: "relay", within: &["relay/*"], postscreen: &["log: DISCONNECT *"], screener: &[] },
    Difference {
        reason: "relay",
        within: &["relay/backup-relay"],
        postscreen: &["log: ALLOWLIST VETO *"],
        screener: &[],
    },
];

/// The table.
pub fn all() -> Vec<Difference> {
    [EVERYWHERE, EARLY, PASSES, DENIED, DEEP, LOG, TWICE, COMMANDS, RELAY].concat()
}
