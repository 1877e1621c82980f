//! The permits in the kernel: one trie a family.
//!
//! Holds how a prefix becomes a key, and a copy of what the tries hold, for the deny set to leave out.

use std::collections::BTreeSet;
use std::path::Path;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{MapData, MapError};
use screener_ebpf::{self as abi, Entry, action};

use super::flatten::{Item, Prefix, V4};
use crate::kernel::error::{KernelError, removed};
use crate::kernel::load;
use crate::kernel::pin::PinDirectory;

/// One trie.
struct Trie<const N: usize> {
    map: LpmTrie<MapData, [u8; N], Entry>,
    name: &'static str,
}

impl<const N: usize> Trie<N> {
    fn failed(&self, error: MapError) -> KernelError {
        KernelError::map(self.name, abi::PERMIT_ENTRIES, error)
    }

    fn key(prefix: Prefix) -> Key<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&prefix.first.to_be_bytes()[size_of::<u128>() - N..]);
        Key::new(u32::from(prefix.length), bytes)
    }

    fn put(&mut self, prefix: Prefix) -> Result<(), KernelError> {
        let entry = Entry { action: action::PERMIT, length: prefix.length, _pad: [0; 2] };
        self.map.insert(&Self::key(prefix), entry, 0).map_err(|error| self.failed(error))
    }

    fn remove(&mut self, prefix: Prefix) -> Result<(), KernelError> {
        removed(self.map.remove(&Self::key(prefix))).map(drop).map_err(|error| self.failed(error))
    }

    /// All prefixes. Collected before anything is changed: a walk over a trie begins anew when its place is removed.
    fn prefixes(&self) -> Result<BTreeSet<Prefix>, KernelError> {
        let keys = self.map.keys().map(|key| {
            let key = key.map_err(|error| self.failed(error))?;
            let first = key.data().iter().fold(0, |number, &byte| number << 8 | u128::from(byte));
            Ok(Prefix { first, length: u8::try_from(key.prefix_len()).unwrap_or(u8::MAX) })
        });
        keys.collect()
    }
}

/// The permits of both families.
pub(super) struct Permits {
    v4: Trie<4>,
    v6: Trie<16>,
    known4: BTreeSet<Prefix>,
    known6: BTreeSet<Prefix>,
}

impl Permits {
    pub(super) fn take(object: &mut Ebpf, pin: &PinDirectory) -> Result<Self, KernelError> {
        Self::over(load::take(object, pin, abi::maps::PERMIT4)?, load::take(object, pin, abi::maps::PERMIT6)?)
    }

    /// Opens the maps by their pins; `None`: they are not there.
    pub(super) fn open(directory: &Path) -> Result<Option<Self>, KernelError> {
        let four = load::open(directory, abi::maps::PERMIT4)?;
        let six = load::open(directory, abi::maps::PERMIT6)?;
        four.zip(six).map(|(four, six)| Self::over(four, six)).transpose()
    }

    pub(super) fn over(
        v4: LpmTrie<MapData, [u8; 4], Entry>,
        v6: LpmTrie<MapData, [u8; 16], Entry>,
    ) -> Result<Self, KernelError> {
        let v4 = Trie { map: v4, name: abi::maps::PERMIT4 };
        let v6 = Trie { map: v6, name: abi::maps::PERMIT6 };
        Ok(Self { known4: v4.prefixes()?, known6: v6.prefixes()?, v4, v6 })
    }

    pub(super) fn known(&self, bits: u8) -> &BTreeSet<Prefix> {
        if bits == V4 { &self.known4 } else { &self.known6 }
    }

    /// True: it is new.
    pub(super) fn put(&mut self, prefix: Prefix, bits: u8) -> Result<bool, KernelError> {
        if bits == V4 {
            self.v4.put(prefix)?;
            Ok(self.known4.insert(prefix))
        } else {
            self.v6.put(prefix)?;
            Ok(self.known6.insert(prefix))
        }
    }

    /// Forgets a permit, so that the deny set closes its hole; [`Permits::remove`] takes it out of the kernel then.
    pub(super) fn forget(&mut self, prefix: Prefix, bits: u8) -> bool {
        if bits == V4 { self.known4.remove(&prefix) } else { self.known6.remove(&prefix) }
    }

    pub(super) fn remove(&mut self, prefix: Prefix, bits: u8) -> Result<(), KernelError> {
        if bits == V4 { self.v4.remove(prefix) } else { self.v6.remove(prefix) }
    }

    /// Whether a permit covers an address.
    pub(super) fn cover(&self, address: u128, bits: u8) -> bool {
        let host = Prefix { first: address, length: bits };
        (0..=bits).any(|length| self.known(bits).contains(&host.cut(length, bits)))
    }

    /// The permits that cover a region, and those within it, in order.
    pub(super) fn about(&self, region: Prefix, bits: u8) -> impl Iterator<Item = Item> {
        let known = self.known(bits);
        let over = (0..region.length).map(move |length| region.cut(length, bits));
        let over = over.filter(|prefix| known.contains(prefix));
        let last = region.last(bits);
        let within = known.range(region..).take_while(move |prefix| prefix.first <= last).copied();
        over.chain(within).map(|prefix| Item { prefix, action: action::PERMIT })
    }

    /// How many each map holds.
    pub(super) fn entries(&self) -> [(&'static str, usize); 2] {
        [(self.v4.name, self.known4.len()), (self.v6.name, self.known6.len())]
    }
}
