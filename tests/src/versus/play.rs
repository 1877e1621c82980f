//! Playing a script to one server: what the client heard, step by step, and what the server logged about it.
//!
//! Names that differ by nature (ports, times, process numbers, session names, the servers' addresses) are replaced here by
//! words, so that what is left differs only where the servers do.

use std::iter::Peekable;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::client::{Client, Trouble};
use crate::host::Host;
use crate::wait::until_or_show;

use super::script::{Door, Script, Step};

/// How long a reply, or a line of a log, is waited for. Only a server that hangs makes anyone wait for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// One of the two servers.
pub(super) struct Side<'a> {
    /// Its address behind a door, in the family of the script.
    pub server: &'a (dyn Fn(Door, IpAddr) -> SocketAddr + Sync),
    /// What it has logged until now.
    pub log: &'a (dyn Fn() -> String + Sync),
    /// What stands in its log before the text of a line: the program, without the process number.
    pub program: &'a str,
}

/// What came of a script on one side.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What the client did and heard, in order, then what is in the log.
    pub lines: Vec<String>,
    /// The ends of its connections, as logs name them.
    pub ends: Vec<SocketAddr>,
}

/// A script that is being played.
struct Player<'a> {
    internet: &'a Host,
    sources: &'a [IpAddr],
    server: SocketAddr,
    side: &'a Side<'a>,
    open: Vec<Client>,
    /// How many addresses are in use.
    used: usize,
    outcome: Outcome,
}

/// Plays a script from these addresses.
///
/// # Errors
/// When a connection does not come about, or a log line that the script waits for does not come. What the server says or
/// does not say is no error.
pub(super) fn play(internet: &Host, sources: &[IpAddr], side: &Side<'_>, script: &Script) -> Result<Outcome> {
    let first = *sources.first().context("a script has an address")?;
    let server = (side.server)(script.door, first);
    let mut player = Player { internet, sources, server, side, open: Vec::new(), used: 1, outcome: Outcome::default() };
    let mut steps = script.steps().peekable();
    player.connect(first, at_once(&mut steps))?;
    while let Some(step) = steps.next() {
        let words = matches!(step, Step::Connect | Step::ConnectAsNext).then(|| at_once(&mut steps)).flatten();
        player
            .step(step, words)
            .with_context(|| format!("at {step:?}, after:\n{}", player.outcome.lines.join("\n")))?;
    }
    Ok(player.outcome)
}

/// What a client says as soon as it has connected. It goes with the connection: were it a step of its own, a DNS list might
/// answer before it, on one side and not on the other.
fn at_once(steps: &mut Peekable<impl Iterator<Item = Step>>) -> Option<&'static [u8]> {
    match steps.next_if(|step| matches!(step, Step::Send(_)))? {
        Step::Send(words) => Some(words),
        _ => None,
    }
}

impl Player<'_> {
    fn connect(&mut self, source: IpAddr, words: Option<&[u8]>) -> Result<()> {
        let connected = match words {
            None => Client::connect(self.internet, source, self.server),
            Some(words) => Client::connect_saying(self.internet, source, self.server, words),
        };
        let mut client = connected.context("connecting")?;
        client.set_patience(PATIENCE);
        self.outcome.ends.push(client.local());
        self.open.push(client);
        self.outcome.lines.push(format!("C: (connects, {})", self.outcome.ends.len()));
        if let Some(words) = words {
            self.said(words);
        }
        Ok(())
    }

    /// `words`: what is said at once, if the step is to connect.
    fn step(&mut self, step: Step, words: Option<&[u8]>) -> Result<()> {
        match step {
            Step::Connect => return self.connect(self.sources[self.used - 1], words),
            Step::ConnectAsNext => {
                self.used += 1;
                return self.connect(self.sources[self.used - 1], words);
            }
            Step::AskTimes(times, line) => {
                return (0..times).try_for_each(|_| self.step(Step::Ask(line), None));
            }
            // A client cannot do anything on a connection that the server has closed.
            _ if self.open.is_empty() => return Ok(()),
            Step::Greeting => self.read(true),
            Step::Reply => self.read(false),
            Step::Line => {
                if let Some(line) = self.read_line() {
                    self.heard(&line);
                }
            }
            Step::Ask(line) => {
                self.send(format!("{line}\r\n").as_bytes());
                self.read(false);
            }
            Step::AskRaw(bytes) => {
                self.send(bytes);
                self.read(false);
            }
            Step::Send(bytes) => self.send(bytes),
            Step::SendTimes(times, byte) => self.send(&vec![byte; times]),
            Step::End => {
                while let Some(line) = self.read_line() {
                    self.heard(&line);
                }
            }
            Step::Logged(text) => self.wait_for_log(text)?,
            Step::HalfClose => {
                self.outcome.lines.push("C: (will not send any more)".to_owned());
                if let Some(client) = self.open.last_mut() {
                    // A connection that is gone shows at the next reading.
                    let _ = client.half_close();
                }
            }
            Step::Close => {
                self.open.pop();
                self.outcome.lines.push("C: (closes)".to_owned());
            }
            Step::Reset => {
                self.open.pop().map(Client::reset).transpose()?;
                self.outcome.lines.push("C: (resets)".to_owned());
            }
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) {
        self.said(bytes);
        if let Some(client) = self.open.last_mut() {
            // A server may close before it has read everything: that shows at the next reading.
            let _ = client.send_raw(bytes);
        }
    }

    fn said(&mut self, bytes: &[u8]) {
        let shown = bytes.escape_ascii().to_string();
        let shown = if shown.len() > 200 { format!("({} bytes)", bytes.len()) } else { shown };
        self.outcome.lines.push(format!("C: {}", shown.strip_suffix("\\r\\n").unwrap_or(&shown)));
    }

    /// Reads a reply. The last line of a greeting ends one only where a greeting is expected: a client that spoke early has
    /// its first reply behind it.
    fn read(&mut self, greeting: bool) {
        let banner = format!("220 {} ", super::setting::HOSTNAME);
        while let Some(line) = self.read_line() {
            let last = line.as_bytes().get(3) != Some(&b'-') && (greeting || !line.starts_with(&banner));
            self.heard(&line);
            if last {
                break;
            }
        }
    }

    /// One line, or nothing when the connection has ended, or when nothing comes.
    fn read_line(&mut self) -> Option<String> {
        let end = match self.open.last_mut()?.read_line() {
            Ok(line) => return Some(line),
            // Which of the two a client sees depends on what it sent last, and when.
            Err(Trouble::Closed | Trouble::Reset) => "(closed)".to_owned(),
            Err(trouble) => format!("({trouble})"),
        };
        self.outcome.lines.push(format!("S: {end}"));
        self.open.pop();
        None
    }

    fn heard(&mut self, line: &str) {
        let line = without_session(line);
        // Which line of a list of features is the last says nothing.
        let line = line
            .strip_prefix("250 ")
            .filter(|rest| !rest.starts_with("2."))
            .map_or_else(|| line.clone(), |rest| format!("250-{rest}"));
        self.outcome.lines.push(format!("S: {line}"));
    }

    fn wait_for_log(&self, text: &str) -> Result<()> {
        wait_for_log(self.side, self.outcome.ends.last(), &[text])
    }
}

