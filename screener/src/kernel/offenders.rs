//! The offenders in the kernel: who is kept out for a while, until when, and how often they came meanwhile.
//!
//! Holds the mirror of those on the ladder's highest rung, and the two flags by which the programs know whether anybody is
//! there at all. Never decides who has to be.

use std::collections::HashMap as StdHashMap;
use std::hash::Hash;
use std::path::Path;

use aya::maps::{HashMap, MapData, MapError};
use aya::{Ebpf, Pod};
use ipnet::IpNet;
use screener_ebpf::{self as abi, Offender, OffenderKey4, OffenderKey6, Settings};

use super::boot::BootClock;
use super::error::{KernelError, found, removed};
use super::load;
use super::pin::PinDirectory;
use super::statics::SyncReport;
use crate::client::Ipv6KeyLength;
use crate::clock::UnixTime;

/// Two conversions of the same second differ by what passes between reading the two clocks.
const SAME_NS: u64 = 1_000_000_000;

/// How many bits an IPv6 client has among the keys, whatever the length of its key.
const CLIENT6: u8 = 128;

/// One who is kept out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptOut {
    /// The client, or the prefix.
    pub network: IpNet,
    /// Until when.
    pub until: UnixTime,
    /// How often it came since.
    pub hits: u64,
    /// When it last came.
    pub last_hit: Option<UnixTime>,
}

/// A key, of either family.
#[derive(Clone, Copy)]
enum Key {
    V4(OffenderKey4),
    V6(OffenderKey6),
}

/// The key of a network: of a client, or else of a prefix.
fn key(network: IpNet, client: Ipv6KeyLength) -> Key {
    match network {
        IpNet::V4(net) => Key::V4(abi::offender_key4(net.addr().octets(), net.prefix_len())),
        IpNet::V6(net) => {
            let bits = if net.prefix_len() < client.bits() { net.prefix_len() } else { CLIENT6 };
            Key::V6(abi::offender_key6(net.addr().octets(), bits))
        }
    }
}

/// The network of a key; `None`: nobody of this version wrote it.
fn network(key: Key, client: Ipv6KeyLength) -> Option<IpNet> {
    match key {
        Key::V4([a, b, c, d, bits, ..]) => IpNet::new([a, b, c, d].into(), bits).ok(),
        Key::V6(key) => {
            let (address, bits) = key.split_first_chunk::<16>()?;
            let bits = if bits.first() == Some(&CLIENT6) { client.bits() } else { *bits.first()? };
            IpNet::new((*address).into(), bits).ok()
        }
    }
}

/// The offenders of one family.
struct Table<K: Pod> {
    map: HashMap<MapData, K, Offender>,
    name: &'static str,
    /// How many entries it holds, and how many of them are prefixes: the kernel does not tell.
    entries: usize,
}

impl<K: Pod + Hash + Eq> Table<K> {
    fn of(map: HashMap<MapData, K, Offender>, name: &'static str) -> Result<Self, KernelError> {
        let mut table = Self { map, name, entries: 0 };
        table.entries = table.list()?.len();
        Ok(table)
    }

    fn failed(&self, error: MapError) -> KernelError {
        KernelError::map(self.name, abi::OFFENDER_ENTRIES, error)
    }

    fn get(&self, key: &K) -> Result<Option<Offender>, KernelError> {
        found(self.map.get(key, 0)).map_err(|error| self.failed(error))
    }

    /// Sets the end; keeps what was counted.
    fn put(&mut self, key: &K, expires_boot_ns: u64) -> Result<(), KernelError> {
        let old = self.get(key)?;
        let (last_hit_boot_ns, hits) = old.map_or((0, 0), |old| (old.last_hit_boot_ns, old.hits));
        let new = Offender { expires_boot_ns, last_hit_boot_ns, hits };
        self.map.insert(key, new, 0).map_err(|error| self.failed(error))?;
        self.entries += usize::from(old.is_none());
        Ok(())
    }

    fn remove(&mut self, key: &K) -> Result<bool, KernelError> {
        let there = removed(self.map.remove(key)).map_err(|error| self.failed(error))?;
        self.entries = self.entries.saturating_sub(usize::from(there));
        Ok(there)
    }

