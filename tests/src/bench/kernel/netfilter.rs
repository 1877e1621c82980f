//! The rivals in netfilter: nftables and ipset, with the same list.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::bpf;
use super::list::Lists;
use super::object::{Filled, mib};
use crate::host::Host;

/// The longest that one of the tools may take over a million entries, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// A chain at netdev ingress, which is the first place where nftables sees a packet. The sets get ranges that do not
/// overlap: nftables refuses others.
pub(crate) fn load_nftables(host: &Host, lists: &Lists) -> Result<Filled> {
    let mut text = String::from(
        "table netdev bench {\n  counter dropped { }\n  set v4 { type ipv4_addr; flags interval; elements = {",
    );
    for &(first, last) in &lists.ranges4 {
        range(&mut text, &Ipv4Addr::from(first), &Ipv4Addr::from(last));
    }
    text.push_str("} }\n  set v6 { type ipv6_addr; flags interval; elements = {");
    for &(first, last) in &lists.ranges6 {
        range(&mut text, &Ipv6Addr::from(first), &Ipv6Addr::from(last));
    }
    text.push_str("} }\n  chain ingress {\n    type filter hook ingress device \"eth0\" priority 0; policy accept;\n");
    for rule in ["meta protocol ip", "meta protocol ip6"] {
        let set = if rule.ends_with('6') { "ip6 saddr @v6" } else { "ip saddr @v4" };
        let _ = writeln!(
            text,
            "    {rule} tcp dport 25 tcp flags & (fin|syn|rst|ack) == syn {set} counter name dropped drop"
        );
    }
    text.push_str("  }\n}\n");
    host.write("/run/bench.nft", &text)?;
    let before = bpf::kernel_memory()?;
    let seconds = tool(host, "nft -f /run/bench.nft")?;
    Ok(Filled { seconds, mib: mib(bpf::kernel_memory()?.saturating_sub(before)) })
}

fn range<A: std::fmt::Display + PartialEq>(text: &mut String, first: &A, last: &A) {
    // Writing to a string cannot fail.
    let _ = if first == last { write!(text, "{first},") } else { write!(text, "{first}-{last},") };
}

/// What the chain has dropped.
pub(crate) fn dropped_by_nftables(host: &Host) -> Result<u64> {
    // Any narrower question makes nft fetch every element of the sets first, which takes it longer than the run.
    let shown = host.ask("nft", &["--terse", "list", "ruleset"])?;
    number_after(&shown, "packets").with_context(|| format!("no packets in {shown:?}"))
}

/// Two sets of prefixes, and a rule in the raw table, which is the first place where iptables sees a packet.
pub(crate) fn load_ipset(host: &Host, lists: &Lists) -> Result<Filled> {
    let mut text = String::new();
    for (set, family, count) in [("v4", "inet", lists.v4.len()), ("v6", "inet6", lists.v6.len())] {
        // Of the size that it would grow to, so that growing costs nothing.
        let size = (count / 4).next_power_of_two().max(64);
        let _ = writeln!(text, "create {set} hash:net family {family} hashsize {size} maxelem {}", count + 1);
    }
    for &(first, length) in &lists.v4 {
        let _ = writeln!(text, "add v4 {}/{length}", Ipv4Addr::from(first));
    }
    for &(first, length) in &lists.v6 {
        let _ = writeln!(text, "add v6 {}/{length}", Ipv6Addr::from(first));
    }
    host.write("/run/bench.ipset", &text)?;
    let seconds = tool(host, "ipset restore -f /run/bench.ipset")?;
    for (program, set) in [("iptables", "v4"), ("ip6tables", "v6")] {
        let rule = format!("-t raw -A PREROUTING -p tcp --dport 25 --syn -m set --match-set {set} src -j DROP");
        host.ask(program, &rule.split(' ').collect::<Vec<_>>())?;
    }
    let shown = host.ask("ipset", &["list", "-terse"])?;
    let bytes = shown.lines().filter_map(|line| line.strip_prefix("Size in memory:")?.trim().parse::<u64>().ok());
    Ok(Filled { seconds, mib: mib(bytes.sum()) })
}

/// What both rules have dropped.
pub(crate) fn dropped_by_ipset(host: &Host) -> Result<u64> {
    let mut dropped = 0;
    for program in ["iptables", "ip6tables"] {
        let shown = host.ask(program, &["-t", "raw", "-nvxL", "PREROUTING"])?;
        let rule = shown.lines().find(|line| line.contains("match-set")).context("the rule is gone")?;
        let packets = rule.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        dropped += packets.with_context(|| format!("no packets in {rule:?}"))?;
    }
    Ok(dropped)
}

/// Runs a command line to its end, and tells how long it took.
fn tool(host: &Host, line: &str) -> Result<f64> {
    let mut words = line.split(' ');
    let program = words.next().context("no program")?;
    let start = Instant::now();
    let mut process = host.spawn(host.command(program).args(words))?;
    let status = process.wait(LIMIT)?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{line}: {status}:\n{}", process.log());
    Ok(seconds)
}

/// The number that follows a word.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let (_, rest) = text.split_once(word)?;
    rest.split_whitespace().next()?.parse().ok()
}
