//! The rival in XDP: xdp-filter of xdp-tools. It knows single addresses only, ten thousand of each family at most.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::{Map, MapData, PerCpuHashMap};

use super::receiver::Receiver;
use super::shared::Source;

/// Where it pins its maps.
const PINS: &str = "/sys/fs/bpf/xdp-filter";

/// Loads it, and puts the addresses in.
///
/// The first address of a family goes in by its own command; the others by copies of the map's value, since ten thousand
/// runs of a command would take minutes.
pub(crate) fn load(receiver: &Receiver, sources: &[Source]) -> Result<()> {
    let host = &receiver.host;
    host.ask("xdp-filter", &["load", "-m", "native", "-p", "allow", "-f", "ipv4,ipv6", "eth0"])?;
    receiver.attached_program()?;
    let mut v4 = BTreeSet::new();
    let mut v6 = BTreeSet::new();
    for source in sources {
        let [a, b, c, d, ..] = source.address;
        if source.family == 4 {
            v4.insert([a, b, c, d])
        } else {
            v6.insert(source.address)
        };
    }
    copy(receiver, &v4, "filter_ipv4", |address| Ipv4Addr::from(address).into())?;
    copy(receiver, &v6, "filter_ipv6", |address| Ipv6Addr::from(address).into())
}

fn copy<K: Pod + Ord + Hash>(
    receiver: &Receiver,
    addresses: &BTreeSet<K>,
    map: &str,
    shown: impl Fn(K) -> IpAddr,
) -> Result<()> {
    let Some(&first) = addresses.first() else { return Ok(()) };
    receiver.host.ask("xdp-filter", &["ip", "-m", "src", &shown(first).to_string()])?;
    let path = receiver.host.path(&Path::new(PINS).join(map).display().to_string());
    let data = MapData::from_pin(&path).with_context(|| path.display().to_string())?;
    let mut map = PerCpuHashMap::<_, K, u64>::try_from(Map::PerCpuHashMap(data))?;
    let value = map.get(&first, 0).context("the address that was put in")?;
    for address in addresses {
        let value = value.iter().copied().collect::<Vec<_>>().try_into().context("a value for each CPU")?;
        map.insert(address, value, 0).context("another address")?;
    }
    Ok(())
}
