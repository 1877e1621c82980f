//! The MTA behind the screener: a real Postfix that delivers `example.com` to mailboxes of its own.
//!
//! It has four doors: port 25 for clients that need no screening, 127.0.0.1:10025 and a Unix socket which expect a PROXY header,
//! and a `pass` service, which takes descriptors. The log tells them apart: [`DIRECT`], [`RELAY`], [`SOCKET`] and [`PASSED`]
//! are their names in it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use crate::host::Host;
use crate::mailbox::Mailbox;
use crate::postfix::{Postfix, find};

pub use crate::mailbox::Mail;

/// The log name of the MTA's own port 25.
pub const DIRECT: &str = "postfix/direct/smtpd";

/// The log name of the door behind the screener.
pub const RELAY: &str = "postfix/relay/smtpd";

/// The log name of the same as a Unix socket.
pub const SOCKET: &str = "postfix/socket/smtpd";

/// The log name of the service that takes descriptors.
pub const PASSED: &str = "postfix/passed/smtpd";

/// The mailbox the lab's mail goes to.
pub const BOB: &str = "bob@example.com";

/// Another mailbox.
pub const CAROL: &str = "carol@example.com";

/// A mailbox that takes SMTPUTF8 to reach.
pub const JOERG: &str = "jörg@example.com";

/// An address that the MTA refuses, with words of its own.
pub const NOBODY: &str = "nobody@example.com";

const SETTINGS: &str = "\
myhostname = mx.example.com
mynetworks = 127.0.0.0/8 [::1]/128
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_client_connection_count_limit = 0
virtual_mailbox_domains = example.com
virtual_mailbox_base = /var/mail/virtual
virtual_mailbox_maps = inline:{ bob@example.com=example.com/bob/, carol@example.com=example.com/carol/,
  jörg@example.com=example.com/jörg/ }
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
";

/// A door of the MTA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Port 25, for clients that need no screening.
    Direct,
    /// 127.0.0.1:10025, which expects a PROXY header.
    Relay,
    /// `private/screened`, which expects one too.
    Socket,
    /// `private/smtpd`, which takes descriptors.
    Passed,
}

impl Door {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Direct, Self::Relay, Self::Socket, Self::Passed];
    /// Those that leave port 25 to somebody else.
    pub const BEHIND: [Self; 3] = [Self::Relay, Self::Socket, Self::Passed];

    /// The screener's configuration to come by this door; nobody is handed over at port 25.
    #[must_use]
    pub fn backend(self) -> &'static str {
        match self {
            Self::Direct => "",
            Self::Relay => "[backend]\naddress = \"127.0.0.1:10025\"\nhandoff = \"proxy-v2\"\n",
            Self::Socket => {
                "[backend]\naddress = \"unix:/var/spool/postfix/private/screened\"\nhandoff = \"proxy-v2\"\n"
            }
            Self::Passed => {
                "[backend]\naddress = \"unix:/var/spool/postfix/private/smtpd\"\nhandoff = \"postfix-pass\"\n"
            }
        }
    }

    /// Its name in the log.
    #[must_use]
    pub fn log_name(self) -> &'static str {
        match self {
            Self::Direct => DIRECT,
            Self::Relay => RELAY,
            Self::Socket => SOCKET,
            Self::Passed => PASSED,
        }
    }

    fn service(self) -> &'static str {
        match self {
            Self::Direct => "smtp inet n - n - - smtpd\n  -o syslog_name=postfix/direct\n",
            Self::Relay => {
                "127.0.0.1:10025 inet n - n - - smtpd\n  -o syslog_name=postfix/relay\n  \
                 -o smtpd_upstream_proxy_protocol=haproxy\n"
            }
            Self::Socket => {
                "screened unix - - n - - smtpd\n  -o syslog_name=postfix/socket\n  \
                 -o smtpd_upstream_proxy_protocol=haproxy\n"
            }
            Self::Passed => "smtpd pass - - n - - smtpd\n  -o syslog_name=postfix/passed\n",
        }
    }
}

/// The receiving Postfix.
#[derive(Debug)]
pub struct Mta {
    postfix: Postfix,
}

impl Mta {
    /// Starts the MTA; its doors are open when this returns. `extra` is added to `main.cf`.
    ///
    /// # Errors
    /// When Postfix does not start.
    pub fn start(host: &Host, extra: &str) -> Result<Self> {
        Self::start_with(host, extra, &Door::ALL)
    }

    /// Starts it with some of its doors: in front mode port 25 is the screener's.
    ///
    /// # Errors
    /// When Postfix does not start.
    pub fn start_with(host: &Host, extra: &str, doors: &[Door]) -> Result<Self> {
        Mailbox::make_room(host)?;
        let services: String = doors.iter().map(|door| door.service()).collect();
        let postfix = Postfix::start(host, &format!("{SETTINGS}{extra}\n"), &services)?;
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

    /// Whether the log of one door ([`Door::log_name`]) has seen a client.
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
        self.mailbox().mails()
    }

    /// Bob's mailbox.
    #[must_use]
    pub fn mailbox(&self) -> Mailbox {
        Mailbox::of(self.postfix.host(), BOB)
    }

    /// Waits until the mailbox holds `count` mails.
    ///
    /// # Errors
    /// When it does not in time; the error shows the end of the mail log.
    pub fn wait_for_mail(&self, count: usize, timeout: Duration) -> Result<Vec<Mail>> {
        self.mailbox().wait_for_mail(count, timeout, || self.log())
    }

    /// Waits for a mail with this `Message-ID` (without the angle brackets).
    ///
    /// # Errors
    /// When it does not come in time; the error shows the end of the mail log.
    pub fn wait_for_message(&self, id: &str, timeout: Duration) -> Result<Mail> {
        self.mailbox().wait_for_message(id, timeout, || self.log())
    }
}

/// What the log line of a new connection holds. The brackets keep one address from being part of another.
fn came(client: IpAddr) -> String {
    format!(": connect from unknown[{client}]")
}
