//! The forms in which lists of prefixes come: text in, prefixes or complaints out.
//!
//! Holds the parsers. Takes a list whole or not at all: one line that is not understood, and nothing of it is used. Never
//! judges what a list covers (`rails` does) and never reads a file.

mod rbldnsd;
mod spamd;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;

use super::rails;
use super::set::normal;
use super::span::{Holes, Span};
use crate::clock::UnixTime;
use crate::named;

use rbldnsd::Rbldnsd;
use spamd::Spamd;
pub use spamd::conf::SpamdConf;

/// How many prefixes a list may come to. A line has one of at least eight bytes in most forms; but a range may be dozens, and
/// what is cut out of something wide leaves a hundred.
const MOST_PREFIXES: usize = 4 << 20;
/// How many complaints are shown.
const SHOWN: usize = 10;
/// How much of a line a complaint quotes.
const QUOTED: usize = 60;
/// What a compressed file begins with, read as text.
const GZIP: &str = "\u{1f}\u{fffd}";
/// After how many lines progress is told.
const STEP: usize = 4096;

/// The form of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A prefix or an address a line, `#` or `;` comments.
    Cidr,
    /// `FireHOL`'s `.netset` and `.ipset`: the same, with `#` comments.
    Netset,
    /// Spamhaus DROP as text: `1.10.16.0/20 ; SBL256894`, with `; EOF` at the end.
    SpamhausText,
    /// Spamhaus DROP as JSON: an object a line, the last one with the number of records.
    SpamhausJson,
    /// Postfix's `postscreen_access.cidr`: `192.0.2.0/24 reject`.
    PostscreenAccess,
    /// A data set of addresses of rbldnsd's: `ip4set`, `ip4trie`, `ip4tset`, `ip6trie`, `ip6tset`.
    Rbldnsd,
    /// OpenBSD's spamd: a list as spamd-setup reads it, or what that tells spamd.
    Spamd,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 7] = [
        Self::Cidr,
        Self::Netset,
        Self::SpamhausText,
        Self::SpamhausJson,
        Self::PostscreenAccess,
        Self::Rbldnsd,
        Self::Spamd,
    ];

    /// The name in configuration and commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cidr => "cidr",
            Self::Netset => "netset",
            Self::SpamhausText => "spamhaus-text",
            Self::SpamhausJson => "spamhaus-json",
            Self::PostscreenAccess => "postscreen-access",
            Self::Rbldnsd => "rbldnsd",
            Self::Spamd => "spamd",
        }
    }

    /// Reads a list, now. `told` hears now and then how many bytes are done.
    ///
    /// # Errors
    /// If any line is not understood, the list is not complete, or it holds nothing.
    pub fn read(self, text: &str, now: UnixTime, told: &mut dyn FnMut(usize)) -> Result<List, BadList> {
        let list = self.read_even_empty(text, now, told)?;
        if list.prefixes.is_empty() { Err(BadList::one("there is no prefix in it")) } else { Ok(list) }
    }

    /// As [`Format::read`], but a list may be complete and hold nothing.
    ///
    /// # Errors
    /// If any line is not understood, or the list is not complete.
    pub fn read_even_empty(self, text: &str, now: UnixTime, told: &mut dyn FnMut(usize)) -> Result<List, BadList> {
        if text.starts_with(GZIP) {
            return Err(BadList::one("this is compressed: unpack it with gunzip first"));
        }
        match self {
            Self::Rbldnsd => Rbldnsd::read(text, now, told),
            Self::Spamd if SpamdConf::is_meant(text) => Err(BadList::one(
                "this is spamd.conf, which names lists and has none: `screener deny import --format spamd` reads those \
                     that are files; a feed must be one of the lists",
            )),
            Self::Spamd => {
                let mut gathered = Gathered::default();
                gathered.add(Spamd::read(text, told)?.spans(), Vec::new());
                gathered.list()
            }
            Self::Cidr => self.lines(text, told, |reader, line| reader.prefix(before(line, &['#', ';']))),
            Self::Netset => self.lines(text, told, |reader, line| reader.prefix(before(line, &['#']))),
            Self::SpamhausText => self.lines(text, told, Reader::spamhaus),
            Self::SpamhausJson => self.lines(text, told, Reader::record),
            Self::PostscreenAccess => self.lines(text, told, Reader::rule),
        }
    }

    fn lines(self, text: &str, told: &mut dyn FnMut(usize), take: fn(&mut Reader, &str)) -> Result<List, BadList> {
        let mut reader = Reader::default();
        each_line(text, told, |number, line| {
            reader.line = number;
            take(&mut reader, line);
        });
        reader.end(self)
    }
}

