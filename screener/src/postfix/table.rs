//! Postfix's tables that are looked up by address: `cidr:`, and `texthash:`, `hash:` and their like by their source.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::Files;
use super::lines::logical;
use super::networks::net;
use crate::feed::{Holes, Span, quoted};

/// A rule of a table: the addresses that it is about, without those of the rules before it, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) spans: Vec<Span>,
    pub(super) says: String,
    /// The file and the line.
    pub(super) place: String,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) rules: Vec<Rule>,
    /// The lines that Postfix takes no notice of.
    pub(super) ignored: Vec<String>,
}

/// The tables whose source text is the table, and those that are made of one.
const BY_KEY: [&str; 7] = ["texthash", "hash", "btree", "lmdb", "cdb", "dbm", "sdbm"];

/// Whether a word names a table.
pub(super) fn is_named(word: &str) -> bool {
    word.split_once(':').is_some_and(|(kind, _)| {
        !kind.is_empty() && kind.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
    })
}

/// Reads a table that a word names.
///
/// # Errors
/// If it is of another kind or cannot be read; with what to do.
pub(super) fn read(word: &str, files: &dyn Files) -> Result<Rules, String> {
    let (kind, path) = word.split_once(':').unwrap_or_default();
    match kind {
        "cidr" => Ok(cidr(&files.read(Path::new(path))?, path)),
        _ if BY_KEY.contains(&kind) && path.starts_with('/') => {
            let mut rules = Rules::default();
            for Entry { key, says, place } in by_key(&files.read(Path::new(path))?, path) {
                match address(&key) {
                    Some(address) => rules.rules.push(Rule { spans: vec![address], says, place }),
                    None if net(&key).is_some() => rules.ignored.push(format!(
                        "{place}: '{}': Postfix looks for a client's address as it writes it, and for nothing else in a table \
                         of this type: a network belongs into a cidr: table",
                        quoted(&key)
                    )),
                    None => {}
                }
            }
            Ok(rules)
        }
        _ => Err(format!("a table of type {kind} is not read: write what it says into a cidr: table")),
    }
}

/// A key that a client's address can be: the address alone, as `inet_ntop(3)` writes it.
fn address(key: &str) -> Option<Span> {
    let address: IpAddr = key.parse().ok()?;
    let is_a_clients = address.to_canonical() == address && address.to_string() == key.to_ascii_lowercase();
    is_a_clients.then(|| IpNet::from(address).into())
}

/// A line of a table with keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) says: String,
    place: String,
}

/// A table with keys; of two lines with the same key the first counts.
pub(super) fn by_key(text: &str, name: &str) -> Vec<Entry> {
    let entries = logical(text).into_iter().filter_map(|line| {
        let (key, says) = line.text.trim().split_once(char::is_whitespace)?;
        let place = format!("{name}:{}", line.number);
        Some(Entry { key: key.to_owned(), says: says.trim().to_owned(), place })
    });
    entries.collect()
}

/// A `cidr:` table: the first rule that matches decides, `!` is everything else, and what stands between `if` and `endif` counts
/// only there.
fn cidr(text: &str, name: &str) -> Rules {
    let mut rules = Rules::default();
    // What each `if` that is open lets through.
    let mut open: Vec<Vec<Span>> = Vec::new();
    for line in logical(text) {
        let place = format!("{name}:{}", line.number);
        let mut ignored = |why: &str| {
            rules
                .ignored
                .push(format!("{place}: '{}': Postfix takes no notice of this line: {why}", quoted(&line.text)));
        };
        let text = line.text.trim();
        let word = text.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap_or_default();
        if word.eq_ignore_ascii_case("endif") {
            match text[word.len()..].trim() {
                "" if open.pop().is_some() => {}
                "" => ignored("no if stands before it"),
                _ => ignored("something stands behind endif"),
            }
            continue;
        }
        let is_if = word.eq_ignore_ascii_case("if");
        let text = if is_if { text[word.len()..].trim_start() } else { text };
        let rest = text.trim_start_matches(|letter: char| letter == '!' || letter.is_whitespace());
        let negations = text[..text.len() - rest.len()].matches('!').count();
        let (pattern, says) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let matched = match net(pattern) {
            Some(Ok(span)) if negations % 2 == 0 => vec![span],
            Some(Ok(span)) => Holes::new(vec![span]).cut(if span.is_v4() { Span::all_v4() } else { Span::all_v6() }),
            Some(Err(why)) => {
                ignored(&why);
                continue;
            }
            None => {
                ignored("it does not begin with an address or a network");
                continue;
            }
        };
        let let_through = open.last().map_or(matched.clone(), |outer| common(&matched, outer));
        let says = says.trim();
        if is_if {
            open.push(let_through);
        } else if says.is_empty() {
            ignored("nothing stands behind the network");
        } else if !let_through.is_empty() {
            rules.rules.push(Rule { spans: let_through, says: says.to_owned(), place });
        }
    }
    rules
}

/// What is in both.
fn common(some: &[Span], others: &[Span]) -> Vec<Span> {
    let mut outside = Vec::new();
    let holes = Holes::new(others.to_vec());
    for all in [Span::all_v4(), Span::all_v6()] {
        outside.extend(holes.cut(all));
    }
    let outside = Holes::new(outside);
    some.iter().flat_map(|span| outside.cut(*span)).collect()
}