    fn list(&self) -> Result<Vec<(K, Offender)>, KernelError> {
        self.map.iter().map(|entry| entry.map_err(|error| self.failed(error))).collect()
    }

    fn sync(&mut self, mut wanted: StdHashMap<K, u64>, report: &mut SyncReport) -> Result<(), KernelError> {
        for (key, offender) in self.list()? {
            match wanted.remove(&key) {
                Some(expires) if offender.expires_boot_ns.abs_diff(expires) <= SAME_NS => report.kept += 1,
                Some(expires) => {
                    self.put(&key, expires)?;
                    report.changed += 1;
                }
                None => report.removed += usize::from(self.remove(&key)?),
            }
        }
        for (key, expires) in wanted {
            self.put(&key, expires)?;
            report.added += 1;
        }
        Ok(())
    }
}

/// The offenders of both families.
pub(super) struct Offenders {
    v4: Table<OffenderKey4>,
    v6: Table<OffenderKey6>,
    client: Ipv6KeyLength,
    /// How many of the entries are prefixes.
    prefixes: usize,
}

impl Offenders {
    pub(super) fn take(object: &mut Ebpf, pin: &PinDirectory, client: Ipv6KeyLength) -> Result<Self, KernelError> {
        Self::of(load::take(object, pin, abi::maps::OFFENDER4)?, load::take(object, pin, abi::maps::OFFENDER6)?, client)
    }

    /// From the pins alone.
    pub(super) fn open(directory: &Path, client: Ipv6KeyLength) -> Result<Self, KernelError> {
        let v4 = load::pinned(directory, abi::maps::OFFENDER4)?;
        Self::of(v4, load::pinned(directory, abi::maps::OFFENDER6)?, client)
    }

    fn of(
        v4: HashMap<MapData, OffenderKey4, Offender>,
        v6: HashMap<MapData, OffenderKey6, Offender>,
        client: Ipv6KeyLength,
    ) -> Result<Self, KernelError> {
        let (v4, v6) = (Table::of(v4, abi::maps::OFFENDER4)?, Table::of(v6, abi::maps::OFFENDER6)?);
        let mut offenders = Self { v4, v6, client, prefixes: 0 };
        offenders.prefixes = offenders.entries()?.iter().filter(|(network, _)| offenders.is_prefix(*network)).count();
        Ok(offenders)
    }

    fn is_prefix(&self, network: IpNet) -> bool {
        match network {
            IpNet::V4(net) => net.prefix_len() < 32,
            IpNet::V6(net) => net.prefix_len() < self.client.bits(),
        }
    }

    /// What the programs are to be told.
    pub(super) fn tell(&self, settings: &mut Settings) {
        settings.set(Settings::OFFENDERS, self.v4.entries + self.v6.entries > 0);
        settings.set(Settings::OFFENDER_PREFIXES, self.prefixes > 0);
    }

    /// One whose time is over already is as good as nobody, and is removed.
    pub(super) fn put(&mut self, network: IpNet, until: UnixTime) -> Result<(), KernelError> {
        let clock = BootClock::read();
        let expires = clock.to_boot(until);
        if expires <= clock.now_ns {
            return self.remove(network).map(drop);
        }
        let new = match key(network, self.client) {
            Key::V4(key) => {
                let new = self.v4.get(&key)?.is_none();
                self.v4.put(&key, expires)?;
                new
            }
            Key::V6(key) => {
                let new = self.v6.get(&key)?.is_none();
                self.v6.put(&key, expires)?;
                new
            }
        };
        self.prefixes += usize::from(new && self.is_prefix(network));
        Ok(())
    }

    pub(super) fn remove(&mut self, network: IpNet) -> Result<bool, KernelError> {
        let had = match key(network, self.client) {
            Key::V4(key) => self.v4.remove(&key)?,
            Key::V6(key) => self.v6.remove(&key)?,
        };
        self.prefixes = self.prefixes.saturating_sub(usize::from(had && self.is_prefix(network)));
        Ok(had)
    }

