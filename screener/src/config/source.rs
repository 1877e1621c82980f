//! The text of a configuration file and the way from a span in it to line, column and key.
//!
//! Holds the text only while it is parsed: it may contain secrets. Never judges a value.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error as TomlError};

use super::error::{ConfigError, Place, Problem};
use super::raw::Raw;

/// The tables that are written with two brackets on each side.
const SEVERAL: [&str; 5] = ["permit", "deny", "feed", "pool", "tests.dnsbl.list"];

/// What stands before an answer of a DNS list in the path of its key.
const CODES: &str = "].codes.";

/// A key's path and the span of the key or of its value.
struct Entry {
    span: Range<usize>,
    path: String,
}

/// A parsed file.
pub(super) struct Source<'t> {
    name: Arc<str>,
    text: &'t str,
    entries: Vec<Entry>,
}

impl<'t> Source<'t> {
    /// Reads the text as TOML and as our tables; values stay as they are written.
    pub(super) fn read(text: &'t str, name: &str) -> Result<(Self, Raw), ConfigError> {
        let mut source = Self { name: name.into(), text, entries: Vec::new() };
        let table = DeTable::parse(text).map_err(|error| source.refuse_toml(&error))?;
        index_table(table.get_ref(), "", &mut source.entries);
        let raw = serde::Deserialize::deserialize(toml::Deserializer::from(table));
        match raw {
            Ok(raw) => Ok((source, raw)),
            Err(error) => Err(source.refuse_toml(&error)),
        }
    }

    /// The place of a span.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        // The smallest key or value around the span: tables hold their keys' spans, so the innermost is meant.
        let entry = self
            .entries
            .iter()
            .filter(|entry| entry.span.start <= span.start && span.end <= entry.span.end)
            .min_by_key(|entry| entry.span.len());
        Place {
            file: Arc::clone(&self.name),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            key: entry.map(|entry| entry.path.clone()).unwrap_or_default(),
        }
    }

    /// What the TOML reader found, in words for the person who wrote the file.
    fn refuse_toml(&self, error: &TomlError) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let place = self.place(&span);
        let message = match (error.message(), self.text.get(span)) {
            ("duplicate key", Some(key)) => format!("the key `{key}` stands here a second time: keep one"),
            (message, _) if message.starts_with("invalid type: map,") && SEVERAL.contains(&&*place.key) => {
                format!("there can be several of these: write [[{}]], with two brackets on each side", place.key)
            }
            // Without quotes each dot begins another table.
            (message, _) if message.starts_with("invalid type: map,") && place.key.contains(CODES) => {
                "an answer of a DNS list stands in quotes: write \"127.0.0.2\" = 3".to_owned()
            }
            (message, _) => plain(message),
        };
        ConfigError::Invalid(vec![Problem { place, message }])
    }
}

fn index_table(table: &DeTable<'_>, path: &str, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        let name = key.get_ref();
        let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let dot = if path.is_empty() { "" } else { "." };
        let path = if bare { format!("{path}{dot}{name}") } else { format!("{path}{dot}{name:?}") };
        entries.push(Entry { span: key.span(), path: path.clone() });
        index_value(value, path, entries);
    }
}

fn index_value(value: &Spanned<DeValue<'_>>, path: String, entries: &mut Vec<Entry>) {
    match value.get_ref() {
        DeValue::Table(table) => index_table(table, &path, entries),
        DeValue::Array(members) => {
            for (number, member) in members.iter().enumerate() {
                index_value(member, format!("{path}[{number}]"), entries);
            }
        }
        _ => {}
    }
    entries.push(Entry { span: value.span(), path });
}

/// serde speaks of fields, maps and `u32`; the file has keys, tables and numbers. Values are left out of the message:
/// they may be secret, and the place shows them.
fn plain(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown_key(rest);
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return format!("the key {} is missing here: add it", rest.trim_matches('`'));
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        let (found, expected) = (plain_type(found), plain_type(expected));
        // A number that fits no integer type is of a wrong type to serde.
        return if found == expected {
            format!("out of range: {found} of this size cannot be held")
        } else {
            format!("wrong type: {found} stands here; write {expected}")
        };
    }
    format!("not TOML: {}", message.lines().collect::<Vec<_>>().join("; "))
}

fn plain_type(word: &str) -> &str {
    // What follows a quote is the value itself.
    let word = word.split(['`', '"']).next().unwrap_or_default().trim();
    match word {
        "sequence" | "a sequence" => "a list, [...]",
        "map" | "a map" | "table" | "a table" => "a table",
        "string" | "a string" | "borrowed string" | "a borrowed string" => "text in quotes",
        "boolean" | "a boolean" => "true or false",
        "integer" | "i64" => "a whole number",
        "floating point" => "a number with a fraction",
        other => other,
    }
}

fn unknown_key(rest: &str) -> String {
    // `name`, expected one of `a`, `b` | `name`, expected `a` or `b` | `name`, there are no fields
    let mut words = rest.split('`').skip(1).step_by(2);
    let name = words.next().unwrap_or_default();
    let known: Vec<&str> = words.collect();
    let near = known.iter().map(|word| (distance(name, word), word)).filter(|(far, _)| *far <= 2).min();
    let hint = near.map(|(_, word)| format!("did you mean `{word}`? ")).unwrap_or_default();
    format!("unknown key: {hint}known here: {}", known.join(", "))
}

/// How many letters must be put in, taken out or changed to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
