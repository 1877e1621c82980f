//! Screener itself, with the list loaded, as an operator would: the one place that knows how.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::bpf::{self, Cost};
use super::list::Lists;
use super::object::mib;
use crate::host::Host;
use crate::proc::Proc;
use crate::screener::executable;
use crate::wait::until_or_show;

/// The default of `kernel.pin`.
const PINS: &str = "/sys/fs/bpf/screener";

/// The longest that loading may take, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// Pinned maps that have no part in the deny set.
const OTHERS: [&str; 6] = ["PERMIT", "PASS", "SETTINGS", "SOCKETS", "COUNTERS", "EVENTS"];

/// A screener that is attached.
#[derive(Debug)]
pub(crate) struct Ours {
    /// The directory of its pinned maps.
    pub(crate) pins: PathBuf,
    /// From the parsed list to the kernel, if the screener says so itself.
    pub(crate) fill_seconds: Option<f64>,
    /// The whole of it: reading the file too.
    pub(crate) load_seconds: f64,
    /// Kernel memory of the deny set.
    pub(crate) fill_mib: f64,
    /// How it was loaded.
    pub(crate) how: &'static str,
    _daemon: Option<Proc>,
}

/// Attaches a screener natively to `eth0` of a host, with the list as its denies.
pub(crate) fn load(host: &Host, lists: &Lists) -> Result<Ours> {
    let before = bpf::kernel_memory()?;
    let (load_seconds, said, how, daemon) = if has_verb(host, "attach")? && has_verb(host, "map")? {
        let (seconds, said) = by_command(host, lists)?;
        (seconds, said, "kernel attach, kernel map restore", None)
    } else {
        let (seconds, daemon) = by_daemon(host, lists)?;
        (seconds, daemon.log(), "a daemon with a [[deny]] entry for each prefix", Some(daemon))
    };
    let grown = bpf::kernel_memory()?.saturating_sub(before);
    let pins = map_pins(host)?;
    let cost = deny_cost(&pins)?;
    // Of a trie the kernel counts half the nodes: so what has gone, instead.
    let bytes = if cost.too_low { grown.max(cost.bytes) } else { cost.bytes };
    Ok(Ours { pins, fill_seconds: reported_seconds(&said), load_seconds, fill_mib: mib(bytes), how, _daemon: daemon })
}

fn has_verb(host: &Host, verb: &str) -> Result<bool> {
    Ok(host.run(host.command(executable()?).args(["kernel", verb, "--help"]))?.status.success())
}

/// Without a daemon: `screener kernel attach`, then the file.
fn by_command(host: &Host, lists: &Lists) -> Result<(f64, String)> {
    let screener = executable()?;
    let screener = screener.to_str().context("the path of the daemon")?;
    host.ask(screener, &["kernel", "attach", "--interface", "eth0", "--xdp", "native", "--port", "25"])?;
    host.write("/run/bench.list", &lists.text())?;
    let start = Instant::now();
    let restore = ["kernel", "map", "restore", "--map", "deny", "--force", "/run/bench.list"];
    let mut process = host.spawn(host.command(screener).args(restore))?;
    let status = process.wait(LIMIT)?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(status.success(), "kernel map restore: {status}:\n{}", process.log());
    Ok((seconds, process.log()))
}

/// With a daemon, which reads the list from its configuration.
fn by_daemon(host: &Host, lists: &Lists) -> Result<(f64, Proc)> {
    const CONFIG: &str = "/etc/screener/screener.toml";
    let mut text = String::from("[kernel]\ninterfaces = [\"eth0\"]\nxdp = \"native\"\n");
    let entry = |text: &mut String, address: &dyn std::fmt::Display, length: u8| {
        text.push_str(&format!("[[deny]]\nprefix = \"{address}/{length}\"\naction = \"drop\"\n"));
    };
    for &(first, length) in &lists.v4 {
        entry(&mut text, &Ipv4Addr::from(first), length);
    }
    for &(first, length) in &lists.v6 {
        entry(&mut text, &Ipv6Addr::from(first), length);
    }
    host.write(CONFIG, &text)?;
    let start = Instant::now();
    let mut daemon = host.spawn(host.command(executable()?).args(["run", "--config", CONFIG]))?;
    let log = daemon.log_file().to_owned();
    until_or_show(
        "the daemon to answer",
        LIMIT,
        || fs::read_to_string(&log).unwrap_or_default(),
        || {
            if let Some(status) = daemon.ended()? {
                bail!("the daemon ended with {status}:\n{}", daemon.log());
            }
            let asked = host.run(host.command(executable()?).args(["status", "--json"]))?;
            Ok(asked.status.success().then_some(()))
        },
    )?;
    Ok((start.elapsed().as_secs_f64(), daemon))
}

/// The directory of the maps: one of the pin directory, named after the version of the ABI.
fn map_pins(host: &Host) -> Result<PathBuf> {
    let pins = host.path(PINS);
    let entries = fs::read_dir(&pins).with_context(|| pins.display().to_string())?;
    let mut directories = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
    directories.next().with_context(|| format!("no maps under {}", pins.display()))
}

fn deny_cost(pins: &Path) -> Result<Cost> {
    let mut cost = Cost::default();
    for entry in fs::read_dir(pins).with_context(|| pins.display().to_string())?.flatten() {
        let name = entry.file_name();
        if !OTHERS.iter().any(|other| name.to_string_lossy().starts_with(other)) {
            cost = cost.and(Cost::of_pin(&entry.path())?);
        }
    }
    Ok(cost)
}

/// The seconds that the screener itself names for filling the kernel's tables: "in 0.31 s" or "in 310 ms".
fn reported_seconds(said: &str) -> Option<f64> {
    let mut words = said.split_whitespace().map(|word| word.trim_matches([',', ';', '(', ')', ':']));
    let mut found = None;
    while let Some(word) = words.next() {
        if word != "in" {
            continue;
        }
        let Some(Ok(number)) = words.next().map(str::parse::<f64>) else { continue };
        match words.next().map(|unit| unit.trim_end_matches('.')) {
            Some("s") => found = Some(number),
            Some("ms") => found = Some(number / 1000.0),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_from_what_the_screener_says() {
        assert_eq!(reported_seconds("1100000 entries filled in 0.31 s"), Some(0.31));
        assert_eq!(reported_seconds("read in 2 s, in the kernel in 310 ms."), Some(0.31));
        assert_eq!(reported_seconds("nothing of the kind in it"), None);
    }
}
