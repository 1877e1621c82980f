//! Senders without a queue: msmtp, swaks and Python's smtplib. Each speaks to the MTA while it runs, and says how it went.

use std::fs::File;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Kind, Mailer, PATIENCE, Way, lay_down, way_of};
use crate::host::Host;
use crate::letter::{Fate, Letter};
use crate::proc;

/// What smtplib is told to do; it gets the letters as JSON.
const SMTPLIB: &str = include_str!("smtplib.py");

struct Tool {
    kind: Kind,
    host: Host,
    ways: Vec<Way>,
}

pub(super) fn new(kind: Kind, host: &Host, ways: &[Way]) -> Box<dyn Mailer> {
    Box::new(Tool { kind, host: host.clone(), ways: ways.to_vec() })
}

impl Mailer for Tool {
    fn send(&mut self, letters: &[Letter]) -> Result<Vec<Vec<Fate>>> {
        let way = way_of(&self.ways, letters)?;
        if self.kind == Kind::Smtplib {
            return self.smtplib(way, letters);
        }
        letters.iter().map(|letter| self.single(way, letter)).collect()
    }
}

impl Tool {
    /// One run for one letter.
    fn single(&self, way: &Way, letter: &Letter) -> Result<Vec<Fate>> {
        let mut letter = letter.clone();
        if self.kind == Kind::Swaks {
            // It ends the last line itself.
            ensure!(letter.body.pop() == Some(b'\n'), "a letter that does not end in a newline");
        }
        let letter = &letter;
        let place = lay_down(&self.host, letter)?;
        let mut command = match self.kind {
            Kind::Msmtp => self.msmtp(way, letter),
            _ => self.swaks(way, letter),
        };
        let output = proc::run(command.stdin(File::open(place).context("opening a letter")?), PATIENCE)?;
        let said = printed(&output);
        let fate = |to: &String| Fate {
            to: to.clone(),
            accepted: output.status.success() && !is_refused(&said, to),
            said: said.clone(),
        };
        Ok(letter.to.iter().map(fate).collect())
    }

    fn msmtp(&self, way: &Way, letter: &Letter) -> Command {
        let switch = if way.tls { "on" } else { "off" };
        let mut command = self.host.command("msmtp");
        command.args(["--file=/dev/null", "--port=25", "--tls-certcheck=off", "--auth=off", "--debug"]).args([
            format!("--host={}", way.route.server),
            format!("--source-ip={}", way.route.source),
            format!("--domain={}.example.net", self.host.name()),
            format!("--tls={switch}"),
            format!("--tls-starttls={switch}"),
            format!("--from={}", letter.from),
        ]);
        if letter.notify {
            command.args(["--dsn-notify=success", "--dsn-return=headers"]);
        }
        command.arg("--").args(&letter.to);
        command
    }

    fn swaks(&self, way: &Way, letter: &Letter) -> Command {
        let mut command = self.host.command("swaks");
        command.args(["--suppress-data", "--data", "-", "--port", "25", "--timeout", "60"]).args([
            "--server".to_owned(),
            way.route.server.to_string(),
            "--local-interface".to_owned(),
            way.route.source.to_string(),
            "--helo".to_owned(),
            format!("{}.example.net", self.host.name()),
            "--from".to_owned(),
            letter.from.clone(),
            "--to".to_owned(),
            letter.to.join(","),
        ]);
        if way.tls {
            command.arg("--tls");
        }
        command
    }

    /// One run, and one connection, for all letters.
    fn smtplib(&self, way: &Way, letters: &[Letter]) -> Result<Vec<Vec<Fate>>> {
        let mut told = Vec::new();
        for letter in letters {
            lay_down(&self.host, letter)?;
            told.push(json!({
                "file": format!("/tmp/{}", letter.id), "from": letter.from, "to": letter.to, "notify": letter.notify,
            }));
        }
        let task = json!({
            "server": way.route.server.to_string(), "source": way.route.source.to_string(), "tls": way.tls,
            "helo": format!("{}.example.net", self.host.name()), "letters": told,
        });
        let mut python = self.host.command("/usr/bin/python3");
        let output = proc::run(python.args(["-c", SMTPLIB, &task.to_string()]), PATIENCE)?;
        let said = printed(&output);
        ensure!(output.status.success(), "smtplib: {said}");
        let fates: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("smtplib said {said}"))?;
        let fate = |letter: usize, to: &String| {
            let said = fates[letter][to].as_str().unwrap_or("nothing").to_owned();
            Fate { to: to.clone(), accepted: said == "accepted", said }
        };
        let all = letters.iter().enumerate();
        Ok(all.map(|(number, letter)| letter.to.iter().map(|to| fate(number, to)).collect()).collect())
    }
}

/// Whether a transcript has a refusal of a recipient: its `RCPT`, and the reply after it.
fn is_refused(said: &str, to: &str) -> bool {
    let rcpt = format!("RCPT TO:<{to}>");
    let after = said.lines().skip_while(|line| !line.contains(&rcpt)).nth(1);
    after.is_some_and(|reply| reply.contains(" 5") || reply.contains(" 4"))
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
