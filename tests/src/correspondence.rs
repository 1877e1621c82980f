//! A sender, the Internet, a screener and an MTA: letters that go the whole way, and an account of every one.
//!
//! The account is the point: what the sender takes for delivered must be in the mailbox, once, and nothing else may be.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::certificate::Certificate;
use crate::host::{Host, ROOT};
use crate::letter::{Fate, Letter};
use crate::mailbox::{Mail, Mailbox};
use crate::mailer::{Kind, Mailer, Way};
use crate::mta::{DIRECT, Door, Mta};
use crate::net::{Family, Net};
use crate::screener::{Screener, USUAL};
use crate::sender::Route;
use crate::wait::until_or_show;

/// How long a log line or a mailbox may take. Far more than it should: the machine may be busy.
const SOON: Duration = Duration::from_secs(30);

/// The MTA's own pair: both files may be one.
const TLS: &str = "[tls]\ncertificate = \"/etc/postfix/mx.pem\"\nkey = \"/etc/postfix/mx.pem\"\n";

/// How the sender and the screener stand.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Which sender.
    pub kind: Kind,
    /// Whether it insists on TLS. With it the letters go over IPv6, without over IPv4.
    pub tls: bool,
    /// `steer` or `front`.
    pub mode: &'static str,
    /// The door of the MTA by which the screener comes.
    pub door: Door,
    /// Whether the screener terminates TLS; else the MTA does.
    pub own_tls: bool,
}

/// The whole of it.
pub struct Correspondence {
    setting: Setting,
    /// The MX host.
    pub mx: Host,
    /// The MTA.
    pub mta: Mta,
    /// The screener.
    pub screener: Screener,
    mailer: Box<dyn Mailer>,
    sent: Vec<(Letter, Vec<Fate>)>,
}

/// Clients of the screener: each has an address of its own, in IPv6 a /64 of its own.
const CLIENTS: u8 = 7;

/// The envelope sender of a client. The second of the two makes another connection, whatever the first keeps open.
#[must_use]
pub fn envelope(client: u8, again: bool) -> String {
    format!("{}{client}@example.net", if again { "again" } else { "client" })
}

impl Correspondence {
    /// Builds it; everything answers when this returns. `extra` is added to the MTA's `main.cf`.
    ///
    /// # Errors
    /// When a host or a server does not come about.
    pub fn start(setting: Setting, extra: &str) -> Result<Self> {
        let (mx, internet) = Net::mx_and_internet()?;
        Certificate::new("mx.example.com")?.install_as(&mx, "/etc/postfix/mx.pem", &ROOT)?;
        let tls = "smtpd_tls_security_level = may\nsmtpd_tls_received_header = yes\n\
                   smtpd_tls_chain_files = /etc/postfix/mx.pem\n";
        let doors: &[Door] = if setting.mode == "front" { &Door::BEHIND } else { &Door::ALL };
        let mta = Mta::start_with(&mx, &format!("{tls}{extra}"), doors)?;
        let screener = Screener::start(&mx, &setting.screener())?;
        let mut ways = Vec::new();
        let server = mx.address(setting.family())?;
        for client in 1..=CLIENTS {
            for again in [false, true] {
                let route = Route { from: envelope(client, again), source: setting.source(client), server };
                ways.push(Way { route, tls: setting.tls });
            }
        }
        let mailer = setting.kind.start(&internet, &ways)?;
        Ok(Self { setting, mx, mta, screener, mailer, sent: Vec::new() })
    }

    /// How it stands.
    #[must_use]
    pub fn setting(&self) -> Setting {
        self.setting
    }

    /// Sends letters of one client and gives the fates, which are also kept for the account.
    ///
    /// # Errors
    /// When the sender does not run, or does not say what became of them.
    pub fn send(&mut self, letters: &[Letter]) -> Result<Vec<Vec<Fate>>> {
        let fates = self.mailer.send(letters)?;
        self.sent.extend(letters.iter().cloned().zip(fates.iter().cloned()));
        Ok(fates)
    }

    /// Sends letters that must be delivered to every recipient at the first attempt.
    ///
    /// # Errors
    /// As [`Correspondence::send`], and when one is not.
    pub fn deliver(&mut self, letters: &[Letter]) -> Result<()> {
        for fate in self.send(letters)?.iter().flatten() {
            ensure!(fate.accepted, "not delivered to {}: {}\n{}", fate.to, fate.said, self.logs());
        }
        Ok(())
    }

