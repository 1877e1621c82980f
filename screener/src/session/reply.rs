//! The replies, in postscreen's words (reference/postscreen.md section 3.1).

use std::borrow::Cow;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::clock::UnixTime;

use super::footer::Values;
use super::{Arrival, Ceiling, Policy};

/// A complete reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// One line without its end.
    Line(Cow<'static, str>),
    /// As on the wire, line ends included; nothing is added to it.
    Raw(Bytes),
}

impl Reply {
    pub(super) const fn fixed(line: &'static str) -> Self {
        Self::Line(Cow::Borrowed(line))
    }

    pub(super) fn line(line: String) -> Self {
        Self::Line(Cow::Owned(line))
    }

    pub(super) fn raw(wire: Bytes) -> Self {
        Self::Raw(wire)
    }

    /// In a trial a refusal for good becomes one for now, in its code and its enhanced code.
    #[must_use]
    pub(super) fn softened(self, policy: &Policy) -> Self {
        match self {
            Self::Line(line) if policy.replies.soft_bounce && line.starts_with('5') => {
                let enhanced = enhanced(&line).len();
                let mut line = line.into_owned();
                line.replace_range(..1, "4");
                if enhanced != 0 {
                    line.replace_range(4..5, "4");
                }
                Self::line(line)
            }
            other => other,
        }
    }

    /// As on the wire: a refusal with the operator's footer, each line of which begins with the codes of the first.
    pub(super) fn wire(&self, policy: &Policy, client: SocketAddr, now: UnixTime) -> Bytes {
        let line = match self {
            Self::Raw(wire) => return wire.clone(),
            Self::Line(line) => line,
        };
        let footer = &policy.replies.footer;
        if footer.is_empty() || !line.starts_with(['4', '5']) {
            return format!("{line}\r\n").into();
        }
        let (code, enhanced) = (&line[..3], enhanced(line));
        let text = &line[4 + enhanced.len()..];
        let values = Values { client, server_name: &policy.hostname, now, zone: &policy.replies.zone };
        let lines = footer.lines(text, &values);
        let mut wire = String::new();
        for (position, line) in lines.iter().enumerate() {
            let mark = if position + 1 == lines.len() { ' ' } else { '-' };
            wire += &format!("{code}{mark}{enhanced}{line}\r\n");
        }
        wire.into()
    }

    /// The first line, for the log.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Line(line) => line.clone().into_owned(),
            Self::Raw(wire) => {
                String::from_utf8_lossy(wire.split(|&byte| byte == b'\r').next().unwrap_or_default()).into_owned()
            }
        }
    }
}

/// The enhanced code of a reply line of ours, with the space behind it; empty if there is none (RFC 3463 section 2).
fn enhanced(line: &str) -> &str {
    let text = line.get(4..).unwrap_or_default();
    let (word, _) = text.split_once(' ').unwrap_or_default();
    let numbers = word.split('.').filter(|part| part.parse::<u16>().is_ok()).count();
    if numbers == 3 && word.split('.').count() == 3 { &text[..=word.len()] } else { "" }
}

/// Why a client is refused: the enhanced code and the text; the code is 521 for a drop and 550 for a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    enhanced: &'static str,
    text: Cow<'static, str>,
    /// What is said with a 521 instead, where that differs.
    parting: Option<(&'static str, &'static str)>,
}

pub(super) const DENIED: Refusal = Refusal::fixed("5.3.2", "Service currently unavailable");
pub(super) const PROTOCOL_ERROR: Refusal = Refusal::fixed("5.5.1", "Protocol error");
pub(super) const NON_SMTP: Refusal = Refusal {
    enhanced: "5.5.1",
    text: Cow::Borrowed("Protocol error"),
    parting: Some(("5.7.0", "Error: I can break rules, too. Goodbye.")),
};

impl Refusal {
    const fn fixed(enhanced: &'static str, text: &'static str) -> Self {
        Self { enhanced, text: Cow::Borrowed(text), parting: None }
    }

    /// For a client on a DNS list; `list` is the list's public name, `url` where it says more.
    pub(super) fn listed(arrival: &Arrival, list: &str, url: Option<&str>) -> Self {
        let see = url.map_or_else(String::new, |url| format!("; see {url}"));
        let text = format!("Service unavailable; client [{}] blocked using {list}{see}", arrival.client.ip());
        Self { enhanced: "5.7.1", text: text.into(), parting: None }
    }
}

/// The reply to a recipient of a refused client. The session's name stands in it, so that a postmaster who is shown the
/// bounce can find the session (DESIGN.md section 9).
pub(super) fn refused(refusal: &Refusal, arrival: &Arrival) -> Reply {
    Reply::line(format!("550 {} {}; session={}", refusal.enhanced, refusal.text, arrival.id))
}

