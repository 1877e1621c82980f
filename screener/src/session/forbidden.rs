//! The words that no mail client begins a command with: `CONNECT GET POST regexp:{{/^[^A-Z]/ Bogus}}`.
//!
//! Holds Postfix's syntax for such a list (`smtpd_forbidden_commands`), as far as it needs no file and no server. Only
//! consulted for commands that SMTP does not know.

use std::str::FromStr;

use regex::bytes::{Regex, RegexBuilder};

/// What a compiled pattern may take.
const LARGEST_PATTERN: usize = 1 << 20;

/// The list, in its order: the first entry that matches decides.
#[derive(Clone, Debug)]
pub struct Forbidden {
    /// As written; two lists that are written alike are alike.
    text: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// `!entry`: a match means that the command is not forbidden.
    allows: bool,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Word(String),
    Table(Vec<Rule>),
}

/// A line of an inline table.
#[derive(Clone, Debug)]
struct Rule {
    pattern: Regex,
    /// `!/pattern/`: the rule holds where the pattern does not match.
    inverted: bool,
    says: String,
}

/// What is wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForbiddenError {
    /// A bracket without its other half.
    #[error("the brackets of {0:?} do not match")]
    Brackets(String),
    /// A table that would have to be read from somewhere.
    #[error(
        "{0:?}: only words, regexp:{{{{/…/ text}}}} and pcre:{{{{/…/ text}}}} can stand here, no other tables and no files"
    )]
    Table(String),
    /// A rule without a pattern and a text.
    #[error("{0:?} is no rule: write it like {{/^pattern/ text}}")]
    Rule(String),
    /// A flag that is not known.
    #[error("flag {flag:?} of {rule:?} is not known: i, m, s and x are")]
    Flag {
        /// The flag.
        flag: char,
        /// Where it stands.
        rule: String,
    },
    /// A pattern that is none.
    #[error("pattern of {rule:?}: {why}")]
    Pattern {
        /// Where it stands.
        rule: String,
        /// The last line of what the `regex` crate says.
        why: String,
    },
}

impl PartialEq for Forbidden {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Forbidden {}

impl Default for Forbidden {
    /// Postfix's own (reference/postscreen.md section 1.4).
    fn default() -> Self {
        Self::DEFAULT.parse().unwrap_or_else(|error| unreachable!("the default is refused: {error}"))
    }
}

impl FromStr for Forbidden {
    type Err = ForbiddenError;

    fn from_str(text: &str) -> Result<Self, ForbiddenError> {
        let entries = tokens(text)?.into_iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), entries })
    }
}

impl Forbidden {
    /// Postfix's default.
    pub const DEFAULT: &str = "CONNECT GET POST regexp:{{/^[^A-Z]/ Bogus}}";

    /// What the list says of the first word of a command; `None`: it is not forbidden.
    pub(super) fn says(&self, word: &[u8]) -> Option<&str> {
        let (entry, says) = self.entries.iter().find_map(|entry| entry.what.says(word).map(|says| (entry, says)))?;
        (!entry.allows).then_some(says)
    }
}

impl What {
    fn says(&self, word: &[u8]) -> Option<&str> {
        match self {
            Self::Word(own) => own.as_bytes().eq_ignore_ascii_case(word).then_some(own),
            Self::Table(rules) => {
                rules.iter().find(|rule| rule.pattern.is_match(word) != rule.inverted).map(|rule| &*rule.says)
            }
        }
    }
}

/// The members of a list, between white space and commas; what stands in brackets stays together.
fn tokens(text: &str) -> Result<Vec<&str>, ForbiddenError> {
    let mut found = Vec::new();
    let (mut start, mut depth) = (None, 0_usize);
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.checked_sub(1).ok_or_else(|| ForbiddenError::Brackets(text.to_owned()))?,
            _ => {}
        }
        let separates = depth == 0 && (c == ',' || c.is_ascii_whitespace());
        match (start, separates) {
            (Some(from), true) => {
                found.push(&text[from..at]);
                start = None;
            }
            (None, false) => start = Some(at),
            _ => {}
        }
    }
    if depth != 0 {
        return Err(ForbiddenError::Brackets(text.to_owned()));
    }
    found.extend(start.map(|from| &text[from..]));
    Ok(found)
}

fn entry(token: &str) -> Result<Entry, ForbiddenError> {
    let bare = token.trim_start_matches('!');
    let allows = (token.len() - bare.len()) % 2 == 1;
    let what = match bare.split_once(':') {
        None if bare.is_empty() || bare.starts_with('/') || bare.starts_with('{') => {
            return Err(ForbiddenError::Table(token.to_owned()));
        }
        None => What::Word(bare.to_owned()),
        Some(("regexp" | "pcre", table)) => {
            let inner = bracketed(table).ok_or_else(|| ForbiddenError::Table(token.to_owned()))?;
            What::Table(tokens(inner)?.into_iter().map(rule).collect::<Result<_, _>>()?)
        }
        Some(_) => return Err(ForbiddenError::Table(token.to_owned())),
    };
    Ok(Entry { allows, what })
}