    /// Removes those of IPv6: the keys of clients were cut to another length.
    pub(super) fn clear_v6(&mut self) -> Result<(), KernelError> {
        self.v6.sync(StdHashMap::new(), &mut SyncReport::default())?;
        let v4 = self.v4.list()?;
        self.prefixes = v4.iter().filter(|([_, _, _, _, bits, ..], _)| *bits < 32).count();
        Ok(())
    }

    pub(super) fn sync(
        &mut self,
        wanted: impl IntoIterator<Item = (IpNet, UnixTime)>,
    ) -> Result<SyncReport, KernelError> {
        let clock = BootClock::read();
        let (mut v4, mut v6, mut prefixes) = (StdHashMap::new(), StdHashMap::new(), 0);
        for (network, until) in wanted {
            let expires = clock.to_boot(until);
            if expires <= clock.now_ns {
                continue;
            }
            prefixes += usize::from(self.is_prefix(network));
            match key(network, self.client) {
                Key::V4(key) => v4.insert(key, expires),
                Key::V6(key) => v6.insert(key, expires),
            };
        }
        let mut report = SyncReport::default();
        self.v4.sync(v4, &mut report)?;
        self.v6.sync(v6, &mut report)?;
        self.prefixes = prefixes;
        Ok(report)
    }

    /// Exactly this client or prefix.
    pub(super) fn get(&self, network: IpNet) -> Result<Option<KeptOut>, KernelError> {
        let found = match key(network, self.client) {
            Key::V4(key) => self.v4.get(&key)?,
            Key::V6(key) => self.v6.get(&key)?,
        };
        let clock = BootClock::read();
        Ok(found.and_then(|offender| shown(network, offender, clock)))
    }

    /// Everybody whose time is not over, in the order of the networks.
    pub(super) fn list(&self) -> Result<Vec<KeptOut>, KernelError> {
        let clock = BootClock::read();
        let mut all: Vec<_> =
            self.entries()?.into_iter().filter_map(|(network, offender)| shown(network, offender, clock)).collect();
        all.sort_unstable_by_key(|kept_out| kept_out.network);
        Ok(all)
    }

    fn entries(&self) -> Result<Vec<(IpNet, Offender)>, KernelError> {
        let v4 = self.v4.list()?.into_iter().map(|(key, offender)| (Key::V4(key), offender));
        let v6 = self.v6.list()?.into_iter().map(|(key, offender)| (Key::V6(key), offender));
        Ok(v4.chain(v6).filter_map(|(key, offender)| Some((network(key, self.client)?, offender))).collect())
    }

    /// How many entries each map holds.
    pub(super) fn sizes(&self) -> [(&'static str, usize); 2] {
        [(self.v4.name, self.v4.entries), (self.v6.name, self.v6.entries)]
    }
}

/// `None`: its time is over.
fn shown(network: IpNet, offender: Offender, clock: BootClock) -> Option<KeptOut> {
    let Offender { expires_boot_ns, last_hit_boot_ns, hits } = offender;
    (expires_boot_ns > clock.now_ns).then(|| KeptOut {
        network,
        until: clock.to_unix(expires_boot_ns),
        hits,
        last_hit: (last_hit_boot_ns != 0).then(|| clock.to_unix(last_hit_boot_ns)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_survives_the_way_into_a_key_and_back() {
        for bits in [48, 56, 64, 128] {
            let client = Ipv6KeyLength::try_from(bits).unwrap();
            let own = format!("2001:db8:1::/{bits}");
            for text in ["192.0.2.7/32", "192.0.2.0/24", "2001:db8:1::/48", own.as_str()] {
                let net: IpNet = text.parse().unwrap();
                assert_eq!(network(key(net, client), client), Some(net), "under /{bits}");
            }
        }
        let client = Ipv6KeyLength::default();
        let (wide, narrow) = ("2001:db8:1::/48".parse().unwrap(), "2001:db8:1::/64".parse().unwrap());
        let (Key::V6(wide), Key::V6(narrow)) = (key(wide, client), key(narrow, client)) else { unreachable!() };
        assert_ne!(wide, narrow, "a prefix is not its first client");
    }
}
