//! A host with as many passes as are wanted, and what its daemon says of them.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::control::Control;
use crate::host::Host;
use crate::net::{Family, Net, Plan};
use crate::proc::memory;
use crate::redis::Redis;
use crate::screener::{Screener, command};

/// Between two looks at a process.
const PAUSE: Duration = Duration::from_micros(500);
/// Between two questions to a daemon: they are to see what it does, not to keep it from that.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(50);
/// How long anything at all may take with a million passes, on a slow machine.
const LIMIT: Duration = Duration::from_secs(300);

/// A stranger who comes beside something else, from where no pass is.
pub(super) const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 19, 255, 1));

/// A configuration in which a stranger is greeted at once and earns a pass by a clean session; with more tables.
pub(super) fn config(more: &str) -> String {
    format!(
        "hostname = \"mx.example.com\"\n[backend]\nafter_tests = \"defer\"\n[tests.pregreet]\nwait = \"0s\"\n\
         [kernel]\ninterfaces = [\"eth0\"]\n[ladder]\nenable = false\n[control]\ngroup = \"root\"\n{more}"
    )
}

/// So many passes as `pass dump` would write them: clients all over a quarter of the address space.
pub(super) fn dump(passes: u32) -> String {
    const UNTIL: &str = "2040-01-01T00:00:00Z";
    let mut text = "screener-passes 1 ipv6_prefix=64\n".to_owned();
    for number in 0..passes {
        let client = Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(11, 0, 0, 1)) + number * 1009);
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{client}\tcreated=2026-01-01T00:00:00Z\torigin=screened\tpregreet={UNTIL}\tdnsbl={UNTIL}\tpipelining={UNTIL}\t\
             non_smtp_command={UNTIL}\tbare_newline={UNTIL}"
        );
    }
    let _ = writeln!(text, "end {passes}");
    text
}

/// A host with its daemon.
pub(super) struct Mx {
    pub(super) host: Host,
    pub(super) screener: Screener,
    pub(super) server: SocketAddr,
}

/// A command that ran while somebody looked at it.
pub(super) struct Ran {
    pub(super) seconds: f64,
    /// The most memory that it held, in bytes.
    pub(super) peak: u64,
    /// By how much the daemon grew meanwhile, at most.
    pub(super) grown: u64,
}

impl Mx {
    pub(super) fn start(net: &Net, name: &str, address: &str, config: &str) -> Result<Self> {
        let host = net.host(&Plan { name, addresses: &[address], prefixes: &[] })?;
        let screener = Screener::start(&host, config)?;
        let server = SocketAddr::new(host.address(Family::V4)?, 25);
        Ok(Self { host, screener, server })
    }

    /// Runs a command that must succeed; what it prints is counted and thrown away.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<Ran> {
        let line = arguments.join(" ");
        let daemon = self.screener.id();
        let before = memory(daemon, "VmRSS")?;
        let begun = Instant::now();
        let mut command = command(&self.host, &[], arguments)?;
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().with_context(|| line.clone())?;
        let (mut peak, mut most) = (0, before);
        let status = loop {
            // One that is about to end says nothing any more.
            peak = peak.max(memory(child.id(), "VmHWM").unwrap_or(0));
            most = most.max(memory(daemon, "VmRSS")?);
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > LIMIT {
                child.kill()?;
            }
            thread::sleep(PAUSE);
        };
        let seconds = begun.elapsed().as_secs_f64();
        let mut said = String::new();
        child.stderr.take().context("what it said")?.read_to_string(&mut said)?;
        ensure!(status.success(), "screener {line}: {status}: {said}");
        Ok(Ran { seconds, peak, grown: most - before })
    }

    /// Waits until `status` shows what is wanted, and gives the seconds since.
    pub(super) fn wait_for(&self, begun: Instant, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<f64> {
        let mut control = Control::connect(&self.host)?;
        loop {
            let status = control.status()?;
            if wanted(&status) {
                return Ok(begun.elapsed().as_secs_f64());
            }
            ensure!(begun.elapsed() < LIMIT, "no {what} after {LIMIT:?}: {status}\n{}", self.screener.log());
            thread::sleep(BETWEEN_QUESTIONS);
        }
    }

    /// Waits until the kernel has so many passes.
    pub(super) fn wait_for_kernel(&self, begun: Instant, passes: u32) -> Result<f64> {
        self.wait_for(begun, "whole map in the kernel", |status| in_kernel(status) == Some(passes.into()))
    }
}

/// How many clients a store knows: of its keys two are others.
pub(super) fn known(store: &Redis) -> Result<u64> {
    let keys: u64 = store.ask(&["DBSIZE"])?.parse().context("how many keys there are")?;
    let others: u64 =
        store.ask(&["EXISTS", "screener:meta", "screener:news"])?.parse().context("how many are others")?;
    Ok(keys - others)
}

/// The passes of IPv4 clients that the kernel has.
pub(super) fn in_kernel(status: &Value) -> Option<u64> {
    let maps = status["kernel"]["passes"].as_array()?;
    maps.iter().find(|map| map["family"] == "ipv4")?["entries"].as_u64()
}
