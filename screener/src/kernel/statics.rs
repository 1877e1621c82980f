//! The static lists in the kernel: permits and denies, one trie a family each.
//!
//! Holds how a prefix and an action become a key and a value, and how a whole set is put in without a gap. Never decides
//! which entries there should be: `feed/` holds the truth, this is its mirror.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use ipnet::IpNet;
use screener_ebpf::{self as abi, Entry, action};
use serde::Serialize;

use super::error::KernelError;
use super::load;
use super::pin::PinDirectory;
use crate::feed::{DenyAction, StaticAction};

/// Which of the static lists an entry is in. A prefix may be in both; the permit holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StaticKind {
    /// The permits.
    Permit,
    /// The denies.
    Deny,
}

impl StaticKind {
    fn of(action: StaticAction) -> Self {
        match action {
            StaticAction::Permit => Self::Permit,
            StaticAction::Deny(_) => Self::Deny,
        }
    }
}

/// What a synchronisation changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SyncReport {
    /// Entries that were not there.
    pub added: usize,
    /// Entries that said something else.
    pub changed: usize,
    /// Entries that should not be there any more.
    pub removed: usize,
    /// Entries that were right already.
    pub kept: usize,
}

/// The action as the programs know it.
fn code(action: StaticAction) -> u8 {
    match action {
        StaticAction::Permit => action::PERMIT,
        StaticAction::Deny(DenyAction::Drop) => action::DROP,
        StaticAction::Deny(DenyAction::Reject) => action::REJECT,
        StaticAction::Deny(DenyAction::Tag) => action::TAG,
        StaticAction::Deny(DenyAction::Count) => action::COUNT,
    }
}

/// The way back; `None` for [`action::NONE`] and for codes that do not exist.
pub(super) fn decode(code: u8) -> Option<StaticAction> {
    match code {
        action::PERMIT => Some(StaticAction::Permit),
        action::DROP => Some(StaticAction::Deny(DenyAction::Drop)),
        action::REJECT => Some(StaticAction::Deny(DenyAction::Reject)),
        action::TAG => Some(StaticAction::Deny(DenyAction::Tag)),
        action::COUNT => Some(StaticAction::Deny(DenyAction::Count)),
        _ => None,
    }
}

/// A prefix as the tries know it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Prefix<const N: usize> {
    length: u8,
    address: [u8; N],
}

/// A prefix of either family, host bits cut off, IPv4-mapped IPv6 as IPv4.
enum AnyPrefix {
    V4(Prefix<4>),
    V6(Prefix<16>),
}

impl From<IpNet> for AnyPrefix {
    fn from(net: IpNet) -> Self {
        let (length, net) = (net.prefix_len(), net.trunc());
        match net.network().to_canonical() {
            IpAddr::V4(v4) => {
                let length = if net.network().is_ipv6() { length.saturating_sub(96) } else { length };
                Self::V4(Prefix { length, address: v4.octets() })
            }
            IpAddr::V6(v6) => Self::V6(Prefix { length, address: v6.octets() }),
        }
    }
}

/// One trie.
struct Trie<const N: usize> {
    map: LpmTrie<MapData, [u8; N], Entry>,
    name: &'static str,
    max_entries: u32,
    /// How many entries it holds: the kernel does not tell.
    entries: usize,
}

impl<const N: usize> Trie<N> {
    fn take(object: &mut Ebpf, pin: &PinDirectory, name: &'static str, max_entries: u32) -> Result<Self, KernelError> {
        let mut trie = Self { map: load::take(object, pin, name)?, name, max_entries, entries: 0 };
        trie.entries = trie.prefixes()?.len();
        Ok(trie)
    }

    /// Without the count of its entries, which costs a walk and which only a daemon asks for.
    fn open(directory: &Path, name: &'static str, max_entries: u32) -> Result<Self, KernelError> {
        Ok(Self { map: load::pinned(directory, name)?, name, max_entries, entries: 0 })
    }

    fn failed(&self, error: MapError) -> KernelError {
        KernelError::map(self.name, self.max_entries, error)
    }

    fn key(prefix: Prefix<N>) -> Key<[u8; N]> {
        Key::new(u32::from(prefix.length), prefix.address)
    }

