//! Our configuration as it is being written: each setting with the parameter that it came from, and none that
//! `screener check-config` would refuse.

use std::fmt::Write as _;

use crate::config::{Config, ConfigError};
use crate::dnsbl::Dnsbl;

/// A setting: its table, its key, its value as TOML, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    pub(super) value: String,
    pub(super) from: String,
}

impl Setting {
    /// As messages name it.
    pub(super) fn shown(&self) -> String {
        let dot = if self.table.is_empty() { "" } else { "." };
        format!("{}{dot}{} = {}", self.table, self.key, self.value)
    }
}

/// The tables, in the order in which they are written.
const TABLES: [&str; 14] = [
    "",
    "listen",
    "backend",
    "replies",
    "limits",
    "tls",
    "tests.pregreet",
    "tests.dnsbl",
    "tests.pipelining",
    "tests.non_smtp_command",
    "tests.bare_newline",
    "ledger",
    "kernel",
    "observe",
];

/// The configuration.
#[derive(Debug, Default)]
pub(super) struct Draft {
    settings: Vec<Setting>,
    /// `[[…]]` tables, ready to be written.
    blocks: Vec<String>,
}

impl Draft {
    /// Takes settings in that belong together, all of them or none. What is our default anyway is not written.
    ///
    /// # Errors
    /// If they are refused; with what our configuration says of them.
    pub(super) fn set(&mut self, settings: Vec<Setting>) -> Result<(), String> {
        let before = self.settings.len();
        self.settings.extend(settings.into_iter().filter(|setting| !is_default(setting)));
        let checked = check(&self.written());
        if checked.is_err() {
            self.settings.truncate(before);
        }
        checked
    }

    /// Takes a `[[…]]` table in.
    ///
    /// # Errors
    /// If it is refused.
    pub(super) fn block(&mut self, block: String) -> Result<(), String> {
        self.blocks.push(block);
        let checked = check(&self.written());
        if checked.is_err() {
            self.blocks.pop();
        }
        checked
    }

    /// Takes many in, all of them or none.
    ///
    /// # Errors
    /// If one is refused.
    pub(super) fn blocks(&mut self, blocks: &[String]) -> Result<(), String> {
        if blocks.is_empty() { Ok(()) } else { self.block(blocks.join("\n")) }
    }

    /// The text.
    pub(super) fn written(&self) -> String {
        let mut text = String::new();
        for table in &TABLES {
            let mut settings = self.settings.iter().filter(|setting| setting.table == *table).peekable();
            if settings.peek().is_some() && !table.is_empty() {
                let _ = writeln!(text, "\n[{table}]");
            }
            for Setting { key, value, from, .. } in settings {
                let _ = writeln!(text, "{key} = {value}  # {from}");
            }
        }
        for block in &self.blocks {
            let _ = write!(text, "\n{block}");
        }
        text
    }
}

fn is_default(setting: &Setting) -> bool {
    let Setting { table, key, value, .. } = setting;
    let text = if table.is_empty() { format!("{key} = {value}\n") } else { format!("[{table}]\n{key} = {value}\n") };
    // Alone it may be refused although it fits with others; then it is no default.
    Config::parse(&text, "").is_ok_and(|config| config == Config::default())
}

/// What `screener check-config` says of a text.
pub(super) fn check(text: &str) -> Result<(), String> {
    let config = Config::parse(text, "").map_err(|error| match error {
        ConfigError::Invalid(problems) => {
            problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    })?;
    Dnsbl::configured(&config.tests.dnsbl).map(|_| ()).map_err(|error| error.to_string())
}

/// A text as TOML writes it, in one line.
pub(super) fn quoted(text: &str) -> String {
    if !text.contains(['\'', '\n', '\r']) && text.contains(['\\', '"']) && !text.chars().any(char::is_control) {
        return format!("'{text}'");
    }
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(letter));
            }
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// A list of texts.
pub(super) fn list(texts: impl IntoIterator<Item = String>) -> String {
    let texts: Vec<String> = texts.into_iter().map(|text| quoted(&text)).collect();
    format!("[{}]", texts.join(", "))
}