fn too_many() -> String {
    format!("it comes to more than {MOST_PREFIXES} prefixes, and no list that is meant does: look at its widest ranges")
}

/// A line up to a comment.
fn before<'a>(line: &'a str, marks: &[char]) -> &'a str {
    line.split(marks).next().unwrap_or_default()
}

/// Each line with its number, without what is around it.
fn each_line(text: &str, told: &mut dyn FnMut(usize), mut take: impl FnMut(usize, &str)) {
    // Bytes before the prefixes that some editors write.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut done = 0;
    for (at, line) in text.split_inclusive('\n').enumerate() {
        take(at + 1, line.trim());
        done += line.len();
        if at % STEP == 0 {
            told(done);
        }
    }
    told(done);
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
            .map_err(|known| format!("'{word}' is no list format of this version: it knows {known}"))
    }
}

/// A list that was understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Its prefixes in order, each once, bits behind the length zero.
    pub prefixes: Vec<IpNet>,
    /// How many lines said again what another had said.
    pub repeated: usize,
    /// How many lines said something that does not deny (`permit`, `dunno`) and were left out.
    pub left_out: usize,
    /// How many exclusions it has. They were cut out of what it lists.
    pub exclusions: usize,
    /// Of how many lines nothing was left after that.
    pub nothing_left: usize,
    /// How many lines are test points of a DNS list (RFC 5782), which mean no client and were left out.
    pub test_points: usize,
}

impl List {
    fn of(mut prefixes: Vec<IpNet>) -> Self {
        let read = prefixes.len();
        prefixes.sort_unstable();
        prefixes.dedup();
        let repeated = read - prefixes.len();
        Self { prefixes, repeated, ..Self::default() }
    }

    /// What an operator should hear about it, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let said = [
            (self.repeated, "lines name again what another line had named"),
            (self.left_out, "lines deny nothing and were left out: see `screener permit add`"),
            (self.exclusions, "exclusions were cut out of what the list denies"),
            (self.nothing_left, "lines lie wholly in exclusions, and nothing of them is denied"),
            (self.test_points, "lines are test points for DNS lists (127.0.0.*) and were left out"),
        ];
        said.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect()
    }
}

/// Ranges that are listed less those that are excluded.
#[derive(Default)]
struct Gathered {
    prefixes: Vec<IpNet>,
    exclusions: usize,
    nothing_left: usize,
}

impl Gathered {
    /// Adds ranges, and what is to be cut out of these. Ends where they come to too many prefixes.
    fn add(&mut self, listed: Vec<Span>, excluded: Vec<Span>) {
        self.exclusions += excluded.len();
        let holes = Holes::new(excluded);
        for span in listed {
            let before = self.prefixes.len();
            let room = (MOST_PREFIXES + 1).saturating_sub(before);
            self.prefixes.extend(holes.cut(span).into_iter().flat_map(Span::prefixes).take(room));
            self.nothing_left += usize::from(self.prefixes.len() == before);
        }
    }

    fn list(self) -> Result<List, BadList> {
        let Self { prefixes, exclusions, nothing_left } = self;
        if prefixes.len() > MOST_PREFIXES {
            return Err(BadList::one(&too_many()));
        }
        Ok(List { exclusions, nothing_left, ..List::of(prefixes) })
    }
}

/// A list that was not understood: the first complaints with their lines, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadList {
    faults: Vec<(usize, String)>,
    more: usize,
}

impl BadList {
    /// One complaint about the whole.
    fn one(what: &str) -> Self {
        Self { faults: vec![(1, what.to_owned())], more: 0 }
    }

    fn push_if(&mut self, line: usize, read: Result<(), String>) {
        if let Err(what) = read {
            self.push(line, what);
        }
    }

