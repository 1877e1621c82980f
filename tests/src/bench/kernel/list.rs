//! The lists of the bench: prefixes in the mixture of a real deny list, and addresses that are on them or not.
//!
//! Seeded: every run on every machine makes the same lists. Never holds a private address, nor one of the lab's own.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// How many prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// IPv4.
    pub(crate) v4: usize,
    /// IPv6.
    pub(crate) v6: usize,
}

/// A deny list.
#[derive(Debug)]
pub(crate) struct Lists {
    /// The IPv4 prefixes, each once, in order: first address, length.
    pub(crate) v4: Vec<(u32, u8)>,
    /// The IPv6 prefixes, likewise.
    pub(crate) v6: Vec<(u128, u8)>,
    /// The IPv4 addresses they cover, as ranges that neither overlap nor touch.
    pub(crate) ranges4: Vec<(u32, u32)>,
    /// The IPv6 addresses, likewise.
    pub(crate) ranges6: Vec<(u128, u128)>,
}

/// What a public list cannot hold, what a guard rail refuses, and where the lab's own hosts are.
const NEVER4: [(Ipv4Addr, u8); 13] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// The documentation prefix, where the lab's own hosts are.
const NEVER6: u32 = 0x2001_0db8;

impl Lists {
    /// Makes lists of a size: of IPv4 60 % single addresses that lie together in a few /24s, 30 % /24, 8 % between
    /// them and 2 % from /16 to /23; of IPv6 half /64, 20 % /48, 15 % /56, 10 % /32 and 5 % /128, under 30 % as many
    /// roots.
    pub(crate) fn new(size: Size, seed: u64) -> Self {
        let mut dice = Dice(seed);
        let (v4, v6) = (ipv4(size.v4, &mut dice), ipv6(size.v6, &mut dice));
        let ranges4 = merge(v4.iter().map(|&(first, length)| {
            let host = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            (u128::from(first), u128::from(first | host))
        }));
        let narrow = |address: u128| u32::try_from(address).unwrap_or(u32::MAX);
        let ranges4 = ranges4.into_iter().map(|(first, last)| (narrow(first), narrow(last))).collect();
        let ranges6 = merge(v6.iter().map(|&(first, length)| (first, first | host6(length))));
        Self { v4, v6, ranges4, ranges6 }
    }

    /// How many prefixes there are.
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// An address under an IPv4 prefix; each prefix is as likely as the others.
    pub(crate) fn listed4(&self, dice: &mut Dice) -> u32 {
        let (first, length) = self.v4[dice.below(self.v4.len())];
        first | (dice.next32() & u32::MAX.checked_shr(u32::from(length)).unwrap_or(0))
    }

    /// An address under an IPv6 prefix; each prefix is as likely as the others.
    pub(crate) fn listed6(&self, dice: &mut Dice) -> u128 {
        let (first, length) = self.v6[dice.below(self.v6.len())];
        first | (dice.next128() & host6(length))
    }

    /// A public IPv4 address that is not on the list.
    pub(crate) fn unlisted4(&self, dice: &mut Dice) -> u32 {
        loop {
            let address = dice.next32();
            if !is_never4(address, 32) && !covers(&self.ranges4, address) {
                return address;
            }
        }
    }

    /// A public IPv6 address that is not on the list.
    pub(crate) fn unlisted6(&self, dice: &mut Dice) -> u128 {
        loop {
            let address = public6(dice);
            if !covers(&self.ranges6, address) {
                return address;
            }
        }
    }

    /// An IPv6 address that is not on the list, under a /32 that has something on the list.
    pub(crate) fn neighbour6(&self, dice: &mut Dice) -> u128 {
        loop {
            let (first, _) = self.v6[dice.below(self.v6.len())];
            let address = first & !host6(32) | dice.next128() & host6(32);
            if !covers(&self.ranges6, address) {
                return address;
            }
        }
    }

    /// The text that `screener kernel map restore` reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::with_capacity(32 * self.len());
        for &(first, length) in &self.v4 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "deny {}/{length} drop", Ipv4Addr::from(first));
        }
        for &(first, length) in &self.v6 {
            let _ = writeln!(text, "deny {}/{length} drop", Ipv6Addr::from(first));
        }
        text
    }
}

/// The IPv4 prefixes in order.
fn ipv4(wanted: usize, dice: &mut Dice) -> Vec<(u32, u8)> {
    // Where single addresses and short ranges crowd.
    let crowded: Vec<u32> = (0..wanted * 15 / 100 + 1).map(|_| public4(dice, 24)).collect();
    let mut all = HashSet::with_capacity(wanted);
    while all.len() < wanted {
        let place = crowded[dice.below(crowded.len())];
        let (address, length) = match dice.below(100) {
            0..60 => (place | dice.next32() & 0xff, 32),
            60..90 => (public4(dice, 24), 24),
            90..98 => (place | dice.next32() & 0xff, 25 + dice.below(7) as u8),
            _ => {
                let length = 16 + dice.below(8) as u8;
                (public4(dice, length), length)
            }
        };
        all.insert((address & !u32::MAX.checked_shr(u32::from(length)).unwrap_or(0), length));
    }
    sorted(all)
}

