//! Exim as a sender of letters.
//!
//! No daemon runs: letters are put into the queue, and a run of the queue in two steps delivers them, so that those for
//! one host share a connection.

use std::fs::File;

use anyhow::{Context as _, Result, ensure};

use super::{Mailer, PATIENCE, Way, lay_down, way_of};
use crate::exim;
use crate::host::Host;
use crate::letter::{Fate, Letter};
use crate::proc;
use crate::wait::until_or_show;

struct Exim {
    host: Host,
    ways: Vec<Way>,
}

pub(super) fn start(host: &Host, ways: &[Way]) -> Result<Box<dyn Mailer>> {
    exim::prepare(host)?;
    host.write(exim::CONFIG, &configuration(host.name(), ways))?;
    Ok(Box::new(Exim { host: host.clone(), ways: ways.to_vec() }))
}

fn configuration(name: &str, ways: &[Way]) -> String {
    let mut routers = String::new();
    let mut transports = String::new();
    for (number, way) in ways.iter().enumerate() {
        let Way { route, tls } = way;
        routers += &format!(
            "out{number}:\n  driver = manualroute\n  senders = {from}\n  route_data = <+{server}\n  transport = out{number}\n",
            from = route.from,
            server = route.server,
        );
        // Under TLS one process holds the connection for those of the other letters. Exim 4.96 then sends QUIT with the end of the
        // last letter, and sometimes closes before it has read the reply, also when it speaks to an MTA itself.
        let security = if *tls {
            "hosts_require_tls = *\n  tls_verify_hosts =\n  hosts_avoid_pipelining = *"
        } else {
            "hosts_avoid_tls = *"
        };
        transports += &format!(
            "out{number}:\n  driver = smtp\n  interface = <; {source}\n  {security}\n  tls_try_verify_hosts =\n",
            source = route.source
        );
    }
    format!(
        "{common}primary_hostname = {name}.example.net\n\
         begin routers\n{routers}\
         begin transports\n{transports}\
         begin retry\n* * F,2h,1m\n",
        common = exim::COMMON
    )
}

impl Mailer for Exim {
    fn send(&mut self, letters: &[Letter]) -> Result<Vec<Vec<Fate>>> {
        way_of(&self.ways, letters)?;
        for letter in letters {
            let text = File::open(lay_down(&self.host, letter)?).context("opening a letter")?;
            let mut exim = self.host.command("exim4");
            exim.args(["-odq", "-oi", "-f", &letter.from, "--"]).args(&letter.to).stdin(text);
            let output = self.host.run(&mut exim)?;
            ensure!(output.status.success(), "exim4: {}", String::from_utf8_lossy(&output.stderr));
        }
        let output = proc::run(self.host.command("exim4").arg("-qq"), PATIENCE)?;
        ensure!(output.status.success(), "exim4 -qq: {}", String::from_utf8_lossy(&output.stderr));
        letters.iter().map(|letter| self.fates(letter)).collect()
    }

    fn log(&self) -> String {
        exim::log(&self.host)
    }
}

impl Exim {
    fn fates(&self, letter: &Letter) -> Result<Vec<Fate>> {
        let what = format!("Exim to be done with {}", letter.id);
        until_or_show(&what, PATIENCE, || exim::log(&self.host), || Ok(fates(&exim::log(&self.host), letter)))
    }
}

/// What the log says of each recipient, or nothing while one is missing.
fn fates(log: &str, letter: &Letter) -> Option<Vec<Fate>> {
    let arrival = log.lines().find(|line| line.contains(" <= ") && line.ends_with(&format!("id={}", letter.id)))?;
    let number = arrival.split(' ').nth(2)?;
    let fate = |to: &String| {
        let mut outcomes = log.lines().filter_map(|line| {
            let (_, rest) = line.split_once(&format!(" {number} "))?;
            let (sign, rest) = rest.split_once(' ')?;
            let about = rest.starts_with(&format!("{to} ")) || rest.starts_with(&format!("{to}:"));
            let accepted = matches!(sign, "=>" | "->");
            let known = accepted || matches!(sign, "**" | "==");
            (known && about).then(|| Fate { to: to.clone(), accepted, said: format!("{sign} {rest}") })
        });
        outcomes.next()
    };
    letter.to.iter().map(fate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_recipient_has_its_line() {
        let mut letter = Letter::new("a@x", &["bob@y", "carol@y", "no@y"]);
        letter.id = "7@x".to_owned();
        let log = "\
2026-11-26 00:00:00 1abc-0 <= a@x U=root P=local S=9 id=7@x
2026-11-26 00:00:01 1abc-0 => bob@y R=out0 T=out0 H=1 C=\"250 ok\"
2026-11-26 00:00:01 1abc-0 -> carol@y R=out0 T=out0
";
        assert_eq!(fates(log, &letter), None);
        let log = format!("{log}2026-11-26 00:00:01 1abc-0 ** no@y R=out0: after RCPT: 550 5.1.1 who?\n");
        let fates = fates(&log, &letter).unwrap();
        assert_eq!(fates.iter().map(|fate| fate.accepted).collect::<Vec<_>>(), [true, true, false]);
        assert!(fates[2].said.ends_with("550 5.1.1 who?"));
    }
}
