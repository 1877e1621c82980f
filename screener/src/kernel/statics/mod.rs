//! The static lists in the kernel: permits, a trie a family, and denies, compiled (docs/deny-set.md).
//!
//! Holds the order in which both are changed: a permit is there before the deny set leaves a hole for it, and the hole is
//! closed before it goes. Never decides which entries there should be: `feed/` holds the truth, this is its mirror.

mod flatten;
mod four;
mod list;
mod permits;
mod set;
mod six;
mod words;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use aya::Ebpf;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use screener_ebpf::action;
use serde::Serialize;

use super::error::KernelError;
#[cfg(test)]
use super::load;
use super::pin::PinDirectory;
use crate::feed::{DenyAction, StaticAction};

use self::flatten::{Item, Prefix, V4, V6};
use self::permits::Permits;
use self::set::DenySet;

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
    /// Entries that there was no room for.
    pub left_out: usize,
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

/// A prefix as a number of so many bits: host bits cut off, IPv4-mapped IPv6 as IPv4.
fn number(net: IpNet) -> (Prefix, u8) {
    let (length, net) = (net.prefix_len(), net.trunc());
    match net.network().to_canonical() {
        IpAddr::V4(v4) => {
            let length = if net.network().is_ipv6() { length.saturating_sub(V6 - V4) } else { length };
            (Prefix { first: v4.to_bits().into(), length }, V4)
        }
        IpAddr::V6(v6) => (Prefix { first: v6.to_bits(), length }, V6),
    }
}

/// The way back. `None`: no such prefix, and nobody makes one.
fn network(prefix: Prefix, bits: u8) -> Option<IpNet> {
    let net = if bits == V4 {
        Ipv4Net::new(Ipv4Addr::from_bits(u32::try_from(prefix.first).ok()?), prefix.length).map(IpNet::V4)
    } else {
        Ipv6Net::new(Ipv6Addr::from_bits(prefix.first), prefix.length).map(IpNet::V6)
    };
    net.ok()
}

/// The permits and the denies.
pub(super) struct Statics {
    permits: Permits,
    v4: DenySet,
    v6: DenySet,
}

impl Statics {
    /// Takes the maps out of the object, and mends what a writer left that died within a change.
    pub(super) fn take(object: &mut Ebpf, pin: &PinDirectory) -> Result<Self, KernelError> {
        let permits = Permits::take(object, pin)?;
        Self { permits, v4: DenySet::take(object, pin, V4)?, v6: DenySet::take(object, pin, V6)? }.healed()
    }

    /// Opens the maps by their pins, with no program loaded; `None`: they are not there.
    ///
    /// To change them takes the lock on the pin directory; without `writable` it does not.
    pub(super) fn open(directory: &Path, writable: bool) -> Result<Option<Self>, KernelError> {
        let Some(permits) = Permits::open(directory)? else { return Ok(None) };
        let v4 = DenySet::open(directory, V4, writable)?;
        let v6 = DenySet::open(directory, V6, writable)?;
        v4.zip(v6).map(|(v4, v6)| Self { permits, v4, v6 }.healed()).transpose()
    }

    /// Over the maps of an object that are pinned nowhere.
    #[cfg(test)]
    pub(super) fn unpinned(object: &mut Ebpf) -> Result<Self, KernelError> {
        use screener_ebpf::maps::{DENY4, DENY6, PERMIT4, PERMIT6};
        let permits = Permits::over(load::take_unpinned(object, PERMIT4)?, load::take_unpinned(object, PERMIT6)?)?;
        let v4 = DenySet::over(load::take_unpinned(object, DENY4)?, V4, DENY4.into(), true)?;
        let v6 = DenySet::over(load::take_unpinned(object, DENY6)?, V6, DENY6.into(), true)?;
        Ok(Self { permits, v4, v6 })
    }

    fn healed(mut self) -> Result<Self, KernelError> {
        for set in [&mut self.v4, &mut self.v6] {
            if set.heal(&self.permits)? {
                log::info!("{}: compiled anew, for a change of it was not finished", set.name());
            }
        }
        Ok(self)
    }

    fn set(&self, bits: u8) -> &DenySet {
        if bits == V4 { &self.v4 } else { &self.v6 }
    }

    fn set_mut(&mut self, bits: u8) -> (&mut DenySet, &mut Permits) {
        (if bits == V4 { &mut self.v4 } else { &mut self.v6 }, &mut self.permits)
    }

    /// Adds one entry, or changes what the one with this prefix does.
    pub(super) fn put(&mut self, net: IpNet, action: StaticAction) -> Result<(), KernelError> {
        let (prefix, bits) = number(net);
        let (set, permits) = self.set_mut(bits);
        match StaticKind::of(action) {
            StaticKind::Deny => set.put(Item { prefix, action: code(action) }, permits),
            StaticKind::Permit => {
                if permits.put(prefix, bits)? {
                    set.refresh(prefix, permits)?;
                }
                Ok(())
            }
        }
    }

    /// Removes the entry with exactly this prefix. Whether it was there.
    pub(super) fn remove(&mut self, net: IpNet, kind: StaticKind) -> Result<bool, KernelError> {
        let (prefix, bits) = number(net);
        let (set, permits) = self.set_mut(bits);
        match kind {
            StaticKind::Deny => set.remove(prefix, permits),
            StaticKind::Permit => {
                let there = permits.forget(prefix, bits);
                if there {
                    set.refresh(prefix, permits)?;
                    permits.remove(prefix, bits)?;
                }
                Ok(there)
            }
        }
    }

