//! IPv4: a record for each /18, a leaf for each /24 that is not all alike.
//!
//! Layout, in quads: the header, 2^18 [records](record), then leaves, blocks and free room, all counted in words.
//!
//! A lookup takes one cache line if the address's /24 is unlisted or dropped or rejected as a whole, two if it is mixed,
//! three if more is listed in it than a leaf can hold.

use super::{Fate, Quad, Quads, header};

/// The quad of the first record.
pub const RECORDS: u32 = header::QUADS;
/// How many records there are.
pub const RECORD_COUNT: u32 = 1 << 18;
/// The first word behind the records.
pub const LEAVES: u32 = (RECORDS + RECORD_COUNT) * 4;

/// Words of a record. Bit n of the first three is the n-th /24 of the /18.
pub mod record {
    /// Which have a leaf. Their leaves stand in a row, in order.
    pub const LEAVES: usize = 0;
    /// Which of those without a leaf are dropped as a whole.
    pub const DROP: usize = 1;
    /// Which of those without a leaf are rejected as a whole.
    pub const REJECT: usize = 2;
    /// The word of the first leaf. Or, with [`DIRECT`], of 64 leaves, one for each /24, and then the other words do not
    /// count: a change puts these in place by one store.
    pub const BASE: usize = 3;
    /// See [`BASE`].
    pub const DIRECT: u64 = 1 << 63;
}

/// What a leaf is; bits 4 to 6 of the word. Bits 0 to 3 are a [`Fate`].
pub mod kind {
    /// The whole /24 has the fate.
    pub const WHOLE: u8 = 0;
    /// Up to seven addresses have it: their last octets in the upper seven bytes, one of them repeated in those left over.
    pub const OCTETS: u8 = 1;
    /// Up to three ranges have it: first and last octet in bytes 2 to 7, one of them repeated in those left over.
    pub const RANGES: u8 = 2;
    /// Those have it whose bits are set in a block of four words; the block's first word in the upper half.
    pub const BITMAP: u8 = 3;
    /// Each address has a fate of its own, four bits of a block of sixteen words; the block's first word in the upper half.
    pub const FATES: u8 = 4;
}

/// Words of a [`kind::BITMAP`] block.
pub const BITMAP_WORDS: usize = 4;
/// Words of a [`kind::FATES`] block.
pub const FATES_WORDS: usize = 16;

const LOW_BYTES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// The fate of an address, in network order.
#[inline(always)]
pub fn find<Q: Quads + ?Sized>(quads: &Q, address: [u8; 4]) -> Fate {
    find_in(quads, u32::from_be_bytes(address)).unwrap_or(Fate::NONE)
}

#[inline(always)]
fn find_in<Q: Quads + ?Sized>(quads: &Q, address: u32) -> Option<Fate> {
    let record: &Quad = quads.quad(RECORDS + (address >> 14))?;
    let at = (address >> 8) & 63;
    let bit = 1u64 << at;
    // SAFETY: a reference to a live word; volatile, since a change in place stores it anew.
    let base = unsafe { core::ptr::from_ref(&record[record::BASE]).read_volatile() };
    let index = if base & record::DIRECT != 0 {
        base as u32 + at
    } else if record[record::LEAVES] & bit != 0 {
        base as u32 + (record[record::LEAVES] & (bit - 1)).count_ones()
    } else if record[record::DROP] & bit != 0 {
        return Some(Fate::DROP);
    } else if record[record::REJECT] & bit != 0 {
        return Some(Fate::REJECT);
    } else {
        return None;
    };
    in_leaf(quads, quads.word(index)?, address as u8)
}

/// The fate that a leaf gives to an octet.
#[inline(always)]
fn in_leaf<Q: Quads + ?Sized>(quads: &Q, leaf: u64, octet: u8) -> Option<Fate> {
    let fate = Fate(leaf as u8 & 15);
    let wide = u64::from(octet);
    let listed = match (leaf >> 4) as u8 & 7 {
        kind::WHOLE => true,
        kind::OCTETS => {
            // A byte that is equal becomes zero; the classical test finds zero bytes, and the lowest byte, which is no
            // octet, is made other than zero.
            let differing = (leaf ^ (wide * LOW_BYTES)) | 0xff;
            differing.wrapping_sub(LOW_BYTES) & !differing & HIGH_BITS != 0
        }
        kind::RANGES => in_range(leaf >> 16, wide) | in_range(leaf >> 32, wide) | in_range(leaf >> 48, wide),
        kind::BITMAP => quads.word((leaf >> 32) as u32 + u32::from(octet >> 6))? >> (octet & 63) & 1 != 0,
        kind::FATES => {
            let word = quads.word((leaf >> 32) as u32 + u32::from(octet >> 4))?;
            return Some(Fate((word >> (4 * u32::from(octet & 15))) as u8 & 15));
        }
        // Nobody writes anything else; if somebody did, mail must not stop for it.
        _ => false,
    };
    listed.then_some(fate)
}

/// Whether an octet lies in the range of the lowest two bytes: first, last.
#[inline(always)]
fn in_range(pair: u64, octet: u64) -> bool {
    let (first, last) = (pair & 0xff, pair >> 8 & 0xff);
    octet.wrapping_sub(first) <= last.wrapping_sub(first)
}
