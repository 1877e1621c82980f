//! The MTA behind the screener: a real Postfix that delivers `example.com` to mailboxes of its own.
//!
//! It has three doors: port 25 for clients that need no screening, 127.0.0.1:10025 which expects a PROXY header, and a
//! `pass` service, which takes descriptors. The log tells them apart: [`DIRECT`], [`RELAY`] and [`PASSED`] are their names in it.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::host::Host;
use crate::postfix::{Postfix, find};
use crate::wait::until_or_show;

/// The log name of the MTA's own port 25.
pub const DIRECT: &str = "postfix/direct/smtpd";

/// The log name of the door behind the screener.
pub const RELAY: &str = "postfix/relay/smtpd";

/// The log name of the service that takes descriptors.
pub const PASSED: &str = "postfix/passed/smtpd";

/// The mailbox the lab's mail goes to.
pub const BOB: &str = "bob@example.com";

const MAILBOX: &str = "/var/mail/virtual/example.com/bob/new";

const SETTINGS: &str = "\
myhostname = mx.example.com
mynetworks = 127.0.0.0/8 [::1]/128
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_client_connection_count_limit = 0
virtual_mailbox_domains = example.com
virtual_mailbox_base = /var/mail/virtual
virtual_mailbox_maps = inline:{ bob@example.com=example.com/bob/ }
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
smtpd_tls_security_level = none
";

const SERVICES: &str = "\
smtp inet n - n - - smtpd
  -o syslog_name=postfix/direct
127.0.0.1:10025 inet n - n - - smtpd
  -o syslog_name=postfix/relay
  -o smtpd_upstream_proxy_protocol=haproxy
smtpd pass - - n - - smtpd
  -o syslog_name=postfix/passed
";

/// The receiving Postfix.
#[derive(Debug)]
pub struct Mta {
    postfix: Postfix,
}

/// A delivered mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Header fields in their order, unfolded: name and value.
    pub headers: Vec<(String, String)>,
    /// Everything after the first empty line.
    pub body: String,
}

impl Mta {
    /// Starts the MTA; its doors are open when this returns. `extra` is added to `main.cf`.
    ///
    /// # Errors
    /// When Postfix does not start.
    pub fn start(host: &Host, extra: &str) -> Result<Self> {
        host.ask("mkdir", &["-p", "/var/mail/virtual"])?;
        host.ask("chown", &["5000:5000", "/var/mail/virtual"])?;
        let postfix = Postfix::start(host, &format!("{SETTINGS}{extra}\n"), SERVICES)?;
        Ok(Self { postfix })
    }

    /// The instance, for its log and its host.
    #[must_use]
    pub fn postfix(&self) -> &Postfix {
        &self.postfix
    }

    /// Stops and starts it.
    ///
    /// # Errors
    /// When either does not happen in time: a start fails, for one, if somebody holds port 25.
    pub fn restart(&mut self) -> Result<()> {
        self.postfix.stop()?;
        self.postfix.resume()
    }

    /// Stops it; [`Mta::resume`] starts it again.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub fn stop(&mut self) -> Result<()> {
        self.postfix.stop()
    }

    /// Starts it after [`Mta::stop`].
    ///
    /// # Errors
    /// When it does not start in time.
    pub fn resume(&mut self) -> Result<()> {
        self.postfix.resume()
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.postfix.log()
    }

    /// Whether the log of one door ([`DIRECT`], [`RELAY`] or [`PASSED`]) has seen a client.
    #[must_use]
    pub fn has_seen(&self, door: &str, client: IpAddr) -> bool {
        find(&self.log(), &[door, &came(client)]).is_some()
    }

    /// Waits until the log of one door has seen a client, and gives the line.
    ///
    /// # Errors
    /// When it has not in time.
    pub fn wait_until_seen(&self, door: &str, client: IpAddr, timeout: Duration) -> Result<String> {
        self.postfix.wait_for_log(&[door, &came(client)], timeout)
    }

    /// The mail in Bob's mailbox, oldest first.
    ///
    /// # Errors
    /// When the mailbox cannot be read; one that nobody has mailed yet is empty.
    pub fn mails(&self) -> Result<Vec<Mail>> {
        let place = self.postfix.host().path(MAILBOX);
        if !place.exists() {
            return Ok(Vec::new());
        }
        let mut files = Vec::new();
        for entry in fs::read_dir(&place).context("reading the mailbox")? {
            files.push(entry.context("reading the mailbox")?.path());
        }
        // A maildir name starts with the time: seconds, then the microseconds after an `M`.
        files.sort_by_key(|file| maildir_time(&file.display().to_string()));
        let read = |file| {
            let bytes = fs::read(file).context("reading a mail")?;
            Ok(Mail::parse(&String::from_utf8_lossy(&bytes)))
        };
        files.iter().map(read).collect()
    }

    /// Waits until the mailbox holds `count` mails.
    ///
    /// # Errors
    /// When it does not in time; the error shows the end of the mail log.
    pub fn wait_for_mail(&self, count: usize, timeout: Duration) -> Result<Vec<Mail>> {
        let what = format!("{count} mails in the mailbox");
        let log = || self.log();
        until_or_show(&what, timeout, log, || {
            let mails = self.mails()?;
            Ok((mails.len() >= count).then_some(mails))
        })
    }

    /// Waits for a mail with this `Message-ID` (without the angle brackets).
    ///
    /// # Errors
    /// When it does not come in time; the error shows the end of the mail log.
    pub fn wait_for_message(&self, id: &str, timeout: Duration) -> Result<Mail> {
        let what = format!("mail {id} in the mailbox");
        let log = || self.log();
        until_or_show(&what, timeout, log, || {
            let mut mails = self.mails()?.into_iter();
            Ok(mails.find(|mail| mail.header("Message-ID").is_some_and(|found| found.contains(id))))
        })
    }
}

impl Mail {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut headers: Vec<(String, String)> = Vec::new();
        for line in head.lines() {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = headers.last_mut() {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        Self { headers, body: body.to_owned() }
    }

    /// The first header field of a name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether the topmost `Received` field, the MTA's own, names this client.
    #[must_use]
    pub fn was_received_from(&self, client: IpAddr) -> bool {
        let shown = match client {
            IpAddr::V4(address) => format!("[{address}]"),
            IpAddr::V6(address) => format!("[IPv6:{address}]"),
        };
        self.header("Received").is_some_and(|received| received.contains(&shown))
    }
}

/// What the log line of a new connection holds. The brackets keep one address from being part of another.
fn came(client: IpAddr) -> String {
    format!(": connect from unknown[{client}]")
}

fn maildir_time(path: &str) -> (u64, u64) {
    let name = path.rsplit('/').next().unwrap_or_default();
    let number = |text: &str| -> u64 {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_default()
    };
    let micros = name.split_once('M').map_or(0, |(_, rest)| number(rest));
    (number(name), micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_headers_are_one_value() {
        let mail = Mail::parse("Received: from a\n\tby b [IPv6:2001:db8::1]\nTo: c\n\nText\n");
        assert_eq!(mail.header("received"), Some("from a by b [IPv6:2001:db8::1]"));
        assert!(mail.was_received_from("2001:db8::1".parse().unwrap()));
        assert_eq!(mail.body, "Text\n");
    }

    #[test]
    fn mails_of_one_second_keep_their_order() {
        assert!(maildir_time("/new/17.Vfe01M999.mx") < maildir_time("/new/17.Vfe01M1000.mx"));
    }
}
