//! A running Postfix on a host: what the receiving MTA and the sending client have in common.
//!
//! Uses the machine's own Postfix with its default paths, which are the host's private ones. Never knows what the
//! instance is for: the two configuration files come from the caller.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::host::Host;
use crate::proc::Proc;
use crate::wait::until_or_show;

/// How long Postfix has to start or stop; seconds of it are the machine's other work.
const CHANGE: Duration = Duration::from_secs(30);

const LOG: &str = "/var/log/maillog";

/// Settings every instance has: no DNS, no chroot, no syslog, errors to nobody.
const COMMON: &str = "\
compatibility_level = 3.6
maillog_file = /var/log/maillog
disable_dns_lookups = yes
smtpd_peername_lookup = no
inet_interfaces = all
inet_protocols = all
mydestination =
alias_maps =
alias_database =
notify_classes =
biff = no
in_flow_delay = 0
";

/// The services every instance has, without the ones that listen on the network.
const SERVICES: &str = "\
pickup    unix  n - n 60 1 pickup
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
verify    unix  - - n - 1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n - - proxymap
smtp      unix  - - n - - smtp
showq     unix  n - n - - showq
error     unix  - - n - - error
retry     unix  - - n - - error
discard   unix  - - n - - discard
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
scache    unix  - - n - 1 scache
tlsmgr    unix  - - n 1000? 1 tlsmgr
postlog   unix-dgram n - n - 1 postlogd
";

/// A Postfix instance.
#[derive(Debug)]
pub struct Postfix {
    host: Host,
    master: Option<Proc>,
}

impl Postfix {
    /// Writes `main.cf` and `master.cf` and starts the instance; it listens when this returns.
    ///
    /// # Errors
    /// When Postfix is not installed, refuses the configuration or does not start in time.
    pub fn start(host: &Host, settings: &str, services: &str) -> Result<Self> {
        host.write("/etc/postfix/main.cf", &format!("{COMMON}{settings}"))?;
        host.write("/etc/postfix/master.cf", &format!("{SERVICES}{services}"))?;
        let mut postfix = Self { host: host.clone(), master: None };
        postfix.resume()?;
        Ok(postfix)
    }

    /// The host it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Starts it again after [`Postfix::stop`].
    ///
    /// # Errors
    /// When it does not start in time.
    pub fn resume(&mut self) -> Result<()> {
        let before = self.starts();
        let mut command = self.host.command("postfix");
        let mut master = self.host.spawn(command.arg("start-fg"))?;
        let own = master.log_file().to_owned();
        let log = || {
            let printed = std::fs::read_to_string(&own).unwrap_or_default();
            format!("{}\n{printed}", self.log())
        };
        // Postfix says so after it has bound its sockets.
        until_or_show("Postfix to start", CHANGE, log, || {
            let ended = master.ended()?;
            ensure!(ended.is_none(), "Postfix ended at its start:\n{}", log());
            Ok((self.starts() > before).then_some(()))
        })
        .with_context(|| format!("on host {}", self.host.name()))?;
        self.master = Some(master);
        Ok(())
    }

    /// Stops it in good order; mail in its queue stays there.
    ///
    /// # Errors
    /// When it does not stop in time.
    pub fn stop(&mut self) -> Result<()> {
        self.host.ask("postfix", &["stop"])?;
        if let Some(mut master) = self.master.take() {
            master.wait(CHANGE)?;
        }
        Ok(())
    }

    /// The process that all others of the instance are below.
    ///
    /// # Errors
    /// When it is stopped.
    pub fn id(&self) -> Result<u32> {
        self.master.as_ref().map(Proc::id).with_context(|| format!("Postfix on {} is stopped", self.host.name()))
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.host.read(LOG).unwrap_or_default()
    }

    /// Waits for a line of the log that holds every one of `parts`, and gives the first.
    ///
    /// # Errors
    /// When there is none in time; the error shows the end of the log.
    pub fn wait_for_log(&self, parts: &[&str], timeout: Duration) -> Result<String> {
        let what = format!("{parts:?} in the mail log of host {}", self.host.name());
        until_or_show(&what, timeout, || self.log(), || Ok(find(&self.log(), parts).map(str::to_owned)))
    }

    /// A command of Postfix on its host, such as `postqueue`.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.host.command(program)
    }

    fn starts(&self) -> usize {
        self.log().matches("daemon started").count()
    }
}

/// The first line that holds every one of `parts`.
#[must_use]
pub fn find<'a>(log: &'a str, parts: &[&str]) -> Option<&'a str> {
    log.lines().find(|line| parts.iter().all(|part| line.contains(part)))
}
