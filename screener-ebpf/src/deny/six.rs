//! IPv6: a hash table of /32 roots, and the spans of each.
//!
//! Layout, in quads: the header, the buckets, then blocks and free room, counted in words. A bucket is four slots of one
//! word: the root in the upper half, the word of its block in the lower; 0 is a free slot. What has no room in its bucket
//! goes to the next one.
//!
//! A *block* is a count and so many sorted words, each the beginning of a span: bits 32 to 63 of the address (behind the
//! root) in the upper half, a [`Fate`] in the lowest four bits. With [`DEEP`] the span is a /64 within which there is more,
//! and the bits from [`DEEP_SHIFT`] on, up to the upper half, lead to a *deep block*: a count, so many beginnings by the
//! lower half of the address, and then their fates, sixteen a word.
//!
//! Prefixes shorter than /32 stand in a block of their own ([`header::WIDE`]), by the upper 32 bits of the address, and hold
//! where there is no root: each root's spans have them in already.

use super::{Fate, Quads, header};

/// The quad of the first bucket.
pub const BUCKETS: u32 = header::QUADS;
/// How many buckets in a row a root may be looked for in. The table is built so that this suffices.
pub const MOST_PROBES: u32 = 8;
/// Steps of a search in a block: log2 of the most spans it may have.
pub const MOST_STEPS: u32 = 22;
/// Set in a span that has a deep block.
pub const DEEP: u64 = 1 << 4;
/// Where in a span the word of its deep block begins.
pub const DEEP_SHIFT: u32 = 5;

/// The bucket in which a root is looked for first.
#[inline(always)]
pub const fn bucket(root: u32, mask: u32) -> u32 {
    // The golden ratio: neighbours, which registries hand out in rows, land far from each other.
    ((root as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 & mask
}

/// The fate of an address, given as its two halves.
#[inline(always)]
pub fn find<Q: Quads + ?Sized>(quads: &Q, high: u64, low: u64) -> Fate {
    find_in(quads, (high >> 32) as u32, high as u32, low).unwrap_or(Fate::NONE)
}

#[inline(always)]
fn find_in<Q: Quads + ?Sized>(quads: &Q, root: u32, second: u32, low: u64) -> Option<Fate> {
    let mask = quads.word(header::BUCKET_MASK as u32)? as u32;
    let (block, key) = match block_of(quads, root, mask) {
        0 => (quads.word(header::WIDE as u32)? as u32, root),
        block => (block, second),
    };
    if block == 0 {
        return None;
    }
    let count = quads.word(block)? as u32;
    // The lower half set, so that a span that begins at the key itself is not beyond it.
    let span = quads.word(last_at(quads, block + 1, count, u64::from(key) << 32 | 0xffff_ffff)?)?;
    if span & DEEP == 0 {
        return Some(Fate(span as u8 & 15));
    }
    let deep = (span as u32) >> DEEP_SHIFT;
    let count = quads.word(deep)? as u32;
    let at = last_at(quads, deep + 1, count, low)? - (deep + 1);
    let fates = quads.word(deep + 1 + count + (at >> 4))?;
    Some(Fate((fates >> (4 * (at & 15))) as u8 & 15))
}

/// The block of a root; 0: it has none.
#[inline(always)]
fn block_of<Q: Quads + ?Sized>(quads: &Q, root: u32, mask: u32) -> u32 {
    let first = bucket(root, mask);
    for probe in 0..MOST_PROBES {
        let Some(bucket) = quads.quad(BUCKETS + ((first + probe) & mask)) else { return 0 };
        let mut full = true;
        for slot in bucket {
            // SAFETY: a reference to a live word; volatile, since a change in place stores it anew.
            let slot = unsafe { core::ptr::from_ref(slot).read_volatile() };
            if slot != 0 && (slot >> 32) as u32 == root {
                return slot as u32;
            }
            full &= slot != 0;
        }
        if !full {
            return 0;
        }
    }
    0
}

/// The last of `count` sorted words from `first` on that is not greater than `key`; the first one is not.
#[inline(always)]
fn last_at<Q: Quads + ?Sized>(quads: &Q, first: u32, count: u32, key: u64) -> Option<u32> {
    let (mut at, mut left) = (first, count);
    for _ in 0..MOST_STEPS {
        if left <= 1 {
            break;
        }
        let half = left >> 1;
        if quads.word(at + half)? <= key {
            at += half;
        }
        left -= half;
    }
    Some(at)
}
