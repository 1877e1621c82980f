//! Real senders: programs that bring a letter to an MTA, and say what became of it.
//!
//! Each is the program itself with a configuration of its own. What a sender says is taken from its own log or its own
//! answer, never from the MTA's. Nothing here knows of a screener.

mod exim;
mod opensmtpd;
mod postfix;
mod sendmail;
mod tool;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::host::Host;
use crate::letter::{Fate, Letter};
use crate::sender::Route;

/// How long a letter may take to leave; 20 MB on a busy machine take some seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A way out of a sender: the letter's envelope sender chooses it.
#[derive(Clone, Debug)]
pub struct Way {
    /// From where to where.
    pub route: Route,
    /// Whether the sender insists on STARTTLS, or does without; the certificate is not checked.
    pub tls: bool,
}

/// A sender of one kind, with its ways out.
pub trait Mailer {
    /// Sends letters that have one way out in common, by one connection if the program can, and waits until each has
    /// its fate: for every letter in turn, one for every recipient.
    ///
    /// # Errors
    /// When the program does not run or says nothing in time. A letter that is refused is no error.
    fn send(&mut self, letters: &[Letter]) -> Result<Vec<Vec<Fate>>>;

    /// What it has logged, for error messages; empty where the fates have said it all.
    fn log(&self) -> String {
        String::new()
    }
}

/// The kinds of senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Postfix.
    Postfix,
    /// Exim 4.
    Exim,
    /// OpenSMTPD.
    OpenSmtpd,
    /// Sendmail 8.
    Sendmail,
    /// msmtp, the submission tool.
    Msmtp,
    /// swaks, the testing tool.
    Swaks,
    /// Python's smtplib.
    Smtplib,
}

impl Kind {
    /// Starts a sender of this kind on a host that has no other.
    ///
    /// # Errors
    /// When its software is missing or does not start.
    pub fn start(self, host: &Host, ways: &[Way]) -> Result<Box<dyn Mailer>> {
        let started: Result<Box<dyn Mailer>> = match self {
            Self::Postfix => postfix::start(host, ways),
            Self::Exim => exim::start(host, ways),
            Self::OpenSmtpd => opensmtpd::start(host, ways),
            Self::Sendmail => sendmail::start(host, ways),
            Self::Msmtp | Self::Swaks | Self::Smtplib => Ok(tool::new(self, host, ways)),
        };
        started.with_context(|| format!("starting {self:?} on host {}", host.name()))
    }

    /// Whether it sends several letters by one connection.
    #[must_use]
    pub fn keeps_connections(self, tls: bool) -> bool {
        match self {
            Self::Msmtp | Self::Swaks => false,
            Self::Postfix => !tls,
            _ => true,
        }
    }

    /// Whether it goes on when one of several recipients is refused: msmtp gives the whole letter up.
    #[must_use]
    pub fn delivers_to_the_others(self) -> bool {
        self != Self::Msmtp
    }

    /// Whether it asks for notifications (DSN) when it is told to.
    #[must_use]
    pub fn asks_for_notifications(self) -> bool {
        matches!(self, Self::Postfix | Self::Sendmail | Self::Msmtp | Self::Smtplib)
    }

    /// Whether it can send to an address that is not ASCII (SMTPUTF8).
    #[must_use]
    pub fn speaks_utf8(self) -> bool {
        matches!(self, Self::Postfix | Self::Exim | Self::Smtplib)
    }

    /// Whether it uses BDAT when the MTA offers CHUNKING.
    #[must_use]
    pub fn chunks(self) -> bool {
        self == Self::Exim
    }
}

/// The way out of letters that have one in common.
fn way_of<'a>(ways: &'a [Way], letters: &[Letter]) -> Result<&'a Way> {
    let from = &letters.first().context("no letter")?.from;
    ways.iter().find(|way| way.route.from == *from).with_context(|| format!("no way out for {from}"))
}

/// Lays a letter down on a host, for a program's standard input.
fn lay_down(host: &Host, letter: &Letter) -> Result<PathBuf> {
    host.write_bytes(&format!("/tmp/{}", letter.id), &letter.text())
}
