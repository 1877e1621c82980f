//! Our own form: a header with its version, a pass a line, and an end that says how many there were.
//!
//! ```text
//! screener-passes 1 ipv6_prefix=64
//! 192.0.2.1<TAB>created=2026-11-24T04:30:00Z<TAB>origin=manual<TAB>dnsbl=2026-12-24T04:30:00Z<TAB>comment="by phone"
//! end 1
//! ```
//!
//! A test that is not named was never passed. The comment is a JSON string and comes last. What a later version adds to a
//! line gets another number in the header.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::client::Ipv6KeyLength;
use crate::clock::UnixTime;
use crate::feed::quoted;
use crate::ledger::{COMMENT_MAX, Origin, Pass};
use crate::pass::{Stamps, Test};

use super::address;

/// The form's version.
const VERSION: u32 = 1;
const END: &str = "end";
const COMMENT: &str = "comment=";

/// The first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bits of an IPv6 address are a client where the dump is made.
    pub ipv6_key: Ipv6KeyLength,
}

impl Header {
    /// The word that a dump begins with.
    pub const WORD: &str = "screener-passes";

    pub(super) fn begins(line: &str) -> bool {
        line.split_whitespace().next() == Some(Self::WORD)
    }

    pub(super) fn read(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        if words.next() != Some(Self::WORD) {
            return Err(format!("a dump of ours begins with the line \"{} {VERSION} …\"", Self::WORD));
        }
        let version = words.next().unwrap_or_default();
        if version.parse() != Ok(VERSION) {
            return Err(format!("the dump is of version '{}', and this screener reads {VERSION}", quoted(version)));
        }
        let mut ipv6_key = Ipv6KeyLength::default();
        for word in words {
            let bits = word.strip_prefix("ipv6_prefix=").and_then(|bits| bits.parse::<u8>().ok());
            let length = bits.and_then(|bits| Ipv6KeyLength::try_from(bits).ok());
            ipv6_key = length.ok_or_else(|| format!("'{}' belongs into no header of version 1", quoted(word)))?;
        }
        Ok(Self { ipv6_key })
    }
}

impl std::fmt::Display for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {VERSION} ipv6_prefix={}", Self::WORD, self.ipv6_key.bits())
    }
}

/// A pass as a line, without its end.
pub fn line(client: IpAddr, pass: &Pass) -> String {
    let mut line = format!("{client}\tcreated={}\torigin={}", pass.created, pass.origin);
    for test in Test::ALL {
        if let Some(until) = pass.stamps.get(test) {
            // Writing to a string does not fail.
            let _ = write!(line, "\t{test}={until}");
        }
    }
    if let Some(comment) = &pass.comment {
        // A string is always valid JSON.
        let _ = write!(line, "\t{COMMENT}{}", serde_json::Value::from(comment.as_str()));
    }
    line
}

/// The last line.
pub fn footer(passes: u64) -> String {
    format!("{END} {passes}")
}

/// How many passes the end of a dump announces; `None`: the line is not the end.
pub(super) fn end(line: &str) -> Option<Result<u64, String>> {
    let mut words = line.split_whitespace();
    (words.next() == Some(END)).then(|| {
        let count = words.next().and_then(|count| count.parse().ok()).filter(|_| words.next().is_none());
        count.ok_or_else(|| format!("'{}': the last line is \"{END}\" and how many passes there are", quoted(line)))
    })
}

pub(super) fn read(line: &str) -> Result<(IpAddr, Pass), String> {
    let (fields, comment) = match line.split_once(COMMENT).filter(|(before, _)| before.ends_with(char::is_whitespace)) {
        Some((fields, comment)) => (fields, Some(comment)),
        None => (line, None),
    };
    let mut fields = fields.split_whitespace();
    let client = address(fields.next().unwrap_or_default())?;
    let (mut created, mut origin, mut stamps) = (None, None, Stamps::default());
    for field in fields {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("'{}' is no key=value", quoted(field)))?;
        let again = match key {
            "created" => created.replace(value.parse::<UnixTime>()?).is_some(),
            "origin" => origin.replace(value.parse::<Origin>()?).is_some(),
            _ => {
                let test: Test = key.parse().map_err(|error| format!("'{}': {error}", quoted(field)))?;
                let again = stamps.get(test).is_some();
                stamps.set(test, Some(value.parse()?));
                again
            }
        };
        if again {
            return Err(format!("'{}': {key} stands there twice", quoted(field)));
        }
    }
    let comment = comment.map(serde_json::from_str::<String>).transpose();
    let comment = comment.map_err(|error| format!("the comment is no JSON string: {error}"))?;
    if comment.as_ref().is_some_and(|comment| comment.len() > COMMENT_MAX) {
        return Err(format!("the comment is longer than {COMMENT_MAX} bytes"));
    }
    Ok((
        client,
        Pass {
            stamps,
            created: created.ok_or("created= is missing")?,
            origin: origin.ok_or("origin= is missing")?,
            comment,
        },
    ))
}
