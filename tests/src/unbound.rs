//! A real resolver on a host: unbound, which asks the lists' servers as a mail server's own resolver does.
//!
//! Knows only the zones that it is told of. Keeps no file beyond the host's own places.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::dns::{self, Kind};
use crate::host::Host;
use crate::proc::Proc;
use crate::wait::until_or_show;

const CONFIG: &str = "/etc/unbound/lab.conf";
const START: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(1);

/// The resolver.
#[derive(Debug)]
pub struct Unbound {
    server: Proc,
}

impl Unbound {
    /// Starts on 127.0.0.1 of a host, and makes it the host's resolver; it answers for every zone when this returns.
    ///
    /// # Errors
    /// When unbound is not installed or does not start.
    pub fn start(host: &Host, zones: &[(&str, IpAddr)]) -> Result<Self> {
        let resolver = Self::start_unnamed(host, zones)?;
        host.resolve_at(Ipv4Addr::LOCALHOST.into())?;
        Ok(resolver)
    }

    /// The same, without making it the host's resolver.
    ///
    /// # Errors
    /// As [`Unbound::start`].
    pub fn start_unnamed(host: &Host, zones: &[(&str, IpAddr)]) -> Result<Self> {
        let mut config = "server:\n  interface: 127.0.0.1\n  access-control: 127.0.0.0/8 allow\n  do-daemonize: no\n  \
             chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  directory: \"/etc/unbound\"\n  use-syslog: no\n  \
             logfile: \"\"\n  module-config: \"iterator\"\n  do-not-query-localhost: no\n  verbosity: 1\n\
             remote-control:\n  control-enable: no\n"
            .to_owned();
        for (zone, server) in zones {
            config += &format!("stub-zone:\n  name: \"{zone}\"\n  stub-addr: {server}\n");
        }
        host.write(CONFIG, &config)?;
        let mut command = host.command("unbound");
        let mut resolver = Self { server: host.spawn(command.args(["-d", "-c", CONFIG]))? };
        let log = resolver.server.log_file().to_owned();
        let shown = || std::fs::read_to_string(&log).unwrap_or_default();
        for (zone, _) in zones {
            until_or_show(&format!("unbound to answer for {zone}"), START, shown, || {
                let ended = resolver.server.ended()?;
                ensure!(ended.is_none(), "unbound ended at its start:\n{}", shown());
                let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
                let answer = dns::ask(host, local, &format!("2.0.0.127.{zone}"), Kind::A, ANSWER).ok();
                Ok(answer.filter(|answer| answer.code == 0))
            })?;
        }
        Ok(resolver)
    }

    /// Stops it without a word to those who ask; [`Unbound::wake`] lets it answer again.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sleep(&mut self) -> Result<()> {
        self.server.signal(Signal::STOP)
    }

    /// See [`Unbound::sleep`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn wake(&mut self) -> Result<()> {
        self.server.signal(Signal::CONT)
    }
}