    pub(crate) fn push(&mut self, line: usize, what: String) {
        if self.faults.len() < SHOWN { self.faults.push((line, what)) } else { self.more += 1 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// How many lines were not understood.
    pub(crate) fn count(&self) -> usize {
        self.faults.len() + self.more
    }

    /// A line a complaint, under the name of the file.
    pub fn told(&self, name: &str) -> String {
        let mut lines: Vec<_> = self.faults.iter().map(|(line, what)| format!("{name}:{line}: {what}")).collect();
        if self.more > 0 {
            lines.push(format!("and {} more lines that are not understood", self.more));
        }
        lines.join("\n")
    }
}

/// One line of Spamhaus's JSON.
#[derive(Deserialize)]
struct Record {
    cidr: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    records: Option<usize>,
}

#[derive(Default)]
struct Reader {
    line: usize,
    prefixes: Vec<IpNet>,
    bad: BadList,
    /// The end that a complete list has was seen.
    ended: bool,
    /// How many records a list says it has.
    announced: Option<usize>,
    /// What a postscreen table does not reject, to be held against what it does.
    exceptions: Vec<(IpNet, usize)>,
}

impl Reader {
    fn fault(&mut self, what: String) {
        self.bad.push(self.line, what);
    }

    fn spamhaus(&mut self, line: &str) {
        self.ended |= line.strip_prefix(';').is_some_and(|rest| rest.trim() == "EOF");
        self.prefix(before(line, &[';']));
    }

    fn prefix(&mut self, text: &str) {
        let text = text.trim();
        if !text.is_empty() {
            match parse_prefix(text) {
                Ok(prefix) => self.prefixes.push(prefix),
                Err(what) => self.fault(what),
            }
        }
    }

    fn record(&mut self, line: &str) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            return;
        }
        match serde_json::from_str::<Record>(line) {
            Ok(Record { cidr: Some(cidr), .. }) => self.prefix(&cidr),
            Ok(Record { kind: Some(kind), records, .. }) if kind == "metadata" => {
                self.ended = true;
                self.announced = records;
            }
            Ok(_) => self.fault(format!("'{}' is an object without \"cidr\"", quoted(line))),
            Err(error) => {
                // It may repeat a text of any length.
                let error: String = error.to_string().chars().take(2 * QUOTED).collect();
                self.fault(format!("'{}' is no JSON object: {error}", quoted(line)));
            }
        }
    }

    fn rule(&mut self, line: &str) {
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let mut words = line.split_whitespace();
        let pattern = words.next().unwrap_or_default();
        let action = words.next().unwrap_or_default().to_ascii_lowercase();
        if pattern.starts_with('!') || ["if", "endif"].contains(&pattern.to_ascii_lowercase().as_str()) {
            return self.fault(format!("'{}': write the networks themselves in place of ! and if", quoted(line)));
        }
        let prefix = match parse_prefix(pattern) {
            Ok(prefix) => prefix,
            Err(what) => return self.fault(what),
        };
        match action.as_str() {
            "reject" => self.prefixes.push(prefix),
            "permit" | "dunno" => self.exceptions.push((prefix, self.line)),
            _ => self.fault(format!("'{}': permit, reject or dunno must stand behind the network", quoted(line))),
        }
    }

    fn end(mut self, format: Format) -> Result<List, BadList> {
        let read = self.prefixes.len();
        let list = List::of(std::mem::take(&mut self.prefixes));
        let repeated = list.repeated;
        self.line = self.line.max(1);
        match format {
            Format::SpamhausText if !self.ended => {
                self.fault("the line \"; EOF\" is missing, so this is not the whole list: fetch it again".to_owned());
            }
            Format::SpamhausJson if !self.ended => {
                let what =
                    "the object with \"type\":\"metadata\" is missing, so this is not the whole list: fetch it again";
                self.fault(what.to_owned());
            }
            _ => {}
        }
        if let Some(announced) = self.announced.filter(|&announced| ![read, read - repeated].contains(&announced)) {
            self.fault(format!("the list says that it has {announced} records, and has {read}: fetch it again"));
        }
        if list.prefixes.len() > MOST_PREFIXES {
            self.fault(too_many());
        }
        self.hold_exceptions(&list.prefixes);
        if self.bad.is_empty() { Ok(List { left_out: self.exceptions.len(), ..list }) } else { Err(self.bad) }
    }

    /// In a table the first match decides, in a deny list there are no exceptions: where the two meet, a person must say what
    /// is meant.
    fn hold_exceptions(&mut self, prefixes: &[IpNet]) {
        for &(exception, line) in &self.exceptions {
            if rails::meets(prefixes, &exception) {
                let what = format!(
                    "{exception} is not rejected, but lies in what is or the other way round: \
                     take that apart, or permit it with `screener permit add {exception}` and take the line out"
                );
                self.bad.push(line, what);
            }
        }
    }
}

/// A prefix or an address, as an operator or a list writes it.
///
/// # Errors
/// If it is neither, or bits are set behind its length; with what would be right.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let given = text.parse::<IpNet>().or_else(|_| address());
    let given = given.map_err(|_| format!("'{}' is no prefix and no address", quoted(text)))?;
    normal(given).map_err(|refused| refused.to_string())
}

/// The beginning of a line, without what a terminal would obey.
pub(crate) fn quoted(line: &str) -> String {
    let mut shown: String = line.chars().take(QUOTED).flat_map(char::escape_debug).collect();
    if line.chars().nth(QUOTED).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
