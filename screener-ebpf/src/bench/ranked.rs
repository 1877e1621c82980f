//! The rival for IPv4: the ranked /24 table, which DESIGN.md names as the one to beat.
//!
//! One record a /16 says in two bits of each /24 whether it is listed not at all, as a whole or in part; bitmaps of those
//! listed in part are packed, and the record counts up to the right one.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

use crate::shared::{Bitmap, PARTIAL, Rank, WHOLE};

#[map]
static RANKS: Array<Rank> = Array::with_max_entries(1 << 16, BPF_F_MMAPABLE);

/// As many as the list needs: the size is set when it is loaded.
#[map]
static BITMAPS: Array<Bitmap> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The low bit of each pair.
const LOW: u64 = 0x5555_5555_5555_5555;

/// Whether the address is listed.
#[inline(always)]
pub(crate) fn lists(address: [u8; 4]) -> bool {
    let [a, b, c, d] = address;
    let Some(rank) = RANKS.get(u32::from(a) << 8 | u32::from(b)) else { return false };
    let word = usize::from(c >> 5);
    let shift = u32::from(c & 31) * 2;
    let codes = rank.codes[word];
    match codes >> shift & 3 {
        0 => return false,
        WHOLE => return true,
        _ => {}
    }
    // How many pairs below are `PARTIAL`, which is the high bit of a pair alone.
    const { assert!(PARTIAL == 2) };
    let below = codes & ((1 << shift) - 1);
    let place = rank.base + u32::from(rank.counts[word]) + ones(below >> 1 & LOW);
    let Some(bitmap) = BITMAPS.get(place) else { return false };
    bitmap[usize::from(d >> 6)] >> (d & 63) & 1 == 1
}

/// The number of ones among the low bits of the pairs: BPF has no instruction for it.
#[inline(always)]
fn ones(pairs: u64) -> u32 {
    let fours = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    let bytes = (fours + (fours >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    (bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56) as u32
}