fn bracketed(text: &str) -> Option<&str> {
    text.strip_prefix('{')?.strip_suffix('}')
}

/// `{/pattern/flags text}`, any character but letters, digits and white space in the place of `/`.
fn rule(token: &str) -> Result<Rule, ForbiddenError> {
    let wrong = || ForbiddenError::Rule(token.to_owned());
    let line = bracketed(token).ok_or_else(wrong)?.trim();
    let bare = line.trim_start_matches('!');
    let inverted = (line.len() - bare.len()) % 2 == 1;
    let mark = bare.chars().next().filter(char::is_ascii_punctuation).ok_or_else(wrong)?;
    let mut escaped = false;
    let end = bare[1..].find(|c| {
        let ends = c == mark && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    let end = 1 + end.ok_or_else(wrong)?;
    let (flags, says) = bare[end + 1..].split_once(|c: char| c.is_ascii_whitespace()).ok_or_else(wrong)?;
    let (mut blind, mut multi_line, mut dot_all, mut spaced) = (true, false, false, false);
    for flag in flags.chars() {
        match flag {
            // Each turns the default round, as in Postfix's tables.
            'i' => blind = !blind,
            'm' => multi_line = !multi_line,
            's' => dot_all = !dot_all,
            'x' => spaced = !spaced,
            _ => return Err(ForbiddenError::Flag { flag, rule: token.to_owned() }),
        }
    }
    let pattern = RegexBuilder::new(&bare[1..end])
        .unicode(false)
        .case_insensitive(blind)
        .multi_line(multi_line)
        .dot_matches_new_line(dot_all)
        .ignore_whitespace(spaced)
        .size_limit(LARGEST_PATTERN)
        .build()
        .map_err(|error| ForbiddenError::Pattern {
            rule: token.to_owned(),
            why: error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        })?;
    Ok(Rule { pattern, inverted, says: says.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(list: &str, word: &str) -> Option<String> {
        list.parse::<Forbidden>().unwrap().says(word.as_bytes()).map(str::to_owned)
    }

    #[test]
    fn the_default_knows_http_and_whatever_begins_with_no_letter() {
        let list = Forbidden::default();
        for word in ["GET", "post", "Connect", "\u{16}\u{3}", "{", "1"] {
            assert!(list.says(word.as_bytes()).is_some(), "{word}");
        }
        for word in ["", "XYZZY", "ehlo", "GETS"] {
            assert_eq!(list.says(word.as_bytes()), None, "{word}");
        }
        assert_eq!(list.says(b"\xff"), Some("Bogus"));
    }

    #[test]
    fn the_first_entry_that_matches_decides() {
        assert_eq!(says("!GETX, regexp:{{/^get/ like HTTP}, {!/^[a-z]+$/ odd}}", "getx"), None);
        assert_eq!(says("!GETX, regexp:{{/^get/ like HTTP}, {!/^[a-z]+$/ odd}}", "GETY").as_deref(), Some("like HTTP"));
        assert_eq!(says("!GETX, regexp:{{/^get/ like HTTP}, {!/^[a-z]+$/ odd}}", "a1").as_deref(), Some("odd"));
        assert_eq!(says("pcre:{{/^get/i lower}}", "GET"), None);
        assert_eq!(says("pcre:{{|^a\\|b| bar}}", "a|b").as_deref(), Some("bar"));
        assert_eq!(says("regexp:{{/^[[:space:]x]{1,2}$/ counted}}", "xx").as_deref(), Some("counted"));
        assert_eq!(says("", "GET"), None, "an empty list forbids nothing");
    }

    #[test]
    fn a_list_that_cannot_be_read_says_what_to_write() {
        let error = |list: &str| list.parse::<Forbidden>().unwrap_err().to_string();
        assert_eq!(error("regexp:{{/x/ y}"), "the brackets of \"regexp:{{/x/ y}\" do not match");
        assert!(error("hash:/etc/x").starts_with("\"hash:/etc/x\": only words, regexp:{{/…/ text}}"));
        assert!(error("/etc/list").contains("no other tables and no files"));
        assert_eq!(error("regexp:{{/x/}}"), "\"{/x/}\" is no rule: write it like {/^pattern/ text}");
        assert_eq!(error("regexp:{{/x/q y}}"), "flag 'q' of \"{/x/q y}\" is not known: i, m, s and x are");
        assert!(error("regexp:{{/(x/ y}}").starts_with("pattern of \"{/(x/ y}\": unclosed group"));
    }
}
