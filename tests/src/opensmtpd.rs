//! OpenSMTPD on a host: what the sender and the MTA behind the screener have in common, and the MTA.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::host::{Host, ROOT, User};
use crate::mailbox::Mailbox;
use crate::proc::Proc;
use crate::software;
use crate::wait::until_or_show;

const CONFIG: &str = "/etc/smtpd.conf";

/// The users that its processes run as.
const DAEMON: User = User { name: "opensmtpd", id: 5104, home: EMPTY };
const QUEUE: User = User { name: "opensmtpq", id: 5105, home: EMPTY };

/// Where they are locked in.
const EMPTY: &str = "/var/lib/opensmtpd/empty";

const START: Duration = Duration::from_secs(30);

/// A running OpenSMTPD.
#[derive(Debug)]
pub struct OpenSmtpd {
    host: Host,
    daemon: Proc,
}

/// As docs/mtas.md has it, with the lab's names. Without TLS: Debian 12's OpenSMTPD (6.8.0p2 with OpenSSL 3) has no private
/// key to show, whatever its kind, and ends every handshake with "missing private key".
const MTA: &str = "\
smtp max-message-size 26M
table recipients { \"bob@example.com\", \"carol@example.com\" }
table owner { \"@\" = \"vmail\" }
listen on 127.0.0.1 port 10025 hostname mx.example.com proxy-v2
action \"box\" maildir \"/var/mail/virtual/example.com/%{rcpt.user}\" virtual <owner>
match from any for rcpt-to <recipients> action \"box\"
";

/// The door for clients that need no screening.
const DIRECT: &str = "\
listen on 0.0.0.0 port 25 hostname mx.example.com
listen on :: port 25 hostname mx.example.com
";

/// A command of OpenSMTPD's. The package makes them setgid when it is installed; unpacked they are not.
pub(crate) fn command(host: &Host, program: &str) -> Command {
    let mut command = host.command("setpriv");
    command.args(["--regid", QUEUE.name, "--clear-groups", program]);
    command
}

impl OpenSmtpd {
    /// Starts it with a configuration; it listens when this returns.
    ///
    /// # Errors
    /// When it is not unpacked or does not start.
    pub(crate) fn start_with(host: &Host, config: &str) -> Result<Self> {
        software::lay(host, "opensmtpd")?;
        for user in [&DAEMON, &QUEUE] {
            host.add_user(user)?;
        }
        host.directory(EMPTY, &ROOT, 0o755)?;
        host.directory("/var/spool/smtpd", &ROOT, 0o711)?;
        host.write(CONFIG, config)?;
        host.write("/etc/mailname", &format!("{}.example.net\n", host.name()))?;
        let mut daemon = host.spawn(host.command("smtpd").args(["-d", "-v"]))?;
        let own = daemon.log_file().to_owned();
        let shown = || std::fs::read_to_string(&own).unwrap_or_default();
        until_or_show("OpenSMTPD to start", START, shown, || {
            ensure!(daemon.ended()?.is_none(), "OpenSMTPD ended at its start:\n{}", shown());
            // Its control socket is the last thing it opens.
            let answered = host.run(command(host, "smtpctl").args(["show", "status"]))?;
            Ok(answered.status.success().then_some(()))
        })
        .with_context(|| format!("on host {}", host.name()))?;
        Ok(Self { host: host.clone(), daemon })
    }

    /// Starts it as the MTA behind the screener: `example.com` goes to mailboxes of its own. 127.0.0.1:10025 expects a PROXY
    /// header; port 25 is for clients that need no screening, in steer mode.
    ///
    /// # Errors
    /// When it is not unpacked or does not start.
    pub fn start(host: &Host, mode: &str) -> Result<Self> {
        Mailbox::make_room(host)?;
        let direct = if mode == "front" { "" } else { DIRECT };
        Self::start_with(host, &format!("{direct}{MTA}"))
    }

    /// The host it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Waits until its log has a line with every one of `parts`.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_for_log(&self, parts: &[&str], timeout: Duration) -> Result<String> {
        let found = || self.log().lines().find(|line| parts.iter().all(|part| line.contains(part))).map(str::to_owned);
        until_or_show(&format!("{parts:?} in OpenSMTPD's log"), timeout, || self.log(), || Ok(found()))
    }

    /// A mailbox.
    #[must_use]
    pub fn mailbox(&self, address: &str) -> Mailbox {
        Mailbox::of(&self.host, address)
    }
}