/// The IPv6 prefixes in order.
fn ipv6(wanted: usize, dice: &mut Dice) -> Vec<(u128, u8)> {
    let roots: Vec<u128> = (0..wanted * 30 / 100 + 1).map(|_| public6(dice) & !host6(32)).collect();
    let mut all = HashSet::with_capacity(wanted);
    while all.len() < wanted {
        let root = roots[dice.below(roots.len())];
        let length = match dice.below(100) {
            0..50 => 64,
            50..70 => 48,
            70..85 => 56,
            85..95 => 32,
            _ => 128,
        };
        all.insert((root | dice.next128() & host6(32) & !host6(length), length));
    }
    sorted(all)
}

fn sorted<T: Ord>(all: HashSet<T>) -> Vec<T> {
    let mut all: Vec<T> = all.into_iter().collect();
    all.sort_unstable();
    all
}

/// The first address of a public prefix.
fn public4(dice: &mut Dice, length: u8) -> u32 {
    loop {
        let address = dice.next32() & !u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        if !is_never4(address, length) {
            return address;
        }
    }
}

/// An address under `2000::/3`.
fn public6(dice: &mut Dice) -> u128 {
    loop {
        let address = dice.next128() & host6(3) | 1 << 125;
        if (address >> 96) as u32 != NEVER6 {
            return address;
        }
    }
}

/// Whether a prefix and one of [`NEVER4`] overlap.
fn is_never4(address: u32, length: u8) -> bool {
    NEVER4.iter().any(|&(never, bits)| {
        let shared = u32::from(length.min(bits));
        (address ^ u32::from(never)).checked_shr(32 - shared).unwrap_or(0) == 0
    })
}

/// The host bits of an IPv6 prefix.
fn host6(length: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

/// Ranges in order of their first address become ranges that neither overlap nor touch.
fn merge(ranges: impl Iterator<Item = (u128, u128)>) -> Vec<(u128, u128)> {
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Whether one of the ranges, which are in order, holds the address.
fn covers<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|&(first, _)| first <= address);
    behind.checked_sub(1).is_some_and(|place| ranges[place].1 >= address)
}

/// A seeded source of numbers (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn next32(&mut self) -> u32 {
        (self.next64() >> 32) as u32
    }

    fn next128(&mut self) -> u128 {
        u128::from(self.next64()) << 64 | u128::from(self.next64())
    }

    /// A number below a limit that is small against 2^64.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next64()) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { v4: 20_000, v6: 2_000 };

    #[test]
    fn the_same_seed_makes_the_same_lists() {
        let (one, two) = (Lists::new(SIZE, 7), Lists::new(SIZE, 7));
        assert_eq!((one.v4, one.v6), (two.v4, two.v6));
    }

    #[test]
    fn the_mixture_is_that_of_a_real_list() {
        let lists = Lists::new(SIZE, 7);
        assert_eq!((lists.v4.len(), lists.v6.len()), (SIZE.v4, SIZE.v6));
        let share = |length: u8| lists.v4.iter().filter(|entry| entry.1 == length).count() * 100 / SIZE.v4;
        assert!((58..=62).contains(&share(32)), "{}", share(32));
        assert!((28..=32).contains(&share(24)), "{}", share(24));
        let single = lists.v6.iter().filter(|entry| entry.1 == 64).count() * 100 / SIZE.v6;
        assert!((45..=55).contains(&single), "{single}");
    }

    #[test]
    fn addresses_are_on_the_list_or_not_as_asked_for() {
        let lists = Lists::new(SIZE, 7);
        let mut dice = Dice(1);
        for _ in 0..2_000 {
            let (listed4, unlisted4) = (lists.listed4(&mut dice), lists.unlisted4(&mut dice));
            let under = |address: u32| {
                lists.v4.iter().any(|&(first, length)| {
                    first ^ address == 0 || (first ^ address).leading_zeros() >= u32::from(length)
                })
            };
            assert!(under(listed4) && !under(unlisted4), "{listed4:x} {unlisted4:x}");
            let under = |address: u128| {
                lists.v6.iter().any(|&(first, length)| (first ^ address).leading_zeros() >= u32::from(length))
            };
            assert!(under(lists.listed6(&mut dice)));
            assert!(!under(lists.unlisted6(&mut dice)) && !under(lists.neighbour6(&mut dice)));
        }
    }

    #[test]
    fn nothing_private_is_ever_listed() {
        let lists = Lists::new(SIZE, 7);
        for (never, length) in NEVER4 {
            let host = u32::MAX.checked_shr(u32::from(length)).unwrap_or(0);
            let first = u32::from(never);
            assert!(!covers(&lists.ranges4, first) && !covers(&lists.ranges4, first | host), "{never}/{length}");
        }
    }

    #[test]
    fn ranges_that_overlap_or_touch_become_one() {
        let ranges = [(1, 4), (2, 3), (5, 9), (11, 12), (11, 20)];
        assert_eq!(merge(ranges.into_iter()), [(1, 9), (11, 20)]);
    }
}
