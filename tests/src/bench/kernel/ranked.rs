//! Builds the rival design: the ranked /24 table for IPv4, roots and hashes for IPv6.
//!
//! The lookup is in `screener-ebpf/src/bench/ranked.rs` and `hashes.rs`. Nothing of this is in the daemon.

use std::collections::HashMap;

use super::shared::{Bitmap, Lengths, PARTIAL, Prefix6, Rank, WHOLE};

/// The two arrays of the IPv4 table.
#[derive(Debug)]
pub(crate) struct Table {
    /// One a /16.
    pub(crate) ranks: Vec<Rank>,
    /// One for each /24 that is listed in part.
    pub(crate) bitmaps: Vec<Bitmap>,
}

impl Table {
    /// Builds the table out of ranges in order that do not overlap.
    pub(crate) fn new(ranges: &[(u32, u32)]) -> Self {
        let mut table = Self { ranks: vec![Rank::default(); 1 << 16], bitmaps: Vec::new() };
        // The /24 of the last bitmap: ranges come in order, so a partial /24 is met in one go.
        let mut open = None;
        for &(first, last) in ranges {
            let mut at = first;
            loop {
                let end = last.min(at | 0xff);
                let block = at >> 8;
                if at & 0xff == 0 && end & 0xff == 0xff {
                    table.mark(block, WHOLE);
                } else {
                    if open != Some(block) {
                        table.mark(block, PARTIAL);
                        table.bitmaps.push([0; 4]);
                        open = Some(block);
                    }
                    if let Some(bitmap) = table.bitmaps.last_mut() {
                        (at & 0xff..=end & 0xff).for_each(|bit| bitmap[bit as usize >> 6] |= 1 << (bit & 63));
                    }
                }
                if end == last {
                    break;
                }
                at = end + 1;
            }
        }
        table.rank();
        table
    }

    fn mark(&mut self, block: u32, code: u64) {
        let place = block & 0xff;
        self.ranks[block as usize >> 8].codes[place as usize >> 5] |= code << ((place & 31) * 2);
    }

    /// Writes down how many bitmaps come before each /16 and each word in it.
    fn rank(&mut self) {
        let mut base = 0;
        for rank in &mut self.ranks {
            rank.base = base;
            let mut before = 0;
            for (codes, count) in rank.codes.iter().zip(&mut rank.counts) {
                *count = before;
                // At most 32 a word, so at most 224 before the last one.
                before = before.wrapping_add((codes >> 1 & 0x5555_5555_5555_5555).count_ones() as u8);
                base += (codes >> 1 & 0x5555_5555_5555_5555).count_ones();
            }
        }
    }
}

/// The two hashes of IPv6.
#[derive(Debug, Default)]
pub(crate) struct Hashes {
    /// By the first 32 bits.
    pub(crate) roots: HashMap<[u8; 4], Lengths>,
    /// The prefixes themselves.
    pub(crate) prefixes: Vec<Prefix6>,
}

impl Hashes {
    /// Builds them; no prefix of the bench is shorter than a root.
    pub(crate) fn new(prefixes: &[(u128, u8)]) -> Self {
        let mut hashes = Self::default();
        for &(first, length) in prefixes {
            let address = first.to_be_bytes();
            let [a, b, c, d, ..] = address;
            let lengths = hashes.roots.entry([a, b, c, d]).or_default();
            if !lengths.contains(&length)
                && let Some(free) = lengths.iter_mut().find(|slot| **slot == 0)
            {
                *free = length;
            }
            hashes.prefixes.push(Prefix6 { address, length: length.into() });
        }
        hashes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::kernel::list::{Dice, Lists, Size};

    /// The lookup of the kernel half, in user space.
    fn lists(table: &Table, address: u32) -> bool {
        let rank = &table.ranks[address as usize >> 16];
        let (word, shift) = ((address >> 13 & 7) as usize, (address >> 8 & 31) * 2);
        match rank.codes[word] >> shift & 3 {
            0 => false,
            WHOLE => true,
            _ => {
                let below = rank.codes[word] & ((1 << shift) - 1);
                let below = (below >> 1 & 0x5555_5555_5555_5555).count_ones();
                let bitmap = table.bitmaps[(rank.base + u32::from(rank.counts[word]) + below) as usize];
                bitmap[(address >> 6 & 3) as usize] >> (address & 63) & 1 == 1
            }
        }
    }

    #[test]
    fn the_table_says_what_the_list_says() {
        let list = Lists::new(Size { v4: 30_000, v6: 10 }, 3);
        let table = Table::new(&list.ranges4);
        let mut dice = Dice(4);
        for _ in 0..20_000 {
            assert!(lists(&table, list.listed4(&mut dice)));
            assert!(!lists(&table, list.unlisted4(&mut dice)));
        }
        for &(first, last) in &list.ranges4 {
            assert!(lists(&table, first) && lists(&table, last));
            assert!(!lists(&table, first - 1) && !lists(&table, last + 1), "{first:x}-{last:x}");
        }
    }
}