    /// The entry with exactly this prefix. The lookup finds the longest one that is no longer than asked for, and so
    /// perhaps one that only covers it.
    fn get(&self, prefix: Prefix<N>) -> Result<Option<u8>, KernelError> {
        match self.map.get(&Self::key(prefix), 0) {
            Ok(entry) => Ok((entry.length == prefix.length).then_some(entry.action)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The longest prefix that covers an address; a `count` entry only if there is no other.
    fn lookup(&self, address: [u8; N]) -> Result<Option<u8>, KernelError> {
        let mut counted = None;
        let mut length = 8 * N as u32;
        loop {
            match self.map.get(&Key::new(length, address), 0) {
                Ok(entry) if entry.action == action::COUNT => {
                    counted = Some(entry.action);
                    match u32::from(entry.length).checked_sub(1) {
                        Some(shorter) => length = shorter,
                        None => return Ok(counted),
                    }
                }
                Ok(entry) => return Ok(Some(entry.action)),
                Err(MapError::KeyNotFound) => return Ok(counted),
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Every entry, in no order.
    fn list(&self) -> Result<Vec<(Prefix<N>, u8)>, KernelError> {
        let entries =
            self.prefixes()?.into_iter().filter_map(|prefix| Some(Ok((prefix, self.get(prefix).transpose()?))));
        entries.map(|entry| entry.and_then(|(prefix, action)| Ok((prefix, action?)))).collect()
    }

    fn put(&mut self, prefix: Prefix<N>, action: u8) -> Result<(), KernelError> {
        let new = self.get(prefix)?.is_none();
        let entry = Entry { action, length: prefix.length, _pad: [0; 2] };
        self.map.insert(&Self::key(prefix), entry, 0).map_err(|error| self.failed(error))?;
        self.entries += usize::from(new);
        Ok(())
    }

    /// Whether it was there.
    fn remove(&mut self, prefix: Prefix<N>) -> Result<bool, KernelError> {
        match self.map.remove(&Self::key(prefix)) {
            Ok(()) => {
                self.entries = self.entries.saturating_sub(1);
                Ok(true)
            }
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// All prefixes. Collected before anything is changed: a walk over a trie begins anew when its place is removed.
    fn prefixes(&self) -> Result<Vec<Prefix<N>>, KernelError> {
        let keys = self.map.keys().map(|key| {
            let key = key.map_err(|error| self.failed(error))?;
            let length = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
            Ok(Prefix { length, address: key.data() })
        });
        keys.collect()
    }

    /// Puts in what is missing or different. Gives back what is too much.
    fn fill(
        &mut self,
        mut wanted: HashMap<Prefix<N>, u8>,
        report: &mut SyncReport,
    ) -> Result<Vec<Prefix<N>>, KernelError> {
        let mut surplus = Vec::new();
        for prefix in self.prefixes()? {
            match wanted.remove(&prefix) {
                Some(action) if self.get(prefix)? == Some(action) => report.kept += 1,
                Some(action) => {
                    self.put(prefix, action)?;
                    report.changed += 1;
                }
                None => surplus.push(prefix),
            }
        }
        for (prefix, action) in wanted {
            self.put(prefix, action)?;
            report.added += 1;
        }
        Ok(surplus)
    }

    fn clear_out(&mut self, surplus: Vec<Prefix<N>>, report: &mut SyncReport) -> Result<(), KernelError> {
        for prefix in surplus {
            report.removed += usize::from(self.remove(prefix)?);
        }
        Ok(())
    }
}

/// What should be in the two tries of one kind.
#[derive(Default)]
struct Wanted {
    v4: HashMap<Prefix<4>, u8>,
    v6: HashMap<Prefix<16>, u8>,
}

/// The two tries of one kind.
struct Pair {
    v4: Trie<4>,
    v6: Trie<16>,
}

impl Pair {
    fn put(&mut self, net: IpNet, action: u8) -> Result<(), KernelError> {
        match net.into() {
            AnyPrefix::V4(prefix) => self.v4.put(prefix, action),
            AnyPrefix::V6(prefix) => self.v6.put(prefix, action),
        }
    }

    fn remove(&mut self, net: IpNet) -> Result<bool, KernelError> {
        match net.into() {
            AnyPrefix::V4(prefix) => self.v4.remove(prefix),
            AnyPrefix::V6(prefix) => self.v6.remove(prefix),
        }
    }
}

/// The four tries.
pub(super) struct Statics {
    permits: Pair,
    denies: Pair,
}

impl Statics {
    pub(super) fn take(object: &mut Ebpf, pin: &PinDirectory) -> Result<Self, KernelError> {
        Ok(Self {
            permits: Pair {
                v4: Trie::take(object, pin, abi::maps::PERMIT4, abi::PERMIT_ENTRIES)?,
                v6: Trie::take(object, pin, abi::maps::PERMIT6, abi::PERMIT_ENTRIES)?,
            },
            denies: Pair {
                v4: Trie::take(object, pin, abi::maps::DENY4, abi::DENY4_ENTRIES)?,
                v6: Trie::take(object, pin, abi::maps::DENY6, abi::DENY6_ENTRIES)?,
            },
        })
    }

    /// From the pins alone.
    pub(super) fn open(directory: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            permits: Pair {
                v4: Trie::open(directory, abi::maps::PERMIT4, abi::PERMIT_ENTRIES)?,
                v6: Trie::open(directory, abi::maps::PERMIT6, abi::PERMIT_ENTRIES)?,
            },
            denies: Pair {
                v4: Trie::open(directory, abi::maps::DENY4, abi::DENY4_ENTRIES)?,
                v6: Trie::open(directory, abi::maps::DENY6, abi::DENY6_ENTRIES)?,
            },
        })
    }

    /// What exactly this prefix's entry says.
    pub(super) fn get(&self, net: IpNet, kind: StaticKind) -> Result<Option<StaticAction>, KernelError> {
        let pair = match kind {
            StaticKind::Permit => &self.permits,
            StaticKind::Deny => &self.denies,
        };
        let code = match net.into() {
            AnyPrefix::V4(prefix) => pair.v4.get(prefix),
            AnyPrefix::V6(prefix) => pair.v6.get(prefix),
        };
        Ok(code?.and_then(decode))
    }

    /// What the programs would find for an address.
    pub(super) fn lookup(&self, address: IpAddr) -> Result<Option<StaticAction>, KernelError> {
        let look = |pair: &Pair| match address.to_canonical() {
            IpAddr::V4(address) => pair.v4.lookup(address.octets()),
            IpAddr::V6(address) => pair.v6.lookup(address.octets()),
        };
        let code = match look(&self.permits)? {
            Some(permit) => Some(permit),
            None => look(&self.denies)?,
        };
        Ok(code.and_then(decode))
    }

    /// Every entry, in the order of the prefixes.
    pub(super) fn list(&self) -> Result<Vec<(IpNet, StaticAction)>, KernelError> {
        let mut entries = Vec::new();
        for pair in [&self.permits, &self.denies] {
            for (Prefix { length, address }, code) in pair.v4.list()? {
                entries.extend(IpNet::new(address.into(), length).ok().zip(decode(code)));
            }
            for (Prefix { length, address }, code) in pair.v6.list()? {
                entries.extend(IpNet::new(address.into(), length).ok().zip(decode(code)));
            }
        }
        entries.sort_by_key(|(net, action)| (*net, *action != StaticAction::Permit));
        Ok(entries)
    }

    fn pair(&mut self, kind: StaticKind) -> &mut Pair {
        match kind {
            StaticKind::Permit => &mut self.permits,
            StaticKind::Deny => &mut self.denies,
        }
    }

    pub(super) fn put(&mut self, net: IpNet, action: StaticAction) -> Result<(), KernelError> {
        self.pair(StaticKind::of(action)).put(net, code(action))
    }

    pub(super) fn remove(&mut self, net: IpNet, kind: StaticKind) -> Result<bool, KernelError> {
        self.pair(kind).remove(net)
    }

    /// Makes the tries equal to `entries`. All that is new goes in before anything goes out, permits first: an address
    /// that is covered before and after is covered at every moment between.
    pub(super) fn sync(
        &mut self,
        entries: impl IntoIterator<Item = (IpNet, StaticAction)>,
    ) -> Result<SyncReport, KernelError> {
        let (mut permits, mut denies) = (Wanted::default(), Wanted::default());
        for (net, action) in entries {
            let wanted = match StaticKind::of(action) {
                StaticKind::Permit => &mut permits,
                StaticKind::Deny => &mut denies,
            };
            match net.into() {
                AnyPrefix::V4(prefix) => wanted.v4.insert(prefix, code(action)),
                AnyPrefix::V6(prefix) => wanted.v6.insert(prefix, code(action)),
            };
        }
        let mut report = SyncReport::default();
        let permits = (self.permits.v4.fill(permits.v4, &mut report)?, self.permits.v6.fill(permits.v6, &mut report)?);
        let denies = (self.denies.v4.fill(denies.v4, &mut report)?, self.denies.v6.fill(denies.v6, &mut report)?);
        self.denies.v4.clear_out(denies.0, &mut report)?;
        self.denies.v6.clear_out(denies.1, &mut report)?;
        self.permits.v4.clear_out(permits.0, &mut report)?;
        self.permits.v6.clear_out(permits.1, &mut report)?;
        Ok(report)
    }

    /// How many entries each map holds.
    pub(super) fn entries(&self) -> [(&'static str, usize); 4] {
        [
            (self.permits.v4.name, self.permits.v4.entries),
            (self.permits.v6.name, self.permits.v6.entries),
            (self.denies.v4.name, self.denies.v4.entries),
            (self.denies.v6.name, self.denies.v6.entries),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> (u8, Vec<u8>) {
        match AnyPrefix::from(text.parse::<IpNet>().unwrap()) {
            AnyPrefix::V4(prefix) => (prefix.length, prefix.address.to_vec()),
            AnyPrefix::V6(prefix) => (prefix.length, prefix.address.to_vec()),
        }
    }

    #[test]
    fn host_bits_go_and_mapped_prefixes_become_ipv4() {
        assert_eq!(prefix("192.0.2.77/24"), (24, vec![192, 0, 2, 0]));
        assert_eq!(prefix("::ffff:192.0.2.77/120"), (24, vec![192, 0, 2, 0]));
        assert_eq!(
            prefix("2001:db8::1/32"),
            (32, "2001:db8::".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec())
        );
    }

    #[test]
    fn every_action_has_its_code() {
        let denies = [DenyAction::Drop, DenyAction::Reject, DenyAction::Tag, DenyAction::Count].map(StaticAction::Deny);
        for action in denies.into_iter().chain([StaticAction::Permit]) {
            assert_eq!(decode(code(action)), Some(action));
        }
        assert_eq!(decode(action::NONE), None);
    }
}
