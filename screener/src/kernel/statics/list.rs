//! The list of entries that a deny set was made of, as it stands behind the table in the same map.
//!
//! Holds its form: sorted entries, then the changes since, in the order in which they came. So whoever opens the set, with
//! or without a daemon, knows every entry, and an entry can go again that another one covers. Pure: reads and makes words.

use std::collections::BTreeMap;

use screener_ebpf::action;

use super::flatten::{Item, Prefix, V4};

/// How many changes find room before all is compiled anew.
pub(super) const CHANGES_ROOM: usize = 4096;

/// Words of an entry.
pub(super) const fn entry_words(bits: u8) -> usize {
    if bits == V4 { 1 } else { 3 }
}

/// The words of an entry.
pub(super) fn encode(item: Item, bits: u8, words: &mut [u64]) {
    let Item { prefix: Prefix { first, length }, action } = item;
    let tail = u64::from(length) << 8 | u64::from(action);
    match words {
        [word] if bits == V4 => *word = (first as u64) << 32 | tail,
        [high, low, last] => (*high, *low, *last) = ((first >> 64) as u64, first as u64, tail),
        _ => {}
    }
}

/// The entry in these words, of an action that exists; [`action::NONE`] in a change takes an entry away.
pub(super) fn decode(words: &[u64], bits: u8) -> Option<Item> {
    let (first, tail) = match *words {
        [word] if bits == V4 => (u128::from(word >> 32), word & 0xffff_ffff),
        [high, low, tail] => (u128::from(high) << 64 | u128::from(low), tail),
        _ => return None,
    };
    let (length, action) = (u8::try_from(tail >> 8).ok()?, tail as u8);
    let prefix = Prefix { first, length };
    (length <= bits && action <= action::COUNT && prefix.cut(length, bits) == prefix).then_some(Item { prefix, action })
}

/// The list, to read: what stands in the map, and the changes by their prefix.
#[derive(Clone, Copy)]
pub(super) struct List<'a> {
    pub(super) bits: u8,
    /// The sorted entries.
    pub(super) base: &'a [u64],
    /// [`action::NONE`]: the entry has gone.
    pub(super) changes: &'a BTreeMap<Prefix, u8>,
}

impl<'a> List<'a> {
    fn len(&self) -> usize {
        self.base.len() / entry_words(self.bits)
    }

    fn at(&self, index: usize) -> Option<Item> {
        let words = entry_words(self.bits);
        decode(self.base.get(index * words..(index + 1) * words)?, self.bits)
    }

    /// The number of entries before a prefix in the order.
    fn position(&self, prefix: Prefix) -> usize {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.at(middle) {
                Some(item) if item.prefix < prefix => from = middle + 1,
                _ => to = middle,
            }
        }
        from
    }

    /// What the entry of exactly this prefix says.
    pub(super) fn get(&self, prefix: Prefix) -> Option<u8> {
        let said = match self.changes.get(&prefix) {
            Some(&action) => Some(action),
            None => self.at(self.position(prefix)).filter(|item| item.prefix == prefix).map(|item| item.action),
        };
        said.filter(|&action| action != action::NONE)
    }

    /// The entries from this prefix on, in order, while `inside`.
    fn range(self, from: Prefix, inside: impl Fn(Prefix) -> bool + Copy + 'a) -> impl Iterator<Item = Item> + 'a {
        let old = (self.position(from)..self.len())
            .map_while(move |index| self.at(index))
            .take_while(move |item| inside(item.prefix))
            .filter(move |item| !self.changes.contains_key(&item.prefix));
        let new = self.changes.range(from..).take_while(move |&(&prefix, _)| inside(prefix));
        let new = new.map(|(&prefix, &action)| Item { prefix, action }).filter(|item| item.action != action::NONE);
        merge(old, new)
    }

    /// Every entry, in order.
    pub(super) fn iter(self) -> impl Iterator<Item = Item> + 'a {
        self.range(Prefix { first: 0, length: 0 }, |_| true)
    }

    /// The entries that cover a region, and those within it, in order.
    pub(super) fn about(self, region: Prefix) -> impl Iterator<Item = Item> + 'a {
        let over = (0..region.length).filter_map(move |length| {
            let prefix = region.cut(length, self.bits);
            self.get(prefix).map(|action| Item { prefix, action })
        });
        let last = region.last(self.bits);
        over.chain(self.range(region, move |prefix| prefix.first <= last))
    }
}

/// Two sorted sequences as one; of equals the first one's comes first.
pub(super) fn merge(
    first: impl Iterator<Item = Item>,
    second: impl Iterator<Item = Item>,
) -> impl Iterator<Item = Item> {
    let (mut first, mut second) = (first.peekable(), second.peekable());
    std::iter::from_fn(move || match (first.peek(), second.peek()) {
        (Some(a), Some(b)) if b.prefix < a.prefix => second.next(),
        (Some(_), _) => first.next(),
        (None, _) => second.next(),
    })
}
