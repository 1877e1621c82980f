//! Sendmail 8 as a sender of letters.
//!
//! No daemon runs: letters are put into the queue, and one run of the queue delivers them. Each way out has a
//! configuration of its own, made by the m4 macros that the package has.

use std::fs::{self, File};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Mailer, PATIENCE, Way, lay_down, way_of};
use crate::host::{Host, ROOT, User};
use crate::letter::{Fate, Letter};
use crate::net::Family;
use crate::{proc, software};

const USERS: [User; 2] = [
    User { name: "smmta", id: 5102, home: "/var/lib/sendmail" },
    User { name: "smmsp", id: 5103, home: "/var/lib/sendmail" },
];
const SPOOL: &str = "/var/spool/mqueue";
const PROGRAM: &str = "/usr/libexec/sendmail/sendmail";

struct Sendmail {
    host: Host,
    ways: Vec<Way>,
}

pub(super) fn start(host: &Host, ways: &[Way]) -> Result<Box<dyn Mailer>> {
    software::lay(host, "sendmail")?;
    for user in &USERS {
        host.add_user(user)?;
    }
    host.directory(SPOOL, &ROOT, 0o700)?;
    host.directory("/var/lib/sendmail", &ROOT, 0o755)?;
    host.write("/etc/mail/aliases", "")?;
    // It asks for names only there, and wants a full one for its host, or it waits for a minute.
    host.write("/etc/mail/service.switch", "hosts files\naliases files\n")?;
    let name = host.name();
    host.write("/etc/hosts", &format!("127.0.0.1 localhost\n127.0.1.1 {name}.example.net {name}\n"))?;
    for way in ways {
        let name = way.route.from.as_str();
        host.write(&format!("/etc/mail/{name}.mc"), &macros(host.name(), way))?;
        let source = format!("/etc/mail/{name}.mc");
        let text = host.ask("m4", &["-I/usr/share/sendmail/cf", &source])?;
        host.write(&file(way), &text)?;
    }
    Ok(Box::new(Sendmail { host: host.clone(), ways: ways.to_vec() }))
}

fn file(way: &Way) -> String {
    format!("/etc/mail/{}.cf", way.route.from)
}

fn macros(name: &str, way: &Way) -> String {
    let (family, server) = match Family::of(way.route.server) {
        Family::V4 => ("inet", format!("[{}]", way.route.server)),
        Family::V6 => ("inet6", format!("[IPv6:{}]", way.route.server)),
    };
    // S: no STARTTLS, even if it is offered. QUEUE_LA: the queue is run however busy the machine is.
    let modifier = if way.tls { "" } else { ", Modifier=S" };
    format!(
        "include(`/usr/share/sendmail/cf/m4/cf.m4')dnl\n\
         OSTYPE(`linux')dnl\n\
         define(`confDOMAIN_NAME', `{name}.example.net')dnl\n\
         define(`confDONT_PROBE_INTERFACES', `True')dnl\n\
         define(`confDONT_BLAME_SENDMAIL', `TrustStickyBit')dnl\n\
         define(`confTO_IDENT', `0')dnl\n\
         define(`confQUEUE_LA', `10000')dnl\n\
         define(`confTRY_NULL_MX_LIST', `True')dnl\n\
         define(`confSEPARATE_PROC', `False')dnl\n\
         define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch')dnl\n\
         define(`SMART_HOST', `esmtp:{server}')dnl\n\
         FEATURE(`nocanonify')dnl\n\
         FEATURE(`accept_unresolvable_domains')dnl\n\
         CLIENT_OPTIONS(`Family={family}, Address={source}{modifier}')dnl\n\
         MAILER(`smtp')dnl\n",
        source = way.route.source,
    )
}

impl Mailer for Sendmail {
    fn send(&mut self, letters: &[Letter]) -> Result<Vec<Vec<Fate>>> {
        let config = format!("-C{}", file(way_of(&self.ways, letters)?));
        let mut numbers = Vec::new();
        for letter in letters {
            let text = File::open(lay_down(&self.host, letter)?).context("opening a letter")?;
            let mut sendmail = self.host.command(PROGRAM);
            sendmail.args(["-bm", "-odq", "-oi", &config, "-f", &letter.from]);
            if letter.notify {
                sendmail.args(["-N", "success"]);
            }
            let output = self.host.run(sendmail.arg("--").args(&letter.to).stdin(text))?;
            ensure!(output.status.success(), "sendmail: {}", String::from_utf8_lossy(&output.stderr));
            numbers.push(self.number(letter)?);
        }
        let mut run = self.host.command(PROGRAM);
        let output = proc::run(run.args([config.as_str(), "-v", "-qf"]), PATIENCE)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        letters.iter().zip(&numbers).map(|(letter, number)| fates(&said, number, letter)).collect()
    }
}

impl Sendmail {
    /// The number of a letter in the queue.
    fn number(&self, letter: &Letter) -> Result<String> {
        let mark = format!("<{}>", letter.id);
        for entry in fs::read_dir(self.host.path(SPOOL)).context("reading the queue")? {
            let name = entry.context("reading the queue")?.file_name().to_string_lossy().into_owned();
            let Some(number) = name.strip_prefix("qf") else { continue };
            if self.host.read(&format!("{SPOOL}/{name}"))?.contains(&mark) {
                return Ok(number.to_owned());
            }
        }
        bail!("{} is not in the queue", letter.id)
    }
}

/// What the transcript of a run of the queue says of each recipient of a letter.
fn fates(said: &str, number: &str, letter: &Letter) -> Result<Vec<Fate>> {
    let mut parts = said.split("Running ");
    let part = parts.find(|part| part.split(' ').next().is_some_and(|file| file.ends_with(number)));
    let part = part.with_context(|| format!("the queue was run without {}: {said}", letter.id))?;
    let sent = part.lines().filter_map(|line| line.split_once("... Sent (")).flat_map(|(to, _)| to.split(','));
    let sent: Vec<&str> = sent.collect();
    let fate = |to: &String| Fate { to: to.clone(), accepted: sent.contains(&to.as_str()), said: part.to_owned() };
    Ok(letter.to.iter().map(fate).collect())
}
