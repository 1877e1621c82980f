//! DNS lists: a real rbldnsd on a host.
//!
//! Every zone answers for both families and has its RFC 5782 test points. Never returns from a change before the
//! change can be seen in an answer.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::dns::{self, Answer, Kind};
use crate::host::Host;
use crate::net::Family;
use crate::proc::Proc;
use crate::wait::until_or_show;

const DIRECTORY: &str = "/var/lib/rbldns";

/// How long the server has to start or to show a change.
const CHANGE: Duration = Duration::from_secs(15);

/// How long an answer may take: the machine may be busy.
const ANSWER: Duration = Duration::from_secs(10);

/// How long an answer is waited for that is not to come, or that is asked for again.
const SILENCE: Duration = Duration::from_millis(500);

/// The lists of a lab, served by one rbldnsd.
#[derive(Debug)]
pub struct Dnsl {
    host: Host,
    server: Proc,
    zones: BTreeMap<String, Zone>,
    changes: u64,
}

/// The entries of a zone: prefix or address, and the A record it answers with.
type Zone = BTreeMap<String, Ipv4Addr>;

impl Dnsl {
    /// Starts the server with empty zones (but for their test points) on every address of the host; it answers when
    /// this returns.
    ///
    /// # Errors
    /// When rbldnsd is not installed or does not start.
    pub fn start(host: &Host, zones: &[&str]) -> Result<Self> {
        ensure!(!zones.is_empty(), "a DNS list has at least one zone");
        let zones: BTreeMap<String, Zone> = zones.iter().map(|zone| ((*zone).to_owned(), Zone::new())).collect();
        for (name, zone) in &zones {
            write(host, name, zone, 0)?;
        }
        let sets = zones.keys().flat_map(|name| {
            [("ip4set", Family::V4), ("ip6trie", Family::V6)]
                .map(|(kind, family)| format!("{name}:{kind}:{}", file(name, family)))
        });
        let mut lists = Self { host: host.clone(), server: run(host, sets)?, zones, changes: 0 };
        let names: Vec<String> = lists.zones.keys().cloned().collect();
        lists.wait_for_start(&names)?;
        Ok(lists)
    }

    /// Starts the server with zones that never change, each with its data sets by their kinds: `("bl.test", "ip4trie", text)`.
    /// Every zone must have the test point 127.0.0.2.
    ///
    /// # Errors
    /// When rbldnsd is not installed or does not start.
    pub fn serve(host: &Host, sets: &[(&str, &str, &str)]) -> Result<Self> {
        let mut arguments = Vec::new();
        for (number, (zone, kind, text)) in sets.iter().enumerate() {
            host.write(&format!("{DIRECTORY}/set.{number}"), text)?;
            arguments.push(format!("{zone}:{kind}:set.{number}"));
        }
        let server = run(host, arguments)?;
        let mut lists = Self { host: host.clone(), server, zones: BTreeMap::new(), changes: 0 };
        let names: Vec<String> = sets.iter().map(|(zone, ..)| (*zone).to_owned()).collect();
        lists.wait_for_start(&names)?;
        Ok(lists)
    }

