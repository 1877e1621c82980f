//! Passes as text: our own dump, what `postmap -s` prints of postscreen's cache, what `spamdb` prints of spamd's database.
//!
//! Holds the forms, a line at a time. Never reads a file, never looks at a clock, and never decides what becomes of a pass.

mod ours;
mod postscreen;
mod spamdb;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::client::Ipv6KeyLength;
use crate::clock::UnixTime;
use crate::feed::quoted;
use crate::ledger::Pass;
use crate::named;

pub use ours::{Header, footer, line};

/// Nothing of ours, of postscreen's or of spamd's expires after the year 9999.
const LAST_TIME: u64 = 253_402_300_799;

/// The form of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our own.
    Screener,
    /// `postmap -s` of postscreen's cache.
    Postscreen,
    /// `spamdb` without arguments.
    Spamdb,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Screener, Self::Postscreen, Self::Spamdb];

    /// The name in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Screener => "screener",
            Self::Postscreen => "postscreen",
            Self::Spamdb => "spamdb",
        }
    }

    /// Which one a line with something in it is of, as far as it can be told.
    pub fn of(line: &str) -> Option<Self> {
        if Header::begins(line) {
            Some(Self::Screener)
        } else if spamdb::begins(line) {
            Some(Self::Spamdb)
        } else if postscreen::begins(line) {
            Some(Self::Postscreen)
        } else {
            None
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        named::find(Self::ALL, Self::name, word)
            .map_err(|known| format!("'{word}' is no form of a dump: it is one of {known}"))
    }
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing: empty, or a remark.
    Nothing,
    /// A pass, and whose.
    Pass(IpAddr, Pass),
    /// Something that is no pass, by the word for it.
    Other(&'static str),
}

/// Reads a dump, line by line.
#[derive(Debug)]
pub struct Reader {
    format: Option<Format>,
    /// When what says nothing of it began.
    now: UnixTime,
    header: Option<Header>,
    /// Lines that are passes or are meant to be.
    records: u64,
    /// What the last line of our own form says.
    ended: Option<u64>,
    lines: u64,
}

impl Reader {
    /// For a dump of this form; `None`: of the form that its first line has.
    pub fn new(format: Option<Format>, now: UnixTime) -> Self {
        Self { format, now, header: None, records: 0, ended: None, lines: 0 }
    }

    /// The form, as soon as it is known.
    pub fn format(&self) -> Option<Format> {
        self.format
    }

    /// How many bits of an IPv6 address were a client where the dump was made, if it says so.
    pub fn ipv6_key(&self) -> Option<Ipv6KeyLength> {
        self.header.map(|header| header.ipv6_key)
    }

    /// Takes the next line, without its end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&mut self, line: &str) -> Result<Line, String> {
        self.lines += 1;
        let line = if self.lines == 1 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(Line::Nothing);
        }
        let format = match self.format {
            Some(format) => format,
            None => *self.format.insert(Format::of(line).ok_or_else(|| unknown(line))?),
        };
        match format {
            Format::Screener => self.ours(line),
            Format::Postscreen => postscreen::read(line, self.now),
            Format::Spamdb => spamdb::read(line),
        }
    }

    /// After the last line.
    ///
    /// # Errors
    /// If there must have been more.
    pub fn end(&self) -> Result<(), String> {
        match (self.format, self.ended) {
            (Some(Format::Screener), None) => Err(format!(
                "the last line, \"end {}\", is missing, so this is not the whole dump: make it again",
                self.records
            )),
            (Some(Format::Screener), Some(announced)) if announced != self.records => Err(format!(
                "the end says that there are {announced} passes, and there are {}: if lines were taken out or put in on \
                 purpose, say so there or with --skip-bad",
                self.records
            )),
            _ => Ok(()),
        }
    }

    fn ours(&mut self, line: &str) -> Result<Line, String> {
        if self.header.is_none() {
            self.header = Some(Header::read(line)?);
            return Ok(Line::Nothing);
        }
        if self.ended.is_some() {
            return Err("something stands behind the line \"end\": are these two dumps in one?".to_owned());
        }
        if let Some(announced) = ours::end(line) {
            self.ended = Some(announced?);
            return Ok(Line::Nothing);
        }
        self.records += 1;
        let (client, pass) = ours::read(line)?;
        Ok(Line::Pass(client, pass))
    }
}

fn unknown(line: &str) -> String {
    format!(
        "'{}' begins no dump that is known: neither ours (\"{}\"), nor postscreen's cache as `postmap -s` prints it, nor the \
         output of `spamdb`; name the form with --format",
        quoted(line),
        Header::WORD
    )
}

/// An address as the first word of a line.
fn address(word: &str) -> Result<IpAddr, String> {
    let address: IpAddr = word.parse().map_err(|_| format!("'{}' is no IP address", quoted(word)))?;
    Ok(address.to_canonical())
}

/// Seconds since 1970.
fn seconds(word: &str) -> Result<UnixTime, String> {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let number = word.parse::<u64>().ok().filter(|number| digits && *number <= LAST_TIME);
    number.map(UnixTime).ok_or_else(|| format!("'{}' is no time in seconds since 1970", quoted(word)))
}

#[cfg(test)]
mod tests;
