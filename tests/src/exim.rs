//! Exim on a host: what the sender and the MTA behind the screener have in common, and the MTA.
//!
//! It is the daemon `exim4-daemon-heavy`: Debian's light one knows no PROXY protocol.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::certificate::Certificate;
use crate::host::{Host, User};
use crate::mailbox::Mailbox;
use crate::proc::Proc;
use crate::software;
use crate::wait::until_or_show;

/// Where Debian's Exim looks for its configuration first.
pub(crate) const CONFIG: &str = "/etc/exim4/exim4.conf";

const USER: User = User { name: "Debian-exim", id: 5101, home: "/var/spool/exim4" };

const LOG: &str = "/var/log/exim4/mainlog";
const PANIC_LOG: &str = "/var/log/exim4/paniclog";

const START: Duration = Duration::from_secs(30);

/// The first part of every configuration.
pub(crate) const COMMON: &str = "\
keep_environment =
add_environment = PATH=/usr/sbin:/usr/bin
message_size_limit = 0
ignore_bounce_errors_after = 0s
disable_ipv6 = false
host_lookup =
smtp_connect_backlog = 50
";

/// Gives a host Exim, its user and its directories.
pub(crate) fn prepare(host: &Host) -> Result<()> {
    software::lay(host, "exim")?;
    host.add_user(&USER)?;
    host.directory(USER.home, &USER, 0o750)?;
    host.directory("/var/log/exim4", &USER, 0o755)
}

/// Everything Exim has logged on a host.
pub(crate) fn log(host: &Host) -> String {
    let read = |path| host.read(path).unwrap_or_default();
    read(LOG) + &read(PANIC_LOG)
}

/// Exim as the MTA behind the screener: `example.com` goes to mailboxes of its own. Port 25 is for clients that need no
/// screening, 127.0.0.1:10025 expects a PROXY header.
#[derive(Debug)]
pub struct Exim {
    host: Host,
    _daemon: Proc,
}

/// As docs/mtas.md has it, with the lab's names.
const MTA: &str = "\
primary_hostname = mx.example.com
local_interfaces = <; 0.0.0.0.25 ; ::0.25 ; 127.0.0.1.10025
hosts_proxy = 127.0.0.1
smtputf8_advertise_hosts = *
chunking_advertise_hosts = *
dsn_advertise_hosts = *
pipelining_advertise_hosts = *
prdr_enable = true
tls_advertise_hosts = *
tls_certificate = /etc/exim4/exim.pem
log_selector = +incoming_port +smtp_connection +smtp_confirmation +received_recipients
acl_smtp_rcpt = rcpt
acl_smtp_data = data
begin acl
rcpt:
  deny ! domains = example.com
       message = relay not permitted
  require verify = recipient
  accept
data:
  accept
begin routers
box:
  driver = accept
  domains = example.com
  local_parts = bob : carol
  transport = box
begin transports
box:
  driver = appendfile
  maildir_format
  directory = /var/mail/virtual/example.com/$local_part_data
  user = vmail
  group = vmail
  delivery_date_add
  envelope_to_add
  return_path_add
begin retry
* * F,2h,1m
";

impl Exim {
    /// Starts it; both doors are open when this returns.
    ///
    /// # Errors
    /// When it is not unpacked or does not start.
    pub fn start(host: &Host) -> Result<Self> {
        prepare(host)?;
        Mailbox::make_room(host)?;
        Certificate::new("mx.example.com")?.install_as(host, "/etc/exim4/exim.pem", &USER)?;
        host.write(CONFIG, &format!("{COMMON}{MTA}"))?;
        let mut daemon = host.spawn(host.command("exim4").args(["-bdf", "-q10m"]))?;
        let own = daemon.log_file().to_owned();
        let shown = || format!("{}\n{}", log(host), std::fs::read_to_string(&own).unwrap_or_default());
        until_or_show("Exim to start", START, shown, || {
            ensure!(daemon.ended()?.is_none(), "Exim ended at its start:\n{}", shown());
            // It says so after it has bound its sockets.
            Ok(log(host).contains("listening for SMTP").then_some(()))
        })
        .with_context(|| format!("on host {}", host.name()))?;
        Ok(Self { host: host.clone(), _daemon: daemon })
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        log(&self.host)
    }

    /// Waits until its log has a line of a client's connection with every one of `parts`.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_for_log(&self, parts: &[&str], timeout: Duration) -> Result<String> {
        let found = || self.log().lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned);
        until_or_show(&format!("{parts:?} in Exim's log"), timeout, || self.log(), || Ok(found()))
    }

    /// A mailbox.
    #[must_use]
    pub fn mailbox(&self, address: &str) -> Mailbox {
        Mailbox::of(&self.host, address)
    }
}
