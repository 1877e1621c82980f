//! rbldnsd's data sets of addresses: `ip4set`, `ip4trie`, `ip4tset`, `ip6trie` and `ip6tset`, also mixed in one file.
//!
//! Holds the reading of a line and what the lines together say. A line that rbldnsd would skip with a warning is an error
//! here. Where its data sets disagree, because of two that overlap the one holds the narrower and the other the excluded, an
//! exclusion wins: nobody is denied whom the list excludes. What an entry answers (`:127.0.0.3:text`) decides nothing.

pub(super) mod entry;
mod stamp;

use super::super::span::Span;
use super::{BadList, Gathered, List, each_line, quoted};
use crate::clock::UnixTime;

/// The lines that are of use to a DNS server only.
const OF_DNS: [&str; 4] = ["soa", "ns", "nameserver", "ttl"];

/// What has been read of a file.
#[derive(Debug)]
pub(super) struct Rbldnsd {
    now: UnixTime,
    /// The list's own limit for one entry of IPv4: how many addresses it may have.
    most: Option<u64>,
    listed: Vec<Span>,
    excluded: Vec<Span>,
    test_points: usize,
}

impl Rbldnsd {
    /// Reads a file.
    ///
    /// # Errors
    /// If a line is not understood, or the list holds no longer.
    pub(super) fn read(text: &str, now: UnixTime, told: &mut dyn FnMut(usize)) -> Result<List, BadList> {
        let mut read = Self { now, most: None, listed: Vec::new(), excluded: Vec::new(), test_points: 0 };
        let mut bad = BadList::default();
        each_line(text, told, |number, line| bad.push_if(number, read.line(line)));
        let mut gathered = Gathered::default();
        gathered.add(read.listed, read.excluded);
        if bad.is_empty() { Ok(List { test_points: read.test_points, ..gathered.list()? }) } else { Err(bad) }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(special) = line.strip_prefix('$') {
            return self.special(special)?.ok_or_else(|| {
                format!("'{}': rbldnsd knows no such $ line: take it out, or make it a comment with #", quoted(line))
            });
        }
        if let Some(special) = [';', '#', ':'].iter().find_map(|mark| line.strip_prefix(*mark)?.strip_prefix('$')) {
            let known = self.special(special)?;
            return match known {
                None if line.starts_with(':') => Err(format!("'{}': rbldnsd knows no such $ line", quoted(line))),
                _ => Ok(()),
            };
        }
        if line.is_empty() || line.starts_with(['#', ';']) {
            return Ok(());
        }
        if line.starts_with(':') && !line.starts_with("::") {
            return entry::value(line);
        }
        self.entry(line)
    }

    /// A `$` line without its `$`; `None`: no such one.
    fn special(&mut self, line: &str) -> Result<Option<()>, String> {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let word = word.to_ascii_lowercase();
        match word.as_str() {
            "maxrange4" => self.limit(rest)?,
            "timestamp" => stamp::hold(rest, self.now)?,
            "dataset" => {
                return Err(
                    "$DATASET: this file has several data sets: import the part behind each $DATASET ip4set, ip4trie, \
                     ip4tset, ip6trie or ip6tset as a file of its own"
                        .to_owned(),
                );
            }
            // Texts that entries may refer to.
            "=" | "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" => {}
            _ if OF_DNS.contains(&word.as_str()) => {}
            _ => return Ok(None),
        }
        Ok(Some(()))
    }

    /// `$MAXRANGE4 256` or `/24`. A later one can only make it less.
    fn limit(&mut self, text: &str) -> Result<(), String> {
        let most = match text.strip_prefix('/') {
            Some(length) => length.parse::<u32>().ok().filter(|length| *length <= 32).map(|length| 1 << (32 - length)),
            None => text.parse::<u32>().ok().map(u64::from),
        };
        let most: u64 = most
            .filter(|most| *most > 0)
            .ok_or_else(|| format!("$MAXRANGE4 '{}': write a number of addresses, or a length as /24", quoted(text)))?;
        self.most = Some(self.most.map_or(most, |before| before.min(most)));
        Ok(())
    }

    fn entry(&mut self, line: &str) -> Result<(), String> {
        let (text, excludes) = match line.strip_prefix('!') {
            Some(text) => (text.trim_start(), true),
            None => (line, false),
        };
        let (span, behind) = entry::read(text)?;
        if behind.starts_with(':') && !excludes {
            entry::value(behind)?;
        }
        if let Some(most) = self.most.filter(|most| span.is_v4() && span.reach() >= u128::from(*most)) {
            return Err(format!(
                "'{}' has {} addresses, and the list's own $MAXRANGE4 allows {most}: take one of the two out",
                quoted(line),
                span.reach() + 1
            ));
        }
        if excludes {
            self.excluded.push(span);
        } else if entry::are_test_points(span) {
            self.test_points += 1;
        } else {
            self.listed.push(span);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