    /// Everything that was logged, for error messages.
    #[must_use]
    pub fn logs(&self) -> String {
        format!("{}\n{}\n{}", self.screener.log(), self.mta.log(), self.mailer.log())
    }

    /// Waits for a letter in a mailbox.
    ///
    /// # Errors
    /// When it is not there in time, or twice.
    pub fn received(&self, letter: &Letter, address: &str) -> Result<Mail> {
        Mailbox::of(&self.mx, address).wait_for_message(&letter.id, SOON, || self.mta.log())
    }

    /// How many connections of a client a door of the MTA has seen.
    #[must_use]
    pub fn connections(&self, door: &str, client: u8) -> usize {
        let came = format!(": connect from unknown[{}]", self.setting.source(client));
        self.mta.log().lines().filter(|line| line.contains(door) && line.contains(&came)).count()
    }

    /// How many mails of a client a door of the MTA has begun to take.
    #[must_use]
    pub fn mails(&self, door: &str, client: u8) -> usize {
        let begun = format!(": client=unknown[{}]", self.setting.source(client));
        self.mta.log().lines().filter(|line| line.contains(door) && line.contains(&begun)).count()
    }

    /// Makes sure that a client has come to one door of the MTA so often.
    ///
    /// # Errors
    /// When it has not.
    pub fn came_by(&self, door: &str, client: u8, times: usize) -> Result<()> {
        let count = self.connections(door, client);
        ensure!(count == times, "client {client} came {count} times by {door}, not {times}:\n{}", self.logs());
        Ok(())
    }

    /// Waits until every connection of a client at a door has ended, and gives what the MTA counted in each: its line's
    /// end, such as `ehlo=2 starttls=1 mail=1 rcpt=1 bdat=1 quit=1 commands=7`.
    ///
    /// # Errors
    /// When one does not end in time.
    pub fn commands(&self, door: &str, client: u8) -> Result<Vec<String>> {
        let left = format!(": disconnect from unknown[{}] ", self.setting.source(client));
        let what = format!("every connection of client {client} to end");
        until_or_show(
            &what,
            SOON,
            || self.mta.log(),
            || {
                let log = self.mta.log();
                let lines = log.lines().filter(|line| line.contains(door));
                let ends: Vec<String> = lines.filter_map(|line| Some(line.split_once(&left)?.1.to_owned())).collect();
                Ok((ends.len() == self.connections(door, client)).then_some(ends))
            },
        )
    }

    /// The account: every letter that the sender takes for delivered is in the mailbox once, and every other letter is not.
    ///
    /// # Errors
    /// When one is missing, or there twice, or there at all.
    pub fn balance(&self) -> Result<()> {
        for (letter, fates) in &self.sent {
            for fate in fates {
                if fate.accepted {
                    self.received(letter, &fate.to)?;
                }
            }
        }
        // What is accepted has arrived by now, so what was not would have, too.
        for (letter, fates) in &self.sent {
            for Fate { to, accepted, said } in fates {
                let count = Mailbox::of(&self.mx, to).count(&letter.id)?;
                ensure!(
                    count == usize::from(*accepted),
                    "{} is {count} times in the mailbox of {to}: {said}",
                    letter.id
                );
            }
        }
        Ok(())
    }
}

impl Setting {
    /// The screener's configuration.
    fn screener(self) -> String {
        let tls = if self.own_tls { TLS } else { "" };
        format!("{USUAL}[listen]\nmode = \"{}\"\n{}{tls}", self.mode, self.door.backend())
    }

    /// The log name of the door by which the screener comes.
    #[must_use]
    pub fn screened_door(self) -> &'static str {
        self.door.log_name()
    }

    /// The log name of the door by which a client with a pass comes.
    #[must_use]
    pub fn door_of_the_known(self) -> &'static str {
        if self.mode == "steer" { DIRECT } else { self.screened_door() }
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(self) -> Family {
        if self.tls { Family::V6 } else { Family::V4 }
    }

    /// Whether the sender brings several letters by one connection.
    #[must_use]
    pub fn keeps_connections(self) -> bool {
        self.kind.keeps_connections(self.tls)
    }

    /// The address of a client.
    #[must_use]
    pub fn source(self, client: u8) -> IpAddr {
        match self.family() {
            Family::V4 => [198, 51, 100, 100 + client].into(),
            Family::V6 => [0x2001, 0xdb8, 0xa, 0x100 + u16::from(client), 0, 0, 0, 1].into(),
        }
    }
}
