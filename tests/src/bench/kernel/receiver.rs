//! The receiving ends: a host each, with one filter in front of it, and counters that tell what the filter did.
//!
//! All of them stay loaded while the rounds go from one to the next. They answer to the same Ethernet address, so that all
//! get the very same frames.

use std::fs;

use anyhow::{Context as _, Result, bail};

use super::netfilter;
use super::object::RECEIVER;
use super::traffic::Column;
use crate::ethtool;
use crate::host::Host;
use crate::net::{Net, Plan, ip};

/// What stands in front of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Filter {
    /// Nothing is received: frames are made, sent and refused by the wire. What the generator itself costs.
    DeadEnd,
    /// XDP that drops at once.
    EmptyDrop,
    /// XDP that passes at once.
    EmptyPass,
    /// Screener.
    Ours,
    /// nftables: netdev ingress, interval sets.
    Nftables,
    /// ipset hash:net in the raw table.
    Ipset,
    /// xdp-filter, with ten thousand addresses.
    XdpTools,
}

impl Filter {
    /// Its name in a row's name and in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DeadEnd => "generator",
            Self::EmptyDrop => "empty_drop",
            Self::EmptyPass => "empty_pass",
            Self::Ours => "ours",
            Self::Nftables => "nftables",
            Self::Ipset => "ipset",
            Self::XdpTools => "xdp_filter",
        }
    }

    /// Whether the frames of a column end here.
    pub(crate) fn drops(self, column: Column) -> bool {
        match self {
            Self::EmptyDrop => true,
            Self::EmptyPass | Self::DeadEnd => false,
            _ => column.is_dropped(),
        }
    }
}

/// A host behind a filter.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// What stands in front of it.
    pub(crate) filter: Filter,
    /// The host.
    pub(crate) host: Host,
    /// The number of the interface that leads to it, in the cell's own network namespace.
    pub(crate) wire: u32,
}

/// What has arrived until now, and what the filter has dropped of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Frames that came over the wire.
    pub(crate) received: u64,
    /// By the filter's own counters, or the driver's for XDP.
    pub(crate) dropped: u64,
}

impl Receiver {
    /// Makes the host; its filter is not there yet.
    pub(crate) fn new(net: &Net, filter: Filter) -> Result<Self> {
        let name = filter.name().replace('_', "-");
        let number = 100 + filter as u8;
        let (v4, v6) = (format!("192.0.2.{number}"), format!("2001:db8:25::{number}"));
        let host = net.host(&Plan { name: &name, addresses: &[&v4, &v6], prefixes: &[] })?;
        let mac = RECEIVER.map(|byte| format!("{byte:02x}")).join(":");
        host.in_ns(|| {
            ip(&format!("link set dev eth0 address {mac}\n"))?;
            match filter {
                Filter::DeadEnd => Ok(()),
                // A network card polls and batches, so a veth end must too.
                _ => ethtool::receive_in_batches("eth0"),
            }
        })?;
        let path = format!("/sys/class/net/to-{name}/ifindex");
        let wire = fs::read_to_string(&path).with_context(|| path.clone())?;
        Ok(Self { filter, host, wire: wire.trim().parse().with_context(|| path.clone())? })
    }

    /// Reads the counters.
    pub(crate) fn counts(&self) -> Result<Counts> {
        let all = self.host.in_ns(|| ethtool::counters("eth0"))?;
        let sum = |what: &str| {
            let of_queues = all.iter().filter(|(name, _)| name.starts_with("rx_queue_") && name.ends_with(what));
            of_queues.map(|(_, value)| value).sum::<u64>()
        };
        let dropped = match self.filter {
            Filter::Nftables => netfilter::dropped_by_nftables(&self.host)?,
            Filter::Ipset => netfilter::dropped_by_ipset(&self.host)?,
            _ => sum("_xdp_drops"),
        };
        Ok(Counts { received: sum("_xdp_packets"), dropped })
    }

    /// The program that is attached natively to the host's interface.
    pub(crate) fn attached_program(&self) -> Result<u32> {
        let shown = self.host.ask("ip", &["-json", "-details", "link", "show", "dev", "eth0"])?;
        let shown: serde_json::Value = serde_json::from_str(&shown).context("what ip shows")?;
        let xdp = &shown[0]["xdp"];
        if xdp["mode"] != 1 {
            bail!("{} is not attached natively: {xdp}", self.filter.name());
        }
        let id = xdp["prog"]["id"].as_u64().with_context(|| format!("no program in {xdp}"))?;
        u32::try_from(id).context("a program's number")
    }
}
