//! What OpenBSD's spamd is told: the lists that spamd-setup reads, and the lines that it writes to spamd's socket.
//!
//! Holds the reading of both. [`conf`] reads `spamd.conf`, which says where lists are and holds none.
//!
//! A list has an address, a prefix or a range a line; what stands behind it is a remark. A line for the socket is
//! `tag;"message";inet;2;192.0.2.0/24;198.51.100.7/32`, or without family and number as older versions wrote it; the same tag
//! again takes the list's place, and `tag;` alone takes it away.

pub(super) mod conf;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::span::Span;
use super::rbldnsd::entry;
use super::{BadList, each_line, parse_prefix, quoted};

/// What has been read.
#[derive(Default)]
pub(super) struct Spamd {
    listed: Vec<Span>,
    tagged: BTreeMap<String, Vec<Span>>,
}

impl Spamd {
    /// Reads a text of either kind.
    ///
    /// # Errors
    /// If a line is not understood.
    pub(super) fn read(text: &str, told: &mut dyn FnMut(usize)) -> Result<Self, BadList> {
        let mut read = Self::default();
        let mut bad = BadList::default();
        each_line(text, told, |number, line| bad.push_if(number, read.line(line)));
        if bad.is_empty() { Ok(read) } else { Err(bad) }
    }

    /// The addresses.
    pub(super) fn spans(self) -> Vec<Span> {
        self.listed.into_iter().chain(self.tagged.into_values().flatten()).collect()
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        // An address begins with a digit or has a colon; what is before the first semicolon of the other form is a name.
        match line.split_once(';') {
            Some((tag, rest))
                if !tag.starts_with(|letter: char| letter.is_ascii_digit()) && !tag.contains([':', '#']) =>
            {
                self.told(tag, rest)
            }
            _ => {
                self.listed.extend(block(line)?);
                Ok(())
            }
        }
    }

    fn told(&mut self, tag: &str, rest: &str) -> Result<(), String> {
        if rest.is_empty() {
            self.tagged.remove(tag);
            return Ok(());
        }
        let list = message(rest).ok_or_else(|| {
            format!("'{}': behind the tag must stand a message in double quotes, and a semicolon", quoted(rest))
        })?;
        let fields: Vec<&str> = list.split(';').map(str::trim).collect();
        let spans = match fields.as_slice() {
            [family @ ("inet" | "inet6"), count, entries @ ..] => counted(family, count, entries)?,
            entries => addresses(entries)?,
        };
        self.tagged.insert(tag.to_owned(), spans);
        Ok(())
    }
}

/// What follows a quoted message and its semicolon.
fn message(text: &str) -> Option<&str> {
    let text = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = text.find(|letter| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends
    })?;
    text[end..].strip_prefix("\";")
}

fn counted(family: &str, count: &str, entries: &[&str]) -> Result<Vec<Span>, String> {
    let spans = addresses(entries)?;
    if spans.iter().any(|span| span.is_v4() != (family == "inet")) {
        return Err(format!("there are addresses of another family behind {family}"));
    }
    match count.parse::<usize>() {
        Ok(count) if spans.len() == count => Ok(spans),
        _ => Err(format!(
            "the line says that it has '{}' addresses, and has {}: make it again",
            quoted(count),
            spans.len()
        )),
    }
}

fn addresses(entries: &[&str]) -> Result<Vec<Span>, String> {
    entries.iter().filter(|entry| !entry.is_empty()).map(|entry| parse_prefix(entry).map(Span::from)).collect()
}

/// The addresses that a line of a list names; `None`: it is empty or a comment.
///
/// # Errors
/// If it is neither.
fn block(line: &str) -> Result<Option<Span>, String> {
    let text = line.split('#').next().unwrap_or_default().trim();
    if text.is_empty() {
        return Ok(None);
    }
    let of_address = |letter: char| letter.is_ascii_hexdigit() || ":./".contains(letter);
    let between = |letter: char| letter == '-' || letter.is_whitespace();
    let (first, rest) = text.split_at(text.find(|letter| !of_address(letter)).unwrap_or(text.len()));
    if !rest.is_empty() && !rest.starts_with(|letter| between(letter) || letter == ';') {
        return Err(no_block(line));
    }
    let behind = rest.trim_start_matches(between);
    let last = behind.split(|letter: char| letter.is_whitespace() || letter == ';').next().unwrap_or_default();
    // spamd-setup takes whatever number follows for the end of a range: what is no address there is no remark either.
    let span = if last.starts_with(|letter: char| letter.is_ascii_digit()) {
        let ends = first.parse::<IpAddr>().ok().zip(last.parse::<IpAddr>().ok());
        ends.and_then(|(first, last)| Span::between(first, last))
    } else if first.contains('/') {
        Some(entry::read(first)?.0)
    } else {
        first.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()).into())
    };
    span.map(Some).ok_or_else(|| no_block(line))
}

fn no_block(line: &str) -> String {
    let line = quoted(line);
    format!("'{line}': write 192.0.2.7, 192.0.2.0/24 or 192.0.2.8 - 192.0.2.15, and a remark behind #")
}

#[cfg(test)]
mod tests;
