//! What reads postscreen's log: a real fail2ban with its own filter, and the patterns that log parsers look for.
//!
//! The patterns say in our own words what those of whyscream/postfix-grok-patterns take for a line of postscreen's
//! (reference/postscreen.md section 3.2).

use anyhow::{Context as _, Result, ensure};
use regex::Regex;

use crate::host::Host;
use crate::software;

use super::play::text_of;

/// The lines of a log that fail2ban's filter for Postfix takes for offences, in this mode of the filter.
///
/// # Errors
/// When it cannot be run, or says something else than it is known to.
pub fn fail2ban_matches(host: &Host, mode: &str, log: &str) -> Result<Vec<String>> {
    const LOG: &str = "/tmp/fail2ban.log";
    host.write(LOG, log)?;
    let tree = software::tree("fail2ban")?;
    ensure!(tree.is_dir(), "{} is not there: run `cargo xtask setup`, which unpacks it", tree.display());
    let filter = format!("{}[mode={mode}]", tree.join("etc/fail2ban/filter.d/postfix.conf").display());
    let mut command = host.command("python3");
    command
        .arg(tree.join("usr/bin/fail2ban-regex"))
        .arg("-c")
        .arg(tree.join("etc/fail2ban"))
        .args(["--print-all-matched", LOG, &filter])
        .env("LC_ALL", "C.UTF-8")
        .env("PYTHONPATH", tree.join("usr/lib/python3/dist-packages"));
    let output = host.run(&mut command)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let summary = said.lines().find_map(|line| line.strip_prefix("Lines: "));
    let total = summary.and_then(|summary| summary.split(", ").find_map(|part| part.strip_suffix(" matched")));
    let total: usize = total.with_context(|| format!("{said}{errors}"))?.parse()?;
    let shown = said.lines().skip_while(|line| !line.contains("Matched line(s):")).skip(1);
    let lines: Vec<String> = shown.map_while(|line| line.strip_prefix("|  ")).map(str::to_owned).collect();
    ensure!(lines.len() == total, "{total} lines matched, {} are shown:\n{said}{errors}", lines.len());
    Ok(lines)
}

/// The lines of a program in a log without what differs by nature: the time, the process, ports, how long things took, the
/// names of sessions.
#[must_use]
pub fn texts<'a>(log: impl IntoIterator<Item = &'a str>, program: &str) -> Vec<String> {
    let port = Regex::new(r"\]:[0-9]+").expect("a pattern");
    let time = Regex::new(r" after [0-9.]+ from ").expect("a pattern");
    let session = Regex::new(r"; session=[0-9a-f]{12}").expect("a pattern");
    let texts = log.into_iter().filter_map(|line| text_of(line, program));
    let plain = |text: &str| {
        let text = port.replace_all(text, "]");
        let text = time.replace(&text, " after T from ");
        session.replace(&text, "").into_owned()
    };
    texts.map(plain).collect()
}

/// The kinds of lines, and how parsers know them.
#[derive(Debug)]
pub struct Kinds(Vec<(&'static str, Regex)>);

impl Default for Kinds {
    fn default() -> Self {
        let client = r"\[[0-9a-f.:]+\]:[0-9]+";
        let kinds = [
            ("connect", r"CONNECT from CLIENT to \[[0-9a-f.:]+\]:[0-9]+"),
            ("access", r"(?:PASS (?:NEW|OLD)|(?:ALLOW|DENY)LISTED|ALLOWLIST VETO|DISCONNECT) CLIENT"),
            (
                "reject",
                r"NOQUEUE: reject: RCPT from CLIENT: [0-9]{3} [0-9]\.[0-9]+\.[0-9]+ .*; from=<[^;]*>, to=<[^;]*>, proto=E?SMTP, helo=<[^;]*>",
            ),
            ("busy", r"NOQUEUE: reject: CONNECT from CLIENT: [a-z ]+"),
            ("rank", r"DNSBL rank [0-9]+ for CLIENT"),
            ("pregreet", r"PREGREET [0-9]+ after [0-9]+(?:\.[0-9]+)? from CLIENT: .*"),
            ("hangup", r"HANGUP after [0-9]+(?:\.[0-9]+)? from CLIENT in tests (?:before|after) SMTP handshake"),
            ("limit", r"COMMAND (?:TIME|COUNT|LENGTH) LIMIT from CLIENT after [^ ]+"),
            (
                "line",
                r"(?:BARE NEWLINE from CLIENT after|(?:COMMAND PIPELINING|NON-SMTP COMMAND) from CLIENT after [^ ]+:) .*",
            ),
            // No parser asks for it; the form is postscreen's.
            ("data", r"(?:DATA|BDAT) without valid RCPT from CLIENT"),
        ];
        let anchored =
            |pattern: &str| Regex::new(&format!("^{}$", pattern.replace("CLIENT", client))).expect("a pattern");
        Self(kinds.map(|(kind, pattern)| (kind, anchored(pattern))).into())
    }
}

impl Kinds {
    /// Every kind.
    pub fn all(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(kind, _)| *kind)
    }

    /// What kind of line the text of one is.
    #[must_use]
    pub fn of(&self, text: &str) -> Option<&'static str> {
        self.0.iter().find(|(_, pattern)| pattern.is_match(text)).map(|(kind, _)| *kind)
    }

    /// The lines of a program that are about a client, each with its kind.
    pub fn of_log<'a>(&self, log: &'a str, program: &str) -> Vec<(&'a str, Option<&'static str>)> {
        let texts = log.lines().filter_map(|line| text_of(line, program)).filter(|text| text.contains("]:"));
        texts.map(|text| (text, self.of(text))).collect()
    }
}
