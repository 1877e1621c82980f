//! A name server with records of the lab's own: a real unbound that answers from what it is told and asks nobody.
//!
//! Every name that is not there is NXDOMAIN. For a server that fails in ways a real one cannot be made to there is
//! [`crate::scripted`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::dns::{self, Kind};
use crate::host::Host;
use crate::proc::Proc;
use crate::wait::until_or_show;

const CONFIG: &str = "/etc/unbound/names.conf";
const CHANGE: Duration = Duration::from_secs(15);
const ANSWER: Duration = Duration::from_secs(1);
/// The name whose text is the number of the present records.
const SERIAL: &str = "serial.lab";

/// The server.
#[derive(Debug)]
pub struct Names {
    host: Host,
    address: IpAddr,
    server: Proc,
    serial: u32,
}

impl Names {
    /// Starts on port 53 of an address of a host, with records as a zone file has them (`example.com. 300 MX 10 a.b.`,
    /// names complete); it answers when this returns.
    ///
    /// # Errors
    /// When unbound is not installed, refuses a record or does not start.
    pub fn start(host: &Host, address: IpAddr, records: &[&str]) -> Result<Self> {
        host.write(CONFIG, &configuration(address, records, 0))?;
        let server = host.spawn(host.command("unbound").args(["-d", "-c", CONFIG]))?;
        let mut names = Self { host: host.clone(), address, server, serial: 0 };
        names.wait_for_serial()?;
        Ok(names)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Puts other records in the place of all that there are; they are answered when this returns.
    ///
    /// # Errors
    /// When unbound refuses a record.
    pub fn replace(&mut self, records: &[&str]) -> Result<()> {
        self.serial += 1;
        self.host.write(CONFIG, &configuration(self.address, records, self.serial))?;
        self.server.signal(Signal::HUP)?;
        self.wait_for_serial()
    }

    /// Stops it without a word to those who ask; [`Names::wake`] lets it answer again.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sleep(&mut self) -> Result<()> {
        self.server.signal(Signal::STOP)
    }

    /// See [`Names::sleep`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn wake(&mut self) -> Result<()> {
        self.server.signal(Signal::CONT)
    }

    fn wait_for_serial(&mut self) -> Result<()> {
        let (serial, socket) = (self.serial.to_string(), SocketAddr::new(self.address, 53));
        let log = self.server.log_file().to_owned();
        let shown = || std::fs::read_to_string(&log).unwrap_or_default();
        until_or_show(&format!("the name server to have records {serial}"), CHANGE, shown, || {
            let ended = self.server.ended()?;
            ensure!(ended.is_none(), "unbound ended:\n{}", shown());
            let answer = dns::ask(&self.host, socket, SERIAL, Kind::Txt, ANSWER).ok();
            Ok(answer.filter(|answer| answer.texts == [serial.as_str()]).map(drop))
        })
    }
}

fn configuration(address: IpAddr, records: &[&str], serial: u32) -> String {
    let mut config = format!(
        "server:\n  interface: {address}\n  access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n  \
         do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  directory: \"/etc/unbound\"\n  \
         use-syslog: no\n  logfile: \"\"\n  module-config: \"iterator\"\n  verbosity: 1\n  \
         local-zone: \".\" static\n  local-data: '{SERIAL}. 0 TXT \"{serial}\"'\n"
    );
    for record in records {
        config += &format!("  local-data: '{record}'\n");
    }
    config + "remote-control:\n  control-enable: no\n"
}
