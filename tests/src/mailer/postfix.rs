//! Postfix as a sender of letters.

use std::fs::File;

use anyhow::{Context as _, Result, ensure};

use super::{Mailer, PATIENCE, Way, lay_down};
use crate::host::Host;
use crate::letter::{Fate, Letter};
use crate::sender::{DeliveryLine, Sender};
use crate::wait::until_or_show;

/// One delivery at a time to a destination, and the connection kept for the next letter: without TLS, for with it that is
/// the work of a tlsproxy that crashes in Debian 12 (3.7.11).
const SETTINGS: &str = "\
default_destination_concurrency_limit = 1
smtp_connection_cache_destinations = static:all
smtp_connection_cache_time_limit = 5s
smtputf8_autodetect_classes = all
message_size_limit = 0
virtual_mailbox_limit = 0
";

struct Postfix(Sender);

pub(super) fn start(host: &Host, ways: &[Way]) -> Result<Box<dyn Mailer>> {
    let level = |way: &Way| {
        let level = if way.tls { "encrypt" } else { "none" };
        format!("  -o smtp_tls_security_level={level}\n")
    };
    let sender = Sender::start_with(host, ways.iter().map(|way| (&way.route, level(way))), SETTINGS)?;
    Ok(Box::new(Postfix(sender)))
}

impl Mailer for Postfix {
    fn send(&mut self, letters: &[Letter]) -> Result<Vec<Vec<Fate>>> {
        let host = self.0.postfix().host().clone();
        for letter in letters {
            let text = File::open(lay_down(&host, letter)?).context("opening a letter")?;
            let mut sendmail = host.command("sendmail");
            sendmail.args(["-i", "-f", &letter.from]);
            if letter.notify {
                sendmail.args(["-N", "success"]);
            }
            let output = host.run(sendmail.arg("--").args(&letter.to).stdin(text))?;
            ensure!(output.status.success(), "sendmail: {}", String::from_utf8_lossy(&output.stderr));
        }
        letters.iter().map(|letter| self.fates(letter)).collect()
    }

    fn log(&self) -> String {
        self.0.postfix().log()
    }
}

impl Postfix {
    /// What became of a letter, once there is an outcome for every recipient.
    fn fates(&self, letter: &Letter) -> Result<Vec<Fate>> {
        let what = format!("Postfix to be done with {}", letter.id);
        let log = || self.0.postfix().log();
        until_or_show(&what, PATIENCE, log, || {
            let attempts = self.0.attempts(&letter.id);
            let fate = |to: &String| attempts.iter().find(|line| line.to == *to).map(fate);
            Ok(letter.to.iter().map(fate).collect())
        })
    }
}

fn fate(line: &DeliveryLine) -> Fate {
    Fate { to: line.to.clone(), accepted: line.status == "sent", said: format!("{}: {}", line.status, line.reply) }
}
