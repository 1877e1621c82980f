//! `postscreen_dnsbl_reply_map`: under which name a list is shown whose own name has a secret in it.

use std::path::Path;

use regex::{Regex, RegexBuilder};

use super::super::lines::logical;
use super::super::{Files, table};

/// The rules, in order.
#[derive(Debug, Default)]
pub(super) struct Shown(Vec<Rule>);

#[derive(Debug)]
enum Rule {
    Name(String, String),
    Pattern { pattern: Regex, inverted: bool, says: String },
}

impl Shown {
    /// Adds the rules of a table.
    ///
    /// # Errors
    /// If it is of another type, cannot be read, or is not understood.
    pub(super) fn read(&mut self, word: &str, files: &dyn Files) -> Result<(), String> {
        let (kind, path) = word.split_once(':').unwrap_or_default();
        match kind {
            "texthash" | "hash" | "lmdb" | "btree" | "cdb" | "dbm" => {
                let entries = table::by_key(&files.read(Path::new(path))?, path);
                self.0.extend(entries.into_iter().map(|entry| Rule::Name(entry.key.to_ascii_lowercase(), entry.says)));
            }
            "pcre" | "regexp" => {
                for line in logical(&files.read(Path::new(path))?) {
                    let rule = pattern(line.text.trim()).map_err(|why| format!("{path}:{}: {why}", line.number))?;
                    self.0.push(rule);
                }
            }
            _ => return Err("a table of this type is not read: write a texthash: table".to_owned()),
        }
        Ok(())
    }

    /// What a zone is shown as; `None`: as itself.
    pub(super) fn of(&self, zone: &str) -> Option<String> {
        self.0.iter().find_map(|rule| match rule {
            Rule::Name(name, says) => (name == zone).then(|| says.clone()),
            Rule::Pattern { pattern, inverted: true, says } => (!pattern.is_match(zone)).then(|| says.clone()),
            Rule::Pattern { pattern, says, .. } => pattern.captures(zone).map(|found| {
                let mut shown = String::new();
                found.expand(says, &mut shown);
                shown
            }),
        })
    }
}

/// `/pattern/flags says`, with any delimiter, and `!` before it.
fn pattern(line: &str) -> Result<Rule, String> {
    // Without the line: what it is there for is to hide the name in it.
    let unclear = || "this is no /pattern/ with a name behind it: write a texthash: table".to_owned();
    let rest = line.trim_start_matches('!').trim_start();
    let inverted = line.chars().take_while(|letter| *letter == '!').count() % 2 == 1;
    let delimiter = rest.chars().next().filter(char::is_ascii_punctuation).ok_or_else(unclear)?;
    let mut escaped = false;
    let end = rest[1..].find(|letter| {
        let ends = letter == delimiter && !escaped;
        escaped = letter == '\\' && !escaped;
        ends
    });
    let (text, behind) = rest[1..].split_at(end.ok_or_else(unclear)?);
    let (flags, says) = behind[1..].split_once(char::is_whitespace).ok_or_else(unclear)?;
    // Without a flag case makes no difference; `i` makes it do so.
    let case = !flags.contains('i');
    if !flags.chars().all(|flag| flag == 'i') || says.trim().is_empty() {
        return Err(unclear());
    }
    let pattern = RegexBuilder::new(text).case_insensitive(case).build().map_err(|_| unclear())?;
    // `$1` and what follows are told apart by braces here.
    let says = Regex::new(r"\$(\d)").map_err(|_| unclear())?.replace_all(says.trim(), "$${$1}").into_owned();
    Ok(Rule::Pattern { pattern, inverted, says })
}