/// The reply to a recipient of a client that is to come again.
pub(super) fn deferred(arrival: &Arrival) -> Reply {
    Reply::line(format!("450 4.3.2 Service currently unavailable; session={}", arrival.id))
}

/// The last words to a client that is dropped.
pub(super) fn dropped(refusal: &Refusal, arrival: &Arrival) -> Reply {
    let (enhanced, text) = refusal.parting.unwrap_or((refusal.enhanced, &refusal.text));
    Reply::line(format!("521 {enhanced} {text}; session={}", arrival.id))
}

/// The first line of a greeting that is not finished.
pub(super) fn teaser(policy: &Policy) -> Reply {
    greeting(policy, '-')
}

/// The last line of the greeting.
pub(super) fn banner(policy: &Policy) -> Reply {
    greeting(policy, ' ')
}

fn greeting(policy: &Policy, mark: char) -> Reply {
    let (name, banner) = (&policy.hostname, &policy.replies.banner);
    Reply::line(format!("220{mark}{name} {banner}").trim_end().to_owned())
}

pub(super) fn helo(policy: &Policy) -> Reply {
    Reply::line(format!("250 {}", policy.hostname))
}

pub(super) fn timeout(policy: &Policy) -> Reply {
    Reply::line(format!("421 4.4.2 {} Error: timeout exceeded", policy.hostname))
}

pub(super) fn limit(policy: &Policy) -> Reply {
    Reply::line(format!("421 {} Service unavailable - try again later", policy.hostname))
}

/// To a client that met a ceiling.
pub(super) fn limited(ceiling: Ceiling) -> Reply {
    Reply::fixed(match ceiling {
        Ceiling::Client => "421 4.7.0 Error: too many connections",
        Ceiling::Screening => "421 4.3.2 All screening ports are busy",
        Ceiling::Server => "421 4.3.2 All server ports are busy",
    })
}

pub(super) const MTA_AWAY: Reply = Reply::fixed("451 4.3.0 Mail system not available, try again later");
pub(super) const GOING_DOWN: Reply = Reply::fixed("421 4.3.2 Service is going down, try again later");

pub(super) const OK: Reply = Reply::fixed("250 2.0.0 Ok");
pub(super) const MAIL_OK: Reply = Reply::fixed("250 2.1.0 Ok");
pub(super) const BYE: Reply = Reply::fixed("221 2.0.0 Bye");
pub(super) const HELO_SYNTAX: Reply = Reply::fixed("501 Syntax: HELO hostname");
pub(super) const EHLO_SYNTAX: Reply = Reply::fixed("501 Syntax: EHLO hostname");
pub(super) const MAIL_SYNTAX: Reply = Reply::fixed("501 5.5.4 Syntax: MAIL FROM:<address>");
pub(super) const RCPT_SYNTAX: Reply = Reply::fixed("501 5.5.4 Syntax: RCPT TO:<address>");
pub(super) const NESTED_MAIL: Reply = Reply::fixed("503 5.5.1 Error: nested MAIL command");
pub(super) const HELO_FIRST: Reply = Reply::fixed("503 5.5.1 Error: send HELO/EHLO first");
pub(super) const MAIL_FIRST: Reply = Reply::fixed("503 5.5.1 Error: need MAIL command");
pub(super) const RCPT_FIRST: Reply = Reply::fixed("503 5.5.1 Error: need RCPT command");
pub(super) const NO_RECIPIENTS: Reply = Reply::fixed("554 5.5.1 Error: no valid recipients");
pub(super) const BDAT_MAIL_FIRST: Reply = Reply::fixed("554 5.5.1 Error: need MAIL command");
pub(super) const VRFY_SYNTAX: Reply = Reply::fixed("501 5.5.4 Syntax: VRFY address");
pub(super) const DATA_SYNTAX: Reply = Reply::fixed("501 5.5.4 Syntax: DATA");
pub(super) const BDAT_SYNTAX: Reply = Reply::fixed("501 5.5.4 Syntax: BDAT count [LAST]");
pub(super) const VRFY_DISABLED: Reply = Reply::fixed("502 5.5.1 VRFY command is disabled");
pub(super) const VRFY_LATER: Reply = Reply::fixed("252 2.0.0 Send some mail, I'll try my best");
pub(super) const STARTTLS_SYNTAX: Reply = Reply::fixed("501 5.5.4 Syntax: STARTTLS");
pub(super) const READY_FOR_TLS: Reply = Reply::fixed("220 2.0.0 Ready to start TLS");
pub(super) const TLS_ACTIVE: Reply = Reply::fixed("554 5.5.1 Error: TLS already active");
pub(super) const TLS_LATER: Reply = Reply::fixed("454 4.7.0 TLS not available due to local problem");
pub(super) const NOT_IMPLEMENTED: Reply = Reply::fixed("502 5.5.1 Error: command not implemented");
pub(super) const UNKNOWN: Reply = Reply::fixed("502 5.5.2 Error: command not recognized");
