//! A real load balancer on a host: haproxy, which takes mail on port 25 and names each client to the server behind it.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::host::Host;
use crate::proc::Proc;
use crate::wait::until_or_show;

const CONFIG: &str = "/etc/haproxy-lab.cfg";
const SOCKET: &str = "/run/haproxy-lab.sock";
const START: Duration = Duration::from_secs(15);

/// The balancer.
#[derive(Debug)]
pub struct Haproxy {
    host: Host,
    server: Proc,
}

impl Haproxy {
    /// Starts before one server; `options` are those of the server line, such as `send-proxy-v2 check`. The balancer says how
    /// healthy it believes the server to be.
    ///
    /// # Errors
    /// When haproxy is not installed or does not start.
    pub fn start(host: &Host, server: SocketAddr, options: &str) -> Result<Self> {
        let config = format!(
            "global\n  log stdout format raw local0\n  stats socket {SOCKET} level admin\n\
             defaults\n  log global\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend mail\n  bind 0.0.0.0:25\n  bind [::]:25 v6only\n  unique-id-format %ci-%cp\n  default_backend mx\n\
             backend mx\n  option smtpchk HELO balancer.example.com\n  server mx {server} {options}\n"
        );
        host.write(CONFIG, &config)?;
        let mut command = host.command("haproxy");
        let mut balancer = Self { host: host.clone(), server: host.spawn(command.args(["-db", "-f", CONFIG]))? };
        balancer.wait_until_server_is("UP")?;
        Ok(balancer)
    }

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Waits until it believes the server to be `UP` or `DOWN`.
    ///
    /// # Errors
    /// When it does not in time, or has ended.
    pub fn wait_until_server_is(&mut self, state: &str) -> Result<()> {
        let log = self.server.log_file().to_owned();
        let shown = || std::fs::read_to_string(&log).unwrap_or_default();
        until_or_show(&format!("haproxy to believe the server {state}"), START, shown, || {
            let ended = self.server.ended()?;
            ensure!(ended.is_none(), "haproxy ended:\n{}", shown());
            Ok(self.states().iter().any(|known| known == state).then_some(()))
        })
    }

    /// What its status socket says of the server; nothing while it starts.
    fn states(&self) -> Vec<String> {
        let ask = || -> io::Result<String> {
            let mut socket = UnixStream::connect(self.host.path(SOCKET))?;
            socket.write_all(b"show stat\n")?;
            let mut table = String::new();
            socket.read_to_string(&mut table)?;
            Ok(table)
        };
        let table = ask().unwrap_or_default();
        let server = table.lines().filter(|line| line.starts_with("mx,mx,"));
        server.flat_map(|line| line.split(',').map(str::to_owned)).collect()
    }
}