    /// The address it answers at, in a family.
    ///
    /// # Errors
    /// When its host has none.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        self.host.address(family)
    }

    /// Puts an address or prefix on a list, with the A record it is to answer.
    ///
    /// # Errors
    /// When there is no such zone, or when the server does not show the entry in time.
    pub fn list(&mut self, zone: &str, prefix: &str, answer: Ipv4Addr) -> Result<()> {
        self.change(zone, prefix, Some(answer))
    }

    /// Takes an entry off a list.
    ///
    /// # Errors
    /// When there is no such zone, or when the server still shows the entry after a while.
    pub fn unlist(&mut self, zone: &str, prefix: &str) -> Result<()> {
        self.change(zone, prefix, None)
    }

    /// Asks about an address.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn lookup(&self, zone: &str, address: IpAddr, kind: Kind) -> Result<Answer> {
        self.ask(&dns::listed_name(address, zone), kind)
    }

    /// Asks about a name, from the server's own host.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&self, name: &str, kind: Kind) -> Result<Answer> {
        self.ask_within(name, kind, ANSWER)
    }

    /// Whether nobody answers about an address.
    #[must_use]
    pub fn is_silent(&self, zone: &str, address: IpAddr) -> bool {
        self.ask_within(&dns::listed_name(address, zone), Kind::A, SILENCE).is_err()
    }

    fn ask_within(&self, name: &str, kind: Kind, limit: Duration) -> Result<Answer> {
        let own = self.host.addresses().first().context("an address")?;
        dns::ask(&self.host, SocketAddr::new(*own, 53), name, kind, limit)
    }

    /// How many queries about an address the log of the server has.
    #[must_use]
    pub fn queries(&self, zone: &str, address: IpAddr) -> usize {
        self.server.log().matches(&dns::listed_name(address, zone)).count()
    }

    /// Stops the server without a word to those who ask: the silent list. [`Dnsl::wake`] lets it answer again.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sleep(&mut self) -> Result<()> {
        self.server.signal(Signal::STOP)
    }

    /// See [`Dnsl::sleep`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn wake(&mut self) -> Result<()> {
        self.server.signal(Signal::CONT)
    }

    fn change(&mut self, zone: &str, prefix: &str, entry: Option<Ipv4Addr>) -> Result<()> {
        let entries = self.zones.get_mut(zone).with_context(|| format!("no zone {zone:?} is served here"))?;
        match entry {
            Some(answer) => entries.insert(prefix.to_owned(), answer),
            None => entries.remove(prefix),
        };
        self.changes += 1;
        write(&self.host, zone, entries, self.changes)?;
        self.server.signal(Signal::HUP)?;
        let first = first_address(prefix)?;
        let what = format!("{zone} to answer {entry:?} about {first}");
        let log = || self.server.log();
        until_or_show(&what, CHANGE, log, || {
            let seen = self.ask_within(&dns::listed_name(first, zone), Kind::A, SILENCE).ok();
            let seen = seen.map(|answer| answer.addresses.first().copied());
            Ok((seen == Some(entry)).then_some(()))
        })
    }

    fn wait_for_start(&mut self, zones: &[String]) -> Result<()> {
        let log = self.server.log_file().to_owned();
        let shown = || std::fs::read_to_string(&log).unwrap_or_default();
        for zone in zones {
            let what = format!("rbldnsd to answer for {zone}");
            until_or_show(&what, CHANGE, shown, || {
                let ended = self.server.ended()?;
                ensure!(ended.is_none(), "rbldnsd ended at its start:\n{}", shown());
                let point = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
                let answer = self.ask_within(&dns::listed_name(point, zone), Kind::A, SILENCE).ok();
                Ok(answer.filter(|answer| !answer.addresses.is_empty()))
            })?;
        }
        Ok(())
    }
}

/// Runs the server in the foreground, with changes on request only, and every query in its log.
fn run(host: &Host, sets: impl IntoIterator<Item = String>) -> Result<Proc> {
    let mut command = host.command("rbldnsd");
    command.args(["-n", "-c", "0", "-l", "+-", "-w", DIRECTORY]);
    for address in host.addresses() {
        command.args(["-b", &format!("{address}/53")]);
    }
    host.spawn(command.args(sets))
}

fn file(zone: &str, family: Family) -> String {
    format!("{zone}.{}", family.pick("ip4", "ip6"))
}

fn write(host: &Host, name: &str, zone: &Zone, change: u64) -> Result<()> {
    for family in Family::BOTH {
        let mut text = format!(
            "$SOA 60 ns.{name} hostmaster.{name} 0 1h 10m 1d 60\n\
             $NS 60 ns.{name}\n\
             $TTL 60\n\
             :127.0.0.2:Listed by {name}, see https://{name}/$\n"
        );
        text += family.pick("127.0.0.2\n", "::ffff:7f00:2\n");
        for (prefix, answer) in zone {
            if prefix.contains(':') == (family == Family::V6) {
                text += &format!("{prefix} :{answer}:Listed by {name}, see https://{name}/$\n");
            }
        }
        let path = format!("{DIRECTORY}/{}", file(name, family));
        host.write(&path, &text)?;
        // The server compares whole seconds; two changes within one must differ.
        let time = SystemTime::now() + Duration::from_secs(change);
        File::options()
            .write(true)
            .open(host.path(&path))
            .and_then(|file| file.set_modified(time))
            .with_context(|| format!("dating {path}"))?;
    }
    Ok(())
}

fn first_address(prefix: &str) -> Result<IpAddr> {
    let address = prefix.split('/').next().unwrap_or_default();
    address.parse().with_context(|| format!("{prefix:?} as a prefix"))
}
