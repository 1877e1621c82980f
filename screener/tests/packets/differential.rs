//! The kernel as the reference parser: what `screen` lets through, `steer` sees as the stack has understood it. So a SYN
//! of a denied source that arrives there was missed, and must be one that may be; and whoever is dropped must be denied.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etherparse::{LaxSlicedPacket, TransportSlice};
use ipnet::IpNet;
use screener::feed::{DenyAction, StaticAction};
use screener::kernel::{Event, EventStream, Hook, Kernel, Verdict, XdpPolicy};
use screener_ebpf::Counter;
use screener_ebpf::parse::syn;
use screener_tests::cell;
use screener_tests::frames::{Reads, socket};
use screener_tests::listener::port_25;
use screener_tests::net::{MX, Net};
use socket2::Socket;

use super::mutant::{Dice, attempt, plain};
use super::{options, take_known_mac};

const SEED: u64 = 0x5c4e_e4e4_2026_1125;
const BATCHES: u32 = 30;
/// So few that all their events fit into the ring at once.
const BATCH: u32 = 400;
const SOON: Duration = Duration::from_secs(10);

const DENIED: [&str; 2] = ["10.0.0.0/8", "2001:db8:d::/48"];
/// Within the denied ones.
const PERMITTED: [&str; 2] = ["10.128.0.0/9", "2001:db8:d:8000::/49"];

#[test]
fn screen_and_the_kernel_agree_about_what_a_syn_is() {
    cell::test("differential::screen_and_the_kernel_agree_about_what_a_syn_is", || {
        let internet = Net::internet_and_mx_here()?;
        let _mta = port_25()?;
        take_known_mac()?;
        let kernel = Kernel::start(&options(XdpPolicy::Native))?;
        for (prefixes, action) in [(DENIED, StaticAction::Deny(DenyAction::Drop)), (PERMITTED, StaticAction::Permit)] {
            for prefix in prefixes {
                kernel.put_static(prefix.parse()?, action)?;
            }
        }
        let sender = Socket::from(socket(&internet, Reads::Nothing)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut seen = Seen::default();
        runtime.block_on(async {
            let mut events = kernel.events()?;
            let mut dice = Dice::new(SEED);
            for batch in 0..BATCHES {
                let mut frames = Vec::new();
                for number in 0..BATCH {
                    let (source, server) = ends(&mut dice, batch * BATCH + number)?;
                    frames.extend(attempt(&mut dice, source, server));
                }
                let last = Ipv4Addr::from(0x0aff_0000 + batch);
                for frame in frames.iter().chain([&plain(last.octets(), MX.addresses[0].parse::<Ipv4Addr>()?.octets())])
                {
                    // One that is too short to be a frame does not get onto the wire.
                    if sender.send(frame).is_err() {
                        seen.unsent += 1;
                    }
                }
                seen.take(&mut events, last.into(), &frames).await.with_context(|| format!("in batch {batch}"))?;
            }
            anyhow::Ok(())
        })?;
        println!("seed {SEED:#x}: {seen:?}");
        seen.is_worth_something()
    });
}

/// A source for attempt number `number`, unlike all others, and the server of its family.
fn ends(dice: &mut Dice, number: u32) -> Result<(IpAddr, IpAddr)> {
    let six = dice.below(2) == 1;
    let kind = dice.below(8);
    let source: IpAddr = if six {
        let upper: u128 = match kind {
            0 => 0x2001_0db8_000d_8000,
            1 => 0x2001_0db8_000e_0000,
            _ => 0x2001_0db8_000d_0000,
        };
        Ipv6Addr::from(upper << 64 | 0x7700_0000_0000_0000 | u128::from(number)).into()
    } else {
        let upper = match kind {
            0 => 0x0a80_0000,
            1 => 0xac10_0000,
            _ => 0x0a00_0000,
        };
        Ipv4Addr::from(upper + number).into()
    };
    Ok((source, MX.addresses[usize::from(six)].parse()?))
}

/// What was seen of all the frames.
#[derive(Debug, Default)]
struct Seen {
    unsent: usize,
    dropped: usize,
    permitted: usize,
    /// What reached `steer` of denied sources, by the reason that `screen` had to let it through.
    missed: BTreeMap<&'static str, usize>,
}

impl Seen {
    /// Takes in the events of a batch, up to that of the SYN from `last`.
    async fn take(&mut self, events: &mut EventStream, last: IpAddr, frames: &[Vec<u8>]) -> Result<()> {
        loop {
            let event = tokio::time::timeout(SOON, events.next()).await.context("the last event does not come")?;
            let event = event.context("no more events")?;
            let denied = within(event.address, DENIED)? && !within(event.address, PERMITTED)?;
            match (event.hook, event.verdict) {
                (Hook::Screen, Verdict::Drop) => {
                    ensure!(denied, "{} is dropped, but not denied: {event:?}", event.address);
                    self.dropped += 1;
                }
                (Hook::Steer, Verdict::Pass) => {
                    ensure!(within(event.address, PERMITTED)?, "{event:?}");
                    self.permitted += 1;
                    if event.address == last {
                        return Ok(());
                    }
                }
                (Hook::Steer, Verdict::Reject) => {
                    ensure!(denied, "{event:?}");
                    *self.missed.entry(explain(&event, frames)?).or_default() += 1;
                }
                _ => ensure!(false, "nobody asked for that: {event:?}"),
            }
        }
    }

    /// Too few of something, and the comparison shows nothing.
    fn is_worth_something(&self) -> Result<()> {
        ensure!(self.dropped > 3000, "few were dropped: {self:?}");
        ensure!(self.permitted > 400, "few got as far as steer: {self:?}");
        for reason in [Counter::NotSyn, Counter::VlanDepth, Counter::HeaderDepth] {
            ensure!(self.missed.get(reason.name()).is_some_and(|&count| count > 5), "none for {reason:?}: {self:?}");
        }
        Ok(())
    }
}

/// Why `screen` let through what `steer` tells of.
fn explain(event: &Event, frames: &[Vec<u8>]) -> Result<&'static str> {
    let octets = match event.address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let of_source: Vec<_> =
        frames.iter().filter(|frame| frame.windows(octets.len()).any(|part| part == octets)).collect();
    for frame in &of_source {
        let Err(unjudged) = syn(&frame[..]) else { continue };
        match unjudged.counter {
            // More than it follows: documented, and why `steer` asks the lists again.
            Counter::VlanDepth | Counter::HeaderDepth => return Ok(unjudged.counter.name()),
            // No SYN at all: a segment out of nowhere is looked up, too. Not by our own parser alone.
            Counter::NotSyn if !is_syn_to_others(frame) => return Ok(unjudged.counter.name()),
            _ => {}
        }
    }
    let outcomes: Vec<_> = of_source.iter().map(|frame| (syn(&frame[..]), hex(frame))).collect();
    anyhow::bail!("screen missed a SYN from {}: {event:?}, one of {outcomes:?}", event.address)
}

fn is_syn_to_others(frame: &[u8]) -> bool {
    let packet = LaxSlicedPacket::from_ethernet(frame);
    matches!(packet.map(|packet| packet.transport), Ok(Some(TransportSlice::Tcp(tcp))) if tcp.syn() && !tcp.ack() && !tcp.rst())
}

fn within(address: IpAddr, prefixes: [&str; 2]) -> Result<bool> {
    for prefix in prefixes {
        if prefix.parse::<IpNet>()?.contains(&address) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
