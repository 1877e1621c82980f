//! `spamd.conf`: which lists spamd-setup reads, in which order, and where they are.
//!
//! Holds the reading of its records (`getcap`'s), and what comes of the lists when somebody opens them. Never opens anything.

use std::collections::BTreeMap;

use super::super::{BadList, Gathered, List, quoted};
use super::Spamd;

/// What a record looks like.
const EXAMPLE: &str = "a list is written as name:\\ :black:\\ :msg=\"…\":\\ :method=file:\\ :file=/path:";

/// A configuration that was understood: its black lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpamdConf(Vec<Black>);

/// A list that denies.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Black {
    file: String,
    /// The lists that are taken out of it.
    white: Vec<String>,
}

/// One record, of any kind.
struct Record<'a> {
    line: usize,
    name: &'a str,
    says: Vec<&'a str>,
}

enum Kind {
    Black,
    White,
}

impl SpamdConf {
    /// Whether a text is meant to be such a configuration: it begins with a name, a colon, and more to come.
    pub fn is_meant(text: &str) -> bool {
        let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        first.and_then(|line| line.split_once(':')).is_some_and(|(name, rest)| {
            let is_name =
                !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || "_-|".contains(letter));
            is_name && rest.ends_with(['\\', ':']) && !rest.ends_with("::")
        })
    }

    /// Reads it.
    ///
    /// # Errors
    /// If it does not say which lists there are, or names one that is no file here.
    pub fn read(text: &str) -> Result<Self, BadList> {
        let mut bad = BadList::default();
        let mut black: Vec<Black> = Vec::new();
        let joined = joined(text);
        let records: Vec<Record<'_>> = joined.iter().map(|(line, text)| Record::of(*line, text)).collect();
        let named: BTreeMap<&str, &Record<'_>> = records.iter().rev().map(|record| (record.name, record)).collect();
        let Some(all) = named.get("all") else {
            bad.push(
                1,
                "there is no record 'all', which names the lists in their order: all:\\ :one:other:".to_owned(),
            );
            return Err(bad);
        };
        for name in all.says.iter().flat_map(|names| names.split_whitespace()) {
            let Some(record) = named.get(name) else {
                bad.push(all.line, format!("'all' names '{}', and there is no such list: {EXAMPLE}", quoted(name)));
                continue;
            };
            match (record.list(), black.last_mut()) {
                (Ok((Kind::Black, file)), _) => black.push(Black { file, white: Vec::new() }),
                (Ok((Kind::White, file)), Some(before)) => before.white.push(file),
                (Ok((Kind::White, _)), None) => {
                    bad.push(
                        all.line,
                        format!("'{name}' is white, and no black list stands before it: move it behind one"),
                    );
                }
                (Err(what), _) => bad.push(record.line, what),
            }
        }
        if bad.is_empty() && black.is_empty() {
            bad.push(all.line, "'all' names no list".to_owned());
        }
        if bad.is_empty() { Ok(Self(black)) } else { Err(bad) }
    }

    /// What its lists deny. `open` gives the text of a file.
    ///
    /// # Errors
    /// If a list cannot be opened or is not understood.
    pub fn lists(&self, open: &mut dyn FnMut(&str) -> Result<String, String>) -> Result<List, String> {
        let mut gathered = Gathered::default();
        let mut spans = |file: &String| {
            let spamd = Spamd::read(&open(file)?, &mut |_| ()).map_err(|bad| bad.told(file))?;
            Ok::<_, String>(spamd.spans())
        };
        for Black { file, white } in &self.0 {
            let listed = spans(file)?;
            let mut excluded = Vec::new();
            for file in white {
                excluded.extend(spans(file)?);
            }
            gathered.add(listed, excluded);
        }
        if gathered.prefixes.is_empty() {
            Err("there is no prefix in its lists".to_owned())
        } else {
            gathered.list().map_err(|bad| bad.told("spamd.conf"))
        }
    }
}

impl<'a> Record<'a> {
    fn of(line: usize, text: &'a str) -> Self {
        let mut fields = fields(text).into_iter().map(str::trim).filter(|field| !field.is_empty());
        Self { line, name: fields.next().unwrap_or_default(), says: fields.collect() }
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.says.iter().find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    }

    fn list(&self) -> Result<(Kind, String), String> {
        let name = quoted(self.name);
        let has = |kind| self.says.contains(&kind);
        let kind = match (has("black"), has("white")) {
            (true, _) => Kind::Black,
            (false, true) => Kind::White,
            (false, false) => return Err(format!("list '{name}' is neither black nor white: {EXAMPLE}")),
        };
        let file = self.value("file").map(unescaped).filter(|file| !file.is_empty());
        let file = file.ok_or_else(|| format!("list '{name}' has no file: {EXAMPLE}"))?;
        match self.value("method").unwrap_or("file") {
            "file" => Ok((kind, file)),
            "exec" => Err(format!(
                "list '{name}' comes from a program, and none is run from here: write what `{}` prints into a file, and \
                 :method=file:file=/path: here",
                quoted(&file)
            )),
            method => Err(format!(
                "list '{name}' comes by {}, and nothing is fetched from here: fetch {} yourself, and write \
                 :method=file:file=/path: here",
                quoted(method),
                quoted(&file)
            )),
        }
    }
}

/// The records with the lines they begin in: what ends with a backslash goes on.
fn joined(text: &str) -> Vec<(usize, String)> {
    let mut records: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if !goes_on && (line.is_empty() || line.starts_with('#')) {
            continue;
        }
        let part = line.strip_suffix('\\').unwrap_or(line);
        match records.last_mut() {
            Some((_, record)) if goes_on => record.push_str(part),
            _ => records.push((at + 1, part.to_owned())),
        }
        goes_on = line.ends_with('\\');
    }
    records
}

/// The parts between colons; within double quotes a colon is one.
fn fields(record: &str) -> Vec<&str> {
    let (mut within, mut before) = (false, ' ');
    record
        .split(|letter| {
            within ^= letter == '"' && before != '\\';
            before = letter;
            letter == ':' && !within
        })
        .collect()
}

/// `\C` is a colon, and a backslash makes any other character itself.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => plain.extend(letters.next().map(|escaped| if "Cc".contains(escaped) { ':' } else { escaped })),
            _ => plain.push(letter),
        }
    }
    plain
}
