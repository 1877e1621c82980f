//! The store that several MX hosts share: a real Redis (or Valkey) on a host, and real Sentinels beside it.
//!
//! Keeps nothing on a disk, unless a test says so: what it loses when it is killed is for its clients to put back.

use std::env;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::host::Host;
use crate::net::Family;
use crate::proc::Proc;
use crate::wait::until_or_show;

/// Where it listens.
pub const PORT: u16 = 6379;
/// Where Sentinel listens.
pub const SENTINEL_PORT: u16 = 26_379;
/// What Sentinels call the master.
pub const MASTER: &str = "mail";

const START: Duration = Duration::from_secs(15);

/// A program of Redis, or of Valkey if `SCREENER_VALKEY` names the directory of its programs.
fn program(name: &str) -> PathBuf {
    match env::var_os("SCREENER_VALKEY") {
        Some(directory) => Path::new(&directory).join(format!("valkey-{name}")),
        None => format!("redis-{name}").into(),
    }
}

/// A store, or a Sentinel.
#[derive(Debug)]
pub struct Redis {
    host: Host,
    address: IpAddr,
    port: u16,
    config: String,
    program: PathBuf,
    server: Proc,
    password: Option<String>,
}

impl Redis {
    /// Starts a store on the first IPv4 address of a host, with more lines of configuration; it answers when this returns.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(host: &Host, more: &str) -> Result<Self> {
        let text = format!("port {PORT}\nsave \"\"\nunixsocket /run/redis-{PORT}.sock\n{more}");
        Self::launch(host, PORT, program("server"), &text)
    }

    /// Starts a copy of another store.
    ///
    /// # Errors
    /// As [`Redis::start`], and when it does not become one.
    pub fn start_replica(host: &Host, master: &Self, more: &str) -> Result<Self> {
        let replica = Self::start(host, &format!("replicaof {} {}\n{more}", master.address, master.port))?;
        until_or_show(
            "the replica to follow",
            START,
            || replica.server.log(),
            || Ok(replica.ask(&["INFO", "replication"])?.contains("master_link_status:up").then_some(())),
        )?;
        Ok(replica)
    }

    /// Starts a Sentinel that watches a store and moves the master within seconds, if a number of Sentinels agree.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub fn start_sentinel(host: &Host, master: &Self, quorum: usize) -> Result<Self> {
        let text = format!(
            "port {SENTINEL_PORT}\nunixsocket /run/redis-{SENTINEL_PORT}.sock\n\
             sentinel monitor {MASTER} {} {} {quorum}\nsentinel down-after-milliseconds {MASTER} 1000\n\
             sentinel failover-timeout {MASTER} 5000\n",
            master.address, master.port
        );
        Self::launch(host, SENTINEL_PORT, program("sentinel"), &text)
    }

    fn launch(host: &Host, port: u16, program: PathBuf, text: &str) -> Result<Self> {
        let address = host.address(Family::V4)?;
        let config = format!("/etc/redis/{port}.conf");
        let text = format!("bind {address}\nprotected-mode no\ndaemonize no\nlogfile \"\"\ndir /var/lib/redis\n{text}");
        host.directory("/var/lib/redis", &crate::host::ROOT, 0o755)?;
        host.write(&config, &text)?;
        let server = host.spawn(host.command(&program).arg(&config))?;
        let password = text.lines().find_map(|line| line.strip_prefix("requirepass ")).map(str::to_owned);
        let mut redis = Self { host: host.clone(), address, port, config, program, server, password };
        redis.wait_until_it_answers()?;
        Ok(redis)
    }

    /// `HOST:PORT`
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// What it has printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Asks it something by its own client, over its Unix socket.
    ///
    /// # Errors
    /// When it does not answer, or answers with an error.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = self.host.command(program("cli"));
        command.args(["-e", "-s", &format!("/run/redis-{}.sock", self.port)]).args(words);
        if let Some(password) = &self.password {
            command.env("REDISCLI_AUTH", password);
        }
        let output = self.host.run(&mut command)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        Ok(text.trim_end().to_owned())
    }

    /// Kills it without a word.
    ///
    /// # Errors
    /// When the kernel does not say that it ended.
    pub fn kill9(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Starts it again after [`Redis::kill9`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.server = self.host.spawn(self.host.command(&self.program).arg(&self.config))?;
        self.wait_until_it_answers()
    }

    /// Stops it without a word to its clients: it accepts connections and never answers. [`Redis::wake`] lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sleep(&mut self) -> Result<()> {
        self.server.signal(Signal::STOP)
    }

    /// See [`Redis::sleep`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn wake(&mut self) -> Result<()> {
        self.server.signal(Signal::CONT)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let log = self.server.log_file().to_owned();
        let shown = || std::fs::read_to_string(&log).unwrap_or_default();
        let program = self.program.display().to_string();
        until_or_show(&format!("{program} to answer"), START, shown, || {
            let ended = self.server.ended().context("looking after the store")?;
            ensure!(ended.is_none(), "{program} ended at its start:\n{}", shown());
            Ok(self.ask(&["PING"]).ok().filter(|answer| answer == "PONG"))
        })?;
        Ok(())
    }
}