/// Waits until a side has logged one of these texts about a connection.
///
/// # Errors
/// When it has not in time.
pub(super) fn wait_for_log(side: &Side<'_>, end: Option<&SocketAddr>, texts: &[&str]) -> Result<()> {
    let end = end.context("a connection")?;
    let name = format!("[{}]:{}", end.ip(), end.port());
    let fits = |line: &str| line.contains(&name) && texts.iter().any(|text| line.contains(text));
    let look = || Ok((side.log)().lines().any(fits).then_some(()));
    until_or_show(&format!("{texts:?} about {name}"), PATIENCE, side.log, look)
}

/// The lines of a log that are about these connections, with words for what differs by nature.
#[must_use]
pub(super) fn logged(log: &str, side: &Side<'_>, ends: &[SocketAddr]) -> Vec<String> {
    let mut lines = Vec::new();
    for (_, text) in lines_about(log, side, ends) {
        let mut text = text.to_owned();
        for (number, end) in ends.iter().enumerate() {
            text = text.replace(&format!("[{}]:{}", end.ip(), end.port()), &format!("CLIENT#{}", number + 1));
        }
        for (door, word) in [(Door::Primary, "SERVER"), (Door::Backup, "BACKUP")] {
            if let Some(end) = ends.first() {
                let server = (side.server)(door, end.ip());
                text = text.replace(&format!("[{}]:{}", server.ip(), server.port()), word);
            }
        }
        lines.push(format!("log: {}", without_time(&without_session(&text))));
    }
    lines
}

/// The same lines as they are, for whoever wants to know when it was.
#[must_use]
pub(super) fn about(log: &str, side: &Side<'_>, ends: &[SocketAddr]) -> String {
    lines_about(log, side, ends).map(|(line, _)| format!("{line}\n")).collect()
}

/// The lines about these connections, and the text of each.
fn lines_about<'a>(log: &'a str, side: &'a Side<'_>, ends: &[SocketAddr]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let clients: Vec<String> = ends.iter().map(|end| format!("[{}]", end.ip())).collect();
    let texts = log.lines().filter_map(|line| Some((line, text_of(line, side.program)?)));
    texts.filter(move |(_, text)| clients.iter().any(|client| text.contains(client.as_str())))
}

/// The text behind `PROGRAM[123]: `.
pub(super) fn text_of<'a>(line: &'a str, program: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!(" {program}["))?;
    let (number, text) = rest.split_once("]: ")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(text)
}

/// `session=` and twelve digits become `session=ID`.
fn without_session(text: &str) -> String {
    const MARK: &str = "session=";
    match text.split_once(MARK) {
        Some((before, rest)) if rest.len() >= 12 && rest.as_bytes()[..12].iter().all(u8::is_ascii_hexdigit) => {
            format!("{before}{MARK}ID{}", &rest[12..])
        }
        _ => text.to_owned(),
    }
}

/// `after 1.2 from` becomes `after T from`: how long clients took is theirs.
fn without_time(text: &str) -> String {
    let Some((before, rest)) = text.split_once(" after ") else { return text.to_owned() };
    match rest.split_once(" from ") {
        Some((time, rest)) if time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            format!("{before} after T from {rest}")
        }
        _ => text.to_owned(),
    }
}
