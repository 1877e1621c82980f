//! The daemon under test on a host, and the questions that its commands answer.
//!
//! The one place that knows the commands' JSON. Never links the daemon's code: it drives the executable.

use std::env;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::host::Host;
use crate::net::Family;
use crate::proc::{Proc, memory};
use crate::wait::until_or_show;

const CONFIG_FILE: &str = "/etc/screener/screener.toml";
const START: Duration = Duration::from_secs(15);
const STOP: Duration = Duration::from_secs(40);
/// How long [`Screener::wait_for_degraded`] and its like wait.
const SOON: Duration = Duration::from_secs(25);

/// A configuration for tests: everything as it is by default, but for a short wait before the greeting, the one interface of
/// a host, and the offence ladder: tests have the same client fail again and again.
pub const USUAL: &str = r#"
hostname = "mx.example.com"
[tests.pregreet]
wait = "1s"
[kernel]
interfaces = ["eth0"]
[ladder]
enable = false
[control]
group = "root"
"#;

/// A configuration for tests of commands: with networks of its own and a permit, which guard rails see.
pub const GUARDED: &str = r#"
hostname = "mx.example.com"
[listen]
mode = "steer"
own_networks = ["127.0.0.0/8", "::1/128", "10.7.0.0/16"]
[kernel]
interfaces = ["eth0"]
[[permit]]
prefix = "192.0.2.128/25"
comment = "our own relays"
[control]
group = "root"
"#;

/// The daemon.
#[derive(Debug)]
pub struct Screener {
    host: Host,
    daemon: Proc,
    wrapper: Vec<String>,
    /// Daemons that another one has taken over from, and that may still have sessions.
    before: Vec<Proc>,
}