    /// What the entry with exactly this prefix says.
    pub(super) fn get(&self, net: IpNet, kind: StaticKind) -> Option<StaticAction> {
        let (prefix, bits) = number(net);
        match kind {
            StaticKind::Deny => self.set(bits).get(prefix).and_then(decode),
            StaticKind::Permit => self.permits.known(bits).contains(&prefix).then_some(StaticAction::Permit),
        }
    }

    /// What the programs find for an address, dry runs aside.
    pub(super) fn lookup(&self, address: IpAddr) -> Option<StaticAction> {
        let (Prefix { first, .. }, bits) = number(address.into());
        if self.permits.cover(first, bits) {
            return Some(StaticAction::Permit);
        }
        let fate = self.set(bits).find(first);
        let counted = fate.counted().then_some(StaticAction::Deny(DenyAction::Count));
        decode(fate.action()).or(counted)
    }

    /// Every permit, IPv4 first, in the order of their prefixes.
    pub(super) fn permits(&self) -> impl Iterator<Item = IpNet> {
        [V4, V6].into_iter().flat_map(|bits| {
            let known = self.permits.known(bits).iter();
            known.filter_map(move |&prefix| network(prefix, bits))
        })
    }

    /// Every entry: permits, then denies, IPv4 first, in the order of their prefixes.
    pub(super) fn list(&self) -> impl Iterator<Item = (IpNet, StaticAction)> {
        let permits = self.permits().map(|net| (net, StaticAction::Permit));
        let denies = [V4, V6].into_iter().flat_map(|bits| {
            let items = self.set(bits).iter();
            items.filter_map(move |item| Some((network(item.prefix, bits)?, decode(item.action)?)))
        });
        permits.chain(denies)
    }

    /// Makes the lists equal to `entries`; of two entries with one prefix in one list the later holds.
    ///
    /// An address that is covered before and after is covered at every moment between: new permits come first, then each
    /// deny set takes the place of the old one as a whole, then old permits go.
    pub(super) fn sync(
        &mut self,
        entries: impl IntoIterator<Item = (IpNet, StaticAction)>,
    ) -> Result<SyncReport, KernelError> {
        let mut report = SyncReport::default();
        let mut denies = [Vec::new(), Vec::new()];
        let mut permits = [std::collections::BTreeSet::new(), std::collections::BTreeSet::new()];
        for (net, action) in entries {
            let (prefix, bits) = number(net);
            let family = usize::from(bits == V6);
            match StaticKind::of(action) {
                StaticKind::Permit => drop(permits[family].insert(prefix)),
                StaticKind::Deny => denies[family].push(Item { prefix, action: code(action) }),
            }
        }
        for (items, bits) in denies.iter_mut().zip([V4, V6]) {
            put_in_order(items);
            // Before anything is changed.
            self.set(bits).holds(items.len())?;
        }
        for ((wanted, items), bits) in permits.into_iter().zip(denies).zip([V4, V6]) {
            let (set, permits) = self.set_mut(bits);
            let surplus: Vec<Prefix> = permits.known(bits).difference(&wanted).copied().collect();
            let mut holes = !surplus.is_empty();
            for prefix in wanted {
                let new = permits.put(prefix, bits)?;
                holes |= new;
                if new { report.added += 1 } else { report.kept += 1 }
            }
            for &prefix in &surplus {
                permits.forget(prefix, bits);
            }
            set.sync(&items, permits, holes, &mut report)?;
            for &prefix in &surplus {
                permits.remove(prefix, bits)?;
            }
            report.removed += surplus.len();
        }
        Ok(report)
    }

    /// Compiles anew where changes in place have used up half of their room.
    pub(super) fn fold(&mut self) -> Result<bool, KernelError> {
        let mut done = false;
        for set in [&mut self.v4, &mut self.v6] {
            if set.wants_folding() {
                set.fold(&self.permits)?;
                done = true;
            }
        }
        Ok(done)
    }

    /// How many entries each map holds.
    pub(super) fn entries(&self) -> [(&'static str, usize); 4] {
        let [four, six] = self.permits.entries();
        [four, six, (self.v4.name(), self.v4.entries()), (self.v6.name(), self.v6.entries())]
    }

    /// Bytes of memory of the deny sets.
    pub(super) fn bytes(&self) -> [(&'static str, usize); 2] {
        [(self.v4.name(), self.v4.bytes()), (self.v6.name(), self.v6.bytes())]
    }
}

/// Sorts, and of entries with one prefix leaves the last that came.
fn put_in_order(items: &mut Vec<Item>) {
    if items.is_sorted_by(|a, b| a.prefix < b.prefix) {
        return;
    }
    items.sort_by_key(|item| item.prefix);
    items.dedup_by(|later, earlier| {
        let same = later.prefix == earlier.prefix;
        if same {
            earlier.action = later.action;
        }
        same
    });
}

#[cfg(test)]
mod gapless;
#[cfg(test)]
mod oracle;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_go_and_mapped_prefixes_become_ipv4() {
        for (given, taken) in [
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("::ffff:192.0.2.77/120", "192.0.2.0/24"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            let (prefix, bits) = number(given.parse().unwrap());
            assert_eq!(network(prefix, bits), Some(taken.parse().unwrap()), "{given}");
        }
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
