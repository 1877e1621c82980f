//! What a session has to tell: typed, so that text and JSON come from one source.
//!
//! Holds no formatting but the escaping of what a client sent; `observe/` writes the lines.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::{DnsblReport, TlsSession};
use crate::pass::{Test, TestSet};

/// One finding about a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// The test.
    pub test: Test,
    /// How heavily it weighs: the DNS list score, 1 for the other tests.
    pub weight: i32,
    /// What was seen.
    pub reason: String,
    /// What the sender's postmaster can do about it.
    pub remedy: String,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Given to the MTA.
    HandedOff,
    /// Told to come again.
    Deferred,
    /// Refused.
    Refused,
    /// Sent away: it met a ceiling.
    Limited,
    /// The client left, or ran into a limit, before there was anything to decide.
    Left,
}

/// What a client has said of itself, as far as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Said {
    /// What it called itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    /// The sender of its last mail; empty: a bounce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// How many well-formed recipients it named.
    pub recipients: u32,
    /// How many commands it sent.
    pub commands: u32,
}

/// The decision about a session, with what it rests on, in the order of its finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// How it ended.
    pub outcome: Outcome,
    /// Why.
    pub evidence: Vec<Evidence>,
    /// The arithmetic of the score, if the DNS lists were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dnsbl: Option<DnsblReport>,
    /// What was agreed on with the client, if the session was under TLS that we terminate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSession>,
    /// What the client had said until then.
    #[serde(flatten)]
    pub said: Said,
    /// How long the session had lasted by then.
    #[serde(skip)]
    pub lasted: Duration,
    /// The tests that it failed under an action other than to ignore that.
    #[serde(skip)]
    pub failed: TestSet,
    /// The client sent more than it may: commands, or the bytes of one.
    #[serde(skip)]
    pub exceeded: bool,
}

/// Before or behind the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// In the greet wait.
    BeforeHandshake,
    /// In the dialogue.
    AfterHandshake,
}

/// What there can be no more of for the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// Sessions of this client.
    Client,
    /// Sessions.
    Screening,
    /// Connections that the MTA takes.
    Server,
}

/// What postscreen would log (reference/postscreen.md section 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection has arrived.
    Connect,
    /// The client is permitted.
    Allowlisted,
    /// The client is denied.
    Denylisted,
    /// The client came to an address where no pass can be earned.
    AllowlistVeto,
    /// The client has passed every test that is asked, some of them for the first time.
    PassNew,
    /// The client has passed every test that is asked, as it had before.
    PassOld,
    /// Another address of the client's has passed, so that it is not deferred: that address, and the name that has both.
    Linked(IpAddr, String),
    /// It spoke before the greeting: how many bytes, how long after it connected, and what.
    Pregreet(usize, Duration, Bytes),
    /// It sent one clean EHLO before the greeting, as it may have learned from the MTA: how long after it connected, and
    /// the line.
    EarlyHello(Duration, Bytes),
    /// Its score on the DNS lists is at or above the threshold.
    DnsblRank(i32),
    /// It left, this long after that phase began.
    Hangup(Duration, Moment),
    /// We have ended the session.
    Disconnect,
    /// EHLO keywords of the MTA were not offered to it, because the operator does not want that.
    KeywordsWithheld(String),
    /// There was no room for it.
    Limited(Ceiling),
    /// It is answered slowly from here on.
    Tarpit,
    /// It was to be answered slowly, and there was no room for that.
    TarpitFull,
    /// It sent a command before it had the reply to the one before: the verb, and what it had sent too early.
    Pipelining(String, Bytes),
    /// It does not speak SMTP: the verb before, and the line.
    NonSmtpCommand(String, Bytes),
    /// It ended a line without CR LF: the line.
    BareNewline(Bytes),
    /// It took too long for a command; the verb before.
    TimeLimit(String),
    /// It sent too many commands; the verb before.
    CountLimit(String),
    /// It sent too long a line; the verb before.
    LengthLimit(String),
    /// The session is under TLS from here on.
    TlsEstablished(TlsSession),
    /// The TLS handshake did not come to its end: why.
    TlsFailed(String),
    /// It began a message with no recipient: the verb.
    DataWithoutRcpt(&'static str),
    /// A recipient was refused.
    Reject {
        /// The reply, first line, as sent.
        reply: String,
        /// The sender.
        from: Bytes,
        /// The recipient.
        to: Bytes,
        /// `SMTP` or `ESMTP`.
        proto: &'static str,
        /// What it called itself.
        helo: Bytes,
    },
}

impl Event {
    /// Its name in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Allowlisted => "allowlisted",
            Self::Denylisted => "denylisted",
            Self::AllowlistVeto => "allowlist_veto",
            Self::PassNew => "pass_new",
            Self::PassOld => "pass_old",
            Self::Linked(..) => "linked",
            Self::Pregreet(..) => "pregreet",
            Self::EarlyHello(..) => "early_ehlo",
            Self::DnsblRank(_) => "dnsbl_rank",
            Self::Hangup(..) => "hangup",
            Self::Disconnect => "disconnect",
            Self::KeywordsWithheld(_) => "ehlo_keywords_withheld",
            Self::Limited(_) => "limited",
            Self::Tarpit => "tarpit",
            Self::TarpitFull => "tarpit_full",
            Self::Pipelining(..) => "pipelining",
            Self::NonSmtpCommand(..) => "non_smtp_command",
            Self::BareNewline(_) => "bare_newline",
            Self::TimeLimit(_) => "time_limit",
            Self::CountLimit(_) => "count_limit",
            Self::LengthLimit(_) => "length_limit",
            Self::TlsEstablished(_) => "tls_established",
            Self::TlsFailed(_) => "tls_failed",
            Self::DataWithoutRcpt(_) => "data_without_rcpt",
            Self::Reject { .. } => "reject",
        }
    }
}

/// What a client sent, as postscreen shows it where it expects text: UTF-8 as it is, everything else as `?`. At most so many
/// bytes.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a>(pub &'a [u8], pub usize);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.1;
        for chunk in self.0.utf8_chunks() {
            let odd = chunk.invalid().iter().map(|_| '?');
            for c in chunk.valid().chars().map(|c| if c.is_control() { '?' } else { c }).chain(odd) {
                if c.len_utf8() > left {
                    return Ok(());
                }
                left -= c.len_utf8();
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}

/// At most 100 bytes of what a client sent, as C source would write them: how postscreen shows them.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = 100_usize;
        for &byte in self.0 {
            let written = match byte {
                b'\r' => "\\r",
                b'\n' => "\\n",
                b'\t' => "\\t",
                0x07 => "\\a",
                0x08 => "\\b",
                0x0b => "\\v",
                0x0c => "\\f",
                b'\\' => "\\\\",
                0x20..=0x7e => {
                    if left == 0 {
                        return Ok(());
                    }
                    left -= 1;
                    write!(f, "{}", char::from(byte))?;
                    continue;
                }
                _ => {
                    if left < 4 {
                        return Ok(());
                    }
                    left -= 4;
                    write!(f, "\\{byte:03o}")?;
                    continue;
                }
            };
            if left < written.len() {
                return Ok(());
            }
            left -= written.len();
            f.write_str(written)?;
        }
        Ok(())
    }
}