impl Screener {
    /// Writes the configuration and starts the daemon; it answers when this returns.
    ///
    /// # Errors
    /// When it is not built, or does not start.
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        Self::start_under(host, config, &[])
    }

    /// Like [`Screener::start`], through a program that changes what the daemon may do, such as setpriv(1), with its
    /// arguments.
    ///
    /// # Errors
    /// As [`Screener::start`].
    pub fn start_under(host: &Host, config: &str, wrapper: &[&str]) -> Result<Self> {
        host.write(CONFIG_FILE, config)?;
        let wrapper: Vec<String> = wrapper.iter().map(|&word| word.to_owned()).collect();
        let daemon = launch(host, &wrapper, &[])?;
        let mut screener = Self { host: host.clone(), daemon, wrapper, before: Vec::new() };
        screener.wait_until_it_answers()?;
        Ok(screener)
    }

    /// The daemon's process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.daemon.id()
    }

    /// What it has logged since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Waits for a log line that holds `pattern`, and gives it.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_for_log(&mut self, pattern: &str, timeout: Duration) -> Result<String> {
        self.daemon.wait_for_line(pattern, timeout)
    }

    /// Writes another configuration, which the daemon knows nothing of yet.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configure(&self, config: &str) -> Result<()> {
        self.host.write(CONFIG_FILE, config)
    }

    /// Writes another configuration and has the daemon take it in; gives what `reload` said.
    ///
    /// # Errors
    /// When the daemon refuses it.
    pub fn reload(&self, config: &str) -> Result<Value> {
        self.configure(config)?;
        self.json(&["reload", "--json"])
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.daemon.signal(signal)
    }

    /// The memory that it holds, in bytes: of its own, without the pages of its program, which come in as it first needs them.
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> Result<u64> {
        memory(self.daemon.id(), "RssAnon")
    }

    /// Kills it without a word.
    ///
    /// # Errors
    /// When the kernel does not say that it ended.
    pub fn kill9(&mut self) -> Result<()> {
        self.daemon.kill()
    }

    /// Tells it to stop, and waits.
    ///
    /// # Errors
    /// When it does not stop in time, or not with success.
    pub fn stop(&mut self) -> Result<()> {
        self.daemon.signal(Signal::TERM)?;
        let status = self.daemon.wait(STOP)?;
        ensure!(status.success(), "the daemon ended with {status}:\n{}", self.log());
        Ok(())
    }

    /// Starts it again after [`Screener::kill9`] or [`Screener::stop`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.begin()?;
        self.wait_until_it_answers()
    }

    /// As [`Screener::restart`], without waiting for anything.
    ///
    /// # Errors
    /// When it cannot be executed.
    pub fn begin(&mut self) -> Result<()> {
        self.daemon = launch(&self.host, &self.wrapper, &[])?;
        Ok(())
    }

    /// Starts another daemon, which takes the place of this one; it has when this returns.
    ///
    /// # Errors
    /// When it does not.
    pub fn take_over(&mut self) -> Result<()> {
        let new = launch(&self.host, &self.wrapper, &["--take-over"])?;
        self.before.push(std::mem::replace(&mut self.daemon, new));
        let pid = self.daemon.id();
        let log = self.daemon.log_file().to_owned();
        let evidence = || std::fs::read_to_string(&log).unwrap_or_default();
        until_or_show("the new daemon to answer", START, evidence, || {
            if let Some(status) = self.daemon.ended()? {
                bail!("the new daemon ended with {status}:\n{}", self.daemon.log());
            }
            // Before it stands the old one answers.
            let answer = self.cli(&["status", "--json"])?;
            let shown: Option<Value> = serde_json::from_slice(&answer.stdout).ok();
            Ok(shown.filter(|status| status["pid"] == pid).map(drop))
        })
    }

    /// Waits until the daemons before this one have ended, with success.
    ///
    /// # Errors
    /// When one does not.
    pub fn wait_for_predecessors(&mut self) -> Result<()> {
        for mut daemon in self.before.drain(..) {
            let status = daemon.wait(STOP)?;
            ensure!(status.success(), "a daemon that was replaced ended with {status}:\n{}", daemon.log());
        }
        Ok(())
    }

    /// Runs a command of the CLI.
    ///
    /// # Errors
    /// When it cannot be run; its exit code is no error here.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        self.host.run(&mut command(&self.host, &[], arguments)?)
    }

    /// Runs a command that must succeed, and gives what it printed.
    ///
    /// # Errors
    /// When its exit code is not 0.
    pub fn tell(&self, arguments: &[&str]) -> Result<String> {
        let output = self.cli(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "screener {}: {}: {said}", arguments.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command that prints JSON.
    ///
    /// # Errors
    /// When it ends with an error (exit code 2), or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.cli(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() != Some(2), "screener {}: {said}", arguments.join(" "));
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("screener {} prints no JSON: {said}", arguments.join(" ")))
    }

    /// Waits until `status` shows (or no longer shows) a degraded mode that holds a text.
    ///
    /// # Errors
    /// When it does not in time, or the daemon does not answer.
    pub fn wait_for_degraded(&self, part: &str, shown: bool) -> Result<()> {
        let what = format!("status {} {part:?}", if shown { "to show" } else { "to stop showing" });
        let look = || {
            let status = self.json(&["status", "--json"])?;
            let sentences = status["degraded"].as_array().cloned().unwrap_or_default();
            let found = sentences.iter().any(|sentence| sentence.as_str().is_some_and(|text| text.contains(part)));
            Ok((found == shown).then_some(()))
        };
        until_or_show(&what, SOON, || self.log(), look)
    }

    /// Sessions that reached the daemon.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn sessions(&self) -> Result<u64> {
        self.session_count("total")
    }

    /// Sessions that came by the listener of the tagged class.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn tagged_sessions(&self) -> Result<u64> {
        self.session_count("tagged")
    }

    /// Sessions that the MTA has taken from the daemon.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn sessions_handed_off(&self) -> Result<u64> {
        self.session_count("handed_off")
    }

    /// Clients with a pass.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn passes(&self) -> Result<u64> {
        let status = self.json(&["status", "--json"])?;
        status["passes"].as_u64().with_context(|| format!("no passes in {status}"))
    }

    fn session_count(&self, which: &str) -> Result<u64> {
        let status = self.json(&["status", "--json"])?;
        status["sessions"][which].as_u64().with_context(|| format!("no sessions.{which} in {status}"))
    }

    /// SYNs that XDP has dropped.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn dropped(&self, family: Family) -> Result<u64> {
        let status = self.json(&["status", "--json"])?;
        let counters = status["kernel"]["counters"].as_array().with_context(|| format!("no counters in {status}"))?;
        let wanted = counters.iter().filter(|counter| {
            counter["verdict"] == "drop"
                && counter["hook"] == "screen"
                && counter["family"] == family.pick("ipv4", "ipv6")
        });
        Ok(wanted.filter_map(|counter| counter["packets"].as_u64()).sum())
    }

    /// The hits of a deny entry.
    ///
    /// # Errors
    /// When there is no such entry.
    pub fn hits(&self, prefix: &str) -> Result<u64> {
        let denies = self.json(&["deny", "list", "--json"])?;
        let entries = denies.as_array().context("deny list is no array")?;
        let entry = entries.iter().find(|entry| entry["prefix"] == prefix);
        entry.and_then(|entry| entry["hits"].as_u64()).with_context(|| format!("no deny entry {prefix} in {denies}"))
    }

    /// Whether a client is among those that have passed.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn has_pass(&self, client: IpAddr) -> Result<bool> {
        let shown = self.explain(client)?;
        Ok(!shown["pass"].is_null())
    }

    /// Waits until the kernel gives a client to the MTA: it knows a pass a moment after the daemon.
    ///
    /// # Errors
    /// When it does not come to that in time.
    pub fn wait_for_kernel_pass(&self, client: IpAddr) -> Result<()> {
        let address = client.to_string();
        let look = || Ok(self.cli(&["kernel", "map", "get", "pass", &address])?.status.success().then_some(()));
        until_or_show(&format!("the kernel to know the pass of {client}"), SOON, || self.log(), look)
    }

    /// What `explain` says of a client.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub fn explain(&self, client: IpAddr) -> Result<Value> {
        self.json(&["explain", &client.to_string(), "--json"])
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let log = self.daemon.log_file().to_owned();
        let evidence = || std::fs::read_to_string(&log).unwrap_or_default();
        until_or_show("the daemon to answer", START, evidence, || {
            if let Some(status) = self.daemon.ended()? {
                bail!("the daemon ended with {status}:\n{}", self.daemon.log());
            }
            Ok(self.cli(&["status", "--json"])?.status.success().then_some(()))
        })
    }
}

