//! The bench of the kernel half: Screener beside an empty XDP program, nftables, ipset and xdp-filter, in one run.
//!
//! Every filter stands in front of a host of its own and holds the same list; the rounds go from one to the next, so that
//! whatever disturbs the machine disturbs them all. Nothing here judges a time: goals are printed beside the values, and
//! only a wrong verdict (a frame dropped that should pass, or the other way round) is a failure.
//!
//! # One core, and what the generator costs
//!
//! Frames are made by an XDP program that `BPF_PROG_TEST_RUN` runs in live mode, 64 at a time. They go over a veth, whose
//! other end receives them in a NAPI poll on the same core, before the next 64 are made. So the core is always busy, no
//! frame is ever lost, every run counts to the last frame, and nothing hangs on where a scheduler puts a thread: of two
//! cores, a threaded NAPI would leave one waiting for the other, and the slower of both would be measured. The price is
//! that a frame's time is the generator's and the receiver's together. The generator's own part is measured in the same
//! round, by sending the same frames to a wire whose other end does not poll and therefore refuses them, and is
//! subtracted. What is left is the receiver: the ring of the veth, its poll, the filter, and what comes behind it if the
//! filter passes the frame (the stack, up to the route, where it ends: the frames are for nobody). The sums are in the
//! report too, as `…_raw_ns`.
//!
//! The sources are drawn from the whole list and sent in random order, a quarter of a million of them, so that the caches
//! are as cold as in a flood. The running times of whole programs on one frame (`…_warm_ns`) are with warm caches, for
//! what code costs apart from memory.

mod bpf;
mod list;
mod live;
mod loops;
mod netfilter;
mod object;
mod ours;
mod ranked;
mod receiver;
mod report;
#[allow(dead_code, unreachable_pub, reason = "the programs use the rest of it")]
#[path = "../../../screener-ebpf/src/bench/shared.rs"]
mod shared;
mod traffic;
mod xdp_filter;

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{Options, Report};
use list::{Lists, Size};
use live::Live;
use loops::{Loops, Warm};
use object::{Filled, Object};
use ours::Ours;
use ranked::{Hashes, Table};
use receiver::{Filter, Receiver};

use crate::net::Net;

/// What follows from the options.
#[derive(Clone, Copy, Debug)]
struct Effort {
    size: Size,
    rounds: u32,
    /// Frames of a run.
    frames: u32,
}

impl Effort {
    /// Quick: a tenth of the list, few frames.
    fn of(options: &Options) -> Self {
        let effort = if options.quick {
            Effort { size: Size { v4: 100_000, v6: 10_000 }, rounds: 2, frames: 1 << 15 }
        } else {
            Effort { size: Size { v4: 1_000_000, v6: 100_000 }, rounds: 9, frames: 1 << 19 }
        };
        Effort { rounds: options.rounds.unwrap_or(effort.rounds).max(1), ..effort }
    }
}

// SAFETY: repr(C), integers only, without padding.
unsafe impl aya::Pod for shared::Job {}
// SAFETY: repr(C), a byte array and an integer without padding between.
unsafe impl aya::Pod for shared::Prefix6 {}

/// What each structure took to fill.
#[derive(Debug)]
struct Fills {
    ours: Ours,
    others: Vec<(&'static str, Filled)>,
}

/// Measures everything; must run inside a cell.
///
/// # Errors
/// When a filter that must be there cannot be set up. A wrong verdict is no error here but part of the report.
pub fn run(options: &Options) -> Result<Report> {
    let effort = Effort::of(options);
    let Size { v4, v6 } = effort.size;
    eprintln!("bench: a list of {v4} IPv4 and {v6} IPv6 prefixes");
    let lists = Lists::new(effort.size, 0x0025);
    let mut notes = Vec::new();

    let net = Net::new()?;
    let receiver = |filter| Receiver::new(&net, filter).with_context(|| format!("the host of {}", filter.name()));

    eprintln!("bench: screener");
    let ours = receiver(Filter::Ours)?;
    let loaded = ours::load(&ours.host, &lists).context("loading screener")?;
    notes.push(format!("ours was loaded by {}", loaded.how));
    let screen = bpf::program_by_id(ours.attached_program()?)?;

    eprintln!("bench: the kernel's tries and the ranked table");
    let start = Instant::now();
    let (table, hashes) = (Table::new(&lists.ranges4), Hashes::new(&lists.v6));
    let built = start.elapsed();
    let mut object = Object::load(&loaded.pins, &table, &hashes, &lists)?;
    object.fill_sources(&lists)?;
    let mut others = vec![
        ("trie", object.fill_tries(&lists).context("filling the tries")?),
        ("ranked", object.fill_ranked(&table, &hashes, built).context("filling the ranked table")?),
    ];

    let dead_end = receiver(Filter::DeadEnd)?;
    let (drop, pass) = (receiver(Filter::EmptyDrop)?, receiver(Filter::EmptyPass)?);
    drop.host.in_ns(|| object.attach(shared::programs::EMPTY_DROP, "eth0"))?;
    pass.host.in_ns(|| object.attach(shared::programs::EMPTY_PASS, "eth0"))?;

    eprintln!("bench: nftables");
    let nftables = receiver(Filter::Nftables)?;
    others.push(("nftables", netfilter::load_nftables(&nftables.host, &lists).context("loading nftables")?));
    eprintln!("bench: ipset");
    let ipset = receiver(Filter::Ipset)?;
    others.push(("ipset", netfilter::load_ipset(&ipset.host, &lists).context("loading ipset")?));
    let mut receivers = vec![dead_end, drop, pass, ours, nftables, ipset];

    let filter = receiver(Filter::XdpTools)?;
    match xdp_filter::load(&filter, &traffic::few(&lists)) {
        Ok(()) => {
            notes.push(format!(
                "xdp-filter holds {} single addresses, its limit, and is sent those alone",
                traffic::FEW
            ));
            receivers.push(filter);
        }
        Err(why) => notes.push(format!("xdp-filter is left out: {why:#}")),
    }

    settle()?;
    let (mut live, mut loops, mut warm) = (Live::default(), Loops::default(), Warm::default());
    for round in 0..effort.rounds {
        eprintln!("bench: round {} of {}", round + 1, effort.rounds);
        live.round(&mut object, &receivers, effort.frames, round as usize)?;
        loops.round(&mut object)?;
        warm.round(&mut object, &screen)?;
    }
    notes.push(live.losses());
    Ok(report::make(&effort, &live, &loops, &warm, &Fills { ours: loaded, others }, notes))
}

/// Keeps this thread, and with it every frame, on one core, before everybody else who wants it.
fn settle() -> Result<()> {
    let cores = rustix::thread::sched_getaffinity(None).context("the cores of this process")?;
    // The last one: the first is where most interrupts arrive.
    let last = (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|&core| cores.is_set(core)).context("no core")?;
    let mut one = rustix::thread::CpuSet::new();
    one.set(last);
    rustix::thread::sched_setaffinity(None, &one).context("staying on one core")?;
    rustix::process::setpriority_process(None, -20).context("going first on it")
}
