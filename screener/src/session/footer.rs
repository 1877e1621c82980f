//! The operator's footer of refusals: where to call, and what to say there.
//!
//! Holds the template, as Postfix writes one (`smtpd_reject_footer`), and its expansion. Never touches a reply's code.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::UnixTime;

/// No line may be longer, expanded or not, so that with its code a reply line stays within 512 bytes (RFC 5321 section
/// 4.5.3.1.5).
const LONGEST_LINE: usize = 400;

/// The template. `\n` begins a new line; `\c` at its start joins the first line to the reply's own text. `$client_address`,
/// `$client_port`, `$localtime` and `$server_name` (also `${…}` and `$(…)`) are replaced; `$$` is a dollar sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    joined: bool,
    lines: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    ClientAddress,
    ClientPort,
    LocalTime,
    ServerName,
}

const MACROS: [(&str, Piece); 4] = [
    ("client_address", Piece::ClientAddress),
    ("client_port", Piece::ClientPort),
    ("localtime", Piece::LocalTime),
    ("server_name", Piece::ServerName),
];

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    /// A macro that there is none of.
    #[error(
        "${0} is no macro: use $client_address, $client_port, $localtime or $server_name, and $$ for a dollar sign"
    )]
    UnknownMacro(String),
    /// A bracket behind `$` that is not closed.
    #[error("${0} is not closed")]
    Open(char),
    /// What SMTP has no room for.
    #[error("only printable ASCII can stand in a reply, not {0:?}")]
    Unprintable(char),
    /// Too long a line.
    #[error("a line has {0} characters; more than {LONGEST_LINE} do not fit into a reply: begin another with \\n")]
    TooLong(usize),
}

impl FromStr for Footer {
    type Err = FooterError;

    fn from_str(template: &str) -> Result<Self, FooterError> {
        let (joined, rest) = template.strip_prefix("\\c").map_or((false, template), |rest| (true, rest));
        if template.is_empty() {
            return Ok(Self::default());
        }
        let lines = rest.replace("\\n", "\n");
        let lines = lines.strip_suffix('\n').unwrap_or(&lines).split('\n').map(line).collect::<Result<_, _>>()?;
        Ok(Self { joined, lines })
    }
}

fn line(template: &str) -> Result<Vec<Piece>, FooterError> {
    if let Some(odd) = template.chars().find(|c| !(' '..='~').contains(c)) {
        return Err(FooterError::Unprintable(odd));
    }
    if template.len() > LONGEST_LINE {
        return Err(FooterError::TooLong(template.len()));
    }
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('$') {
        text.push_str(before);
        if let Some(behind) = behind.strip_prefix('$') {
            text.push('$');
            rest = behind;
            continue;
        }
        let (name, behind) = name(behind)?;
        let known = MACROS.iter().find(|(known, _)| *known == name);
        let (_, piece) = known.ok_or_else(|| FooterError::UnknownMacro(name.to_owned()))?;
        pieces.push(Piece::Text(std::mem::take(&mut text)));
        pieces.push(piece.clone());
        rest = behind;
    }
    text.push_str(rest);
    pieces.push(Piece::Text(text));
    Ok(pieces)
}

/// The name of a macro and what follows it.
fn name(behind: &str) -> Result<(&str, &str), FooterError> {
    for (open, close) in [('{', '}'), ('(', ')')] {
        if let Some(inner) = behind.strip_prefix(open) {
            return inner.split_once(close).ok_or(FooterError::Open(open));
        }
    }
    let end = behind.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(behind.len());
    Ok(behind.split_at(end))
}

/// What the macros stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    pub(super) client: SocketAddr,
    pub(super) server_name: &'a str,
    pub(super) now: UnixTime,
    pub(super) zone: &'a TimeZone,
}

impl Footer {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The reply's own text (without its code) and the footer, as lines.
    pub(super) fn lines(&self, text: &str, values: &Values<'_>) -> Vec<String> {
        let mut lines = vec![text.to_owned()];
        for (position, pieces) in self.lines.iter().enumerate() {
            let expanded = pieces.iter().fold(String::new(), |line, piece| expand(line, piece, values));
            match lines.last_mut() {
                Some(last) if position == 0 && self.joined => last.push_str(&expanded),
                _ => lines.push(expanded),
            }
        }
        lines
    }
}

fn expand(mut line: String, piece: &Piece, values: &Values<'_>) -> String {
    // Writing to a string cannot fail.
    let _ = match piece {
        Piece::Text(text) => write!(line, "{text}"),
        Piece::ClientAddress => write!(line, "{}", values.client.ip()),
        Piece::ClientPort => write!(line, "{}", values.client.port()),
        Piece::ServerName => write!(line, "{}", values.server_name),
        Piece::LocalTime => {
            let stamp = i64::try_from(values.now.0).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
            let local = stamp.unwrap_or(Timestamp::UNIX_EPOCH).to_zoned_datetime(values.zone.clone());
            write!(line, "{}", local.strftime("%b %e %H:%M:%S"))
        }
    };
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(template: &str) -> Vec<String> {
        let values = Values {
            client: "203.0.113.5:34209".parse().unwrap(),
            server_name: "mx.test",
            now: UnixTime(1_795_572_274),
            zone: &TimeZone::UTC,
        };
        template.parse::<Footer>().unwrap().lines("Protocol error", &values)
    }

    #[test]
    fn a_footer_begins_a_line_of_its_own_or_joins_the_reply() {
        assert_eq!(lines(""), ["Protocol error"]);
        assert_eq!(lines("Call us."), ["Protocol error", "Call us."]);
        assert_eq!(lines("\\c. Call us.\\nNow."), ["Protocol error. Call us.", "Now."]);
        assert_eq!(lines("one\ntwo\n"), ["Protocol error", "one", "two"]);
    }

    #[test]
    fn macros_tell_the_postmaster_what_to_quote() {
        let all = "time ($localtime) client (${client_address}) port $(client_port) server $server_name. $$1";
        let expected = "time (Nov 25 02:04:34) client (203.0.113.5) port 34209 server mx.test. $1";
        assert_eq!(lines(all)[1], expected);
    }

    #[test]
    fn a_template_that_cannot_be_said_is_refused() {
        let error = |template: &str| template.parse::<Footer>().unwrap_err();
        assert_eq!(error("$recipient"), FooterError::UnknownMacro("recipient".to_owned()));
        assert_eq!(error("${client_address"), FooterError::Open('{'));
        assert_eq!(error("é"), FooterError::Unprintable('é'));
        assert_eq!(error(&"x".repeat(401)), FooterError::TooLong(401));
    }
}