fn launch(host: &Host, wrapper: &[String], more: &[&str]) -> Result<Proc> {
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let arguments = [&["run", "--config", CONFIG_FILE][..], more].concat();
    host.spawn(&mut command(host, &wrapper, &arguments)?)
}

/// A command of the executable on a host, through a program that changes what it may do, or none.
///
/// # Errors
/// When it is not built.
pub fn command(host: &Host, wrapper: &[&str], arguments: &[&str]) -> Result<Command> {
    let program = executable()?.display().to_string();
    let mut words = wrapper.iter().copied().chain([program.as_str()]).chain(arguments.iter().copied());
    let mut command = host.command(words.next().context("no program")?);
    command.args(words);
    Ok(command)
}

/// The daemon's executable: `SCREENER_BIN`, or the one built beside this one.
///
/// # Errors
/// When it is not there.
pub fn executable() -> Result<PathBuf> {
    let path = match env::var_os("SCREENER_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            let this = env::current_exe().context("the path of this executable")?;
            // A test executable lies in `deps`, one below.
            let mut places = this.ancestors().skip(1).take(2).map(|place| place.join("screener"));
            places.find(|path| path.exists()).unwrap_or_else(|| this.with_file_name("screener"))
        }
    };
    ensure!(path.exists(), "{} is not built: run `cargo build -p screener`, or `cargo xtask test`", path.display());
    path.canonicalize().with_context(|| path.display().to_string())
}
