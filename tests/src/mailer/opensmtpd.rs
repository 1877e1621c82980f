//! OpenSMTPD as a sender of letters.
//!
//! The daemon runs, and holds what it is given until all letters are there, so that those for one host share a
//! connection.

use std::fs::File;

use anyhow::{Context as _, Result, ensure};

use super::{Mailer, PATIENCE, Way, lay_down, way_of};
use crate::host::Host;
use crate::letter::{Fate, Letter};
use crate::net::Family;
use crate::opensmtpd::{OpenSmtpd, command};
use crate::wait::until_or_show;

struct Sender {
    daemon: OpenSmtpd,
    ways: Vec<Way>,
}

pub(super) fn start(host: &Host, ways: &[Way]) -> Result<Box<dyn Mailer>> {
    let daemon = OpenSmtpd::start_with(host, &configuration(host.name(), ways))?;
    Ok(Box::new(Sender { daemon, ways: ways.to_vec() }))
}

fn configuration(name: &str, ways: &[Way]) -> String {
    let mut actions = String::new();
    let mut matches = String::new();
    for (number, Way { route, tls }) in ways.iter().enumerate() {
        let server = match Family::of(route.server) {
            Family::V4 => route.server.to_string(),
            Family::V6 => format!("[{}]", route.server),
        };
        let (protocol, security) = if *tls { ("smtp+tls", " tls no-verify") } else { ("smtp+notls", "") };
        actions += &format!(
            "action \"out{number}\" relay host \"{protocol}://{server}:25\"{security} src {source} helo {name}.example.net\n",
            source = route.source,
        );
        matches +=
            &format!("match from local mail-from \"{from}\" for any action \"out{number}\"\n", from = route.from);
    }
    format!("smtp max-message-size 100M\nlisten on socket\n{actions}{matches}")
}

impl Mailer for Sender {
    fn send(&mut self, letters: &[Letter]) -> Result<Vec<Vec<Fate>>> {
        way_of(&self.ways, letters)?;
        let host = self.daemon.host().clone();
        self.control("pause")?;
        let mut numbers = Vec::new();
        for letter in letters {
            let before = accepted(&self.daemon.log()).len();
            let text = File::open(lay_down(&host, letter)?).context("opening a letter")?;
            let mut sendmail = command(&host, "/usr/sbin/sendmail");
            let output = host.run(sendmail.args(["-i", "-f", &letter.from, "--"]).args(&letter.to).stdin(text))?;
            ensure!(output.status.success(), "sendmail: {}", String::from_utf8_lossy(&output.stderr));
            let log = || self.daemon.log();
            let number = until_or_show("OpenSMTPD to log a letter", PATIENCE, log, || {
                Ok(accepted(&self.daemon.log()).into_iter().nth(before))
            })?;
            numbers.push(number);
        }
        self.control("resume")?;
        let fates = |(letter, number): (&Letter, &String)| {
            let what = format!("OpenSMTPD to be done with {}", letter.id);
            let log = || self.daemon.log();
            until_or_show(&what, PATIENCE, log, || Ok(fates(&self.daemon.log(), number, letter)))
        };
        letters.iter().zip(&numbers).map(fates).collect()
    }

    fn log(&self) -> String {
        self.daemon.log()
    }
}

impl Sender {
    /// Holds or releases what is in the queue.
    fn control(&self, verb: &str) -> Result<()> {
        let host = self.daemon.host();
        let output = host.run(command(host, "smtpctl").args([verb, "mta"]))?;
        ensure!(output.status.success(), "smtpctl {verb} mta: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// The numbers of the letters that were given to it, in their order.
fn accepted(log: &str) -> Vec<String> {
    let number = |line: &str| {
        let (_, rest) = line.split_once(" smtp message msgid=")?;
        Some(rest.split(' ').next()?.to_owned())
    };
    log.lines().filter_map(number).collect()
}

/// What the log says of each recipient, or nothing while one is missing.
fn fates(log: &str, number: &str, letter: &Letter) -> Option<Vec<Fate>> {
    let about = |line: &&str| line.contains(" mta delivery ") && line.contains(&format!("evpid={number}"));
    let fate = |to: &String| {
        let line = log.lines().filter(about).find(|line| line.contains(&format!(" to=<{to}>")))?;
        let (_, said) = line.split_once(" result=")?;
        Some(Fate { to: to.clone(), accepted: said.starts_with("\"Ok\""), said: said.to_owned() })
    };
    letter.to.iter().map(fate).collect()
}
