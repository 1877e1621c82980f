//! Builds the IPv4 table ([`screener_ebpf::deny::four`]): whole, and for the /18s that a change touches.
//!
//! Pure: makes words out of spans. Never decides what holds where, and never touches a map.

use screener_ebpf::deny::four::{BITMAP_WORDS, FATES_WORDS, LEAVES, RECORD_COUNT, RECORDS, kind, record};
use screener_ebpf::deny::{Fate, Quad};

use super::flatten::{Cut, Span, Units};

/// Low bits of an address within a /24, and within an /18.
const IN_24: u8 = 8;
/// /24s in an /18.
const IN_18: usize = 64;
/// Addresses that a leaf can name one by one.
const OCTETS: usize = 7;
/// Ranges that a leaf can name.
const RANGES: usize = 3;

/// Makes the whole table out of spans, which come in order.
pub(super) struct Builder(Cut<Table>);

/// The words from the header on: records, leaves, blocks.
struct Table {
    records: Vec<Quad>,
    leaves: Vec<u64>,
    /// Blocks of leaves; until the end, leaves hold their places in here.
    blocks: Vec<u64>,
}

impl Builder {
    pub(super) fn new() -> Self {
        let table = Table { records: vec![[0; 4]; RECORD_COUNT as usize], leaves: Vec::new(), blocks: Vec::new() };
        Self(Cut::new(IN_24, table))
    }

    pub(super) fn take(&mut self, span: Span) {
        self.0.take(span);
    }

    /// What comes behind the header, as parts in order.
    pub(super) fn finish(self) -> [Vec<u64>; 3] {
        let Table { records, mut leaves, blocks } = self.0.finish();
        let offset = u64::from(LEAVES) + leaves.len() as u64;
        for leaf in &mut leaves {
            if has_block(*leaf) {
                *leaf += offset << 32;
            }
        }
        [records.into_flattened(), leaves, blocks]
    }
}

impl Table {
    /// Gives a /24 a leaf. They come in order, so that those of an /18 stand in a row.
    fn leaf(&mut self, unit: usize, leaf: u64) {
        let record = &mut self.records[unit / IN_18];
        if record[record::LEAVES] == 0 {
            record[record::BASE] = u64::from(LEAVES) + self.leaves.len() as u64;
        }
        record[record::LEAVES] |= 1 << (unit % IN_18);
        self.leaves.push(leaf);
    }
}

impl Units for Table {
    fn whole(&mut self, unit: u128, count: u128, fate: Fate) {
        let word = match fate {
            Fate::DROP => record::DROP,
            Fate::REJECT => record::REJECT,
            // A tag, or a dry run: few enough to have leaves.
            _ => {
                for unit in unit..unit + count {
                    self.leaf(unit as usize, whole(fate));
                }
                return;
            }
        };
        let (mut unit, end) = (unit as usize, (unit + count) as usize);
        while unit < end {
            let from = unit % IN_18;
            let here = (IN_18 - from).min(end - unit);
            self.records[unit / IN_18][word] |= (u64::MAX >> (IN_18 - here)) << from;
            unit += here;
        }
    }

    fn mixed(&mut self, unit: u128, parts: &[Span]) {
        let blocks = &mut self.blocks;
        let leaf = mixed(parts, |words| {
            let at = blocks.len();
            blocks.extend_from_slice(words);
            Some(at as u64)
        });
        // The closure always finds room.
        self.leaf(unit as usize, leaf.unwrap_or_default());
    }
}

/// The leaves of some neighbouring /18s, for a change: 64 words for each.
///
/// `allot` puts a block into free room and says where, or that there is none.
pub(super) struct Patch<F> {
    cut: Cut<Direct<F>>,
}

struct Direct<F> {
    first: usize,
    leaves: Vec<u64>,
    allot: F,
    no_room: bool,
}

impl<F: FnMut(&[u64]) -> Option<u64>> Patch<F> {
    /// For so many /18s from this one on.
    pub(super) fn new(first: u32, count: usize, allot: F) -> Self {
        let direct = Direct { first: first as usize * IN_18, leaves: vec![0; count * IN_18], allot, no_room: false };
        Self { cut: Cut::new(IN_24, direct) }
    }

    pub(super) fn take(&mut self, span: Span) {
        self.cut.take(span);
    }

    /// `None`: a block found no room.
    pub(super) fn finish(self) -> Option<Vec<u64>> {
        let direct = self.cut.finish();
        (!direct.no_room).then_some(direct.leaves)
    }
}

impl<F: FnMut(&[u64]) -> Option<u64>> Units for Direct<F> {
    fn whole(&mut self, unit: u128, count: u128, fate: Fate) {
        let from = unit as usize - self.first;
        self.leaves[from..from + count as usize].fill(whole(fate));
    }

    fn mixed(&mut self, unit: u128, parts: &[Span]) {
        match mixed(parts, &mut self.allot) {
            Some(leaf) => self.leaves[unit as usize - self.first] = leaf,
            None => self.no_room = true,
        }
    }
}

/// How many leaves a patch has for an /18.
pub(super) const PATCH_WORDS: usize = IN_18;

/// The quad of the record of an /18.
pub(super) fn record_of(eighteen: u32) -> u32 {
    RECORDS + eighteen
}

fn leaf(kind: u8, fate: Fate, payload: u64) -> u64 {
    payload | u64::from(kind << 4 | fate.0)
}

/// The leaf of a /24 that is all alike; 0 for one that is not listed.
fn whole(fate: Fate) -> u64 {
    leaf(kind::WHOLE, fate, 0)
}

/// Whether a leaf leads to a block.
fn has_block(leaf: u64) -> bool {
    matches!((leaf >> 4) as u8 & 7, kind::BITMAP | kind::FATES)
}

/// The leaf of a /24 of which these parts are listed. `None`: it needs a block, and there is no room for one.
fn mixed(parts: &[Span], mut allot: impl FnMut(&[u64]) -> Option<u64>) -> Option<u64> {
    let fate = parts.first().map_or(Fate::NONE, |part| part.fate);
    if parts.iter().any(|part| part.fate != fate) {
        let mut fates = [0u64; FATES_WORDS];
        for part in parts {
            for octet in octets(part) {
                fates[usize::from(octet / 16)] |= u64::from(part.fate.0) << (4 * (octet % 16));
            }
        }
        return Some(leaf(kind::FATES, Fate::NONE, allot(&fates)? << 32));
    }
    let addresses: usize = parts.iter().map(|part| octets(part).count()).sum();
    if addresses <= OCTETS {
        let mut bytes = [0; 8];
        let mut listed = parts.iter().flat_map(octets).cycle();
        bytes[1..].fill_with(|| listed.next().unwrap_or_default());
        return Some(leaf(kind::OCTETS, fate, u64::from_le_bytes(bytes)));
    }
    if parts.len() <= RANGES {
        let mut bytes = [0; 8];
        for (pair, part) in bytes[2..].chunks_exact_mut(2).zip(parts.iter().cycle()) {
            pair.copy_from_slice(&[part.first as u8, part.last as u8]);
        }
        return Some(leaf(kind::RANGES, fate, u64::from_le_bytes(bytes)));
    }
    let mut bitmap = [0u64; BITMAP_WORDS];
    for octet in parts.iter().flat_map(octets) {
        bitmap[usize::from(octet / 64)] |= 1 << (octet % 64);
    }
    Some(leaf(kind::BITMAP, fate, allot(&bitmap)? << 32))
}

/// The last octets of a part's addresses.
fn octets(part: &Span) -> std::ops::RangeInclusive<u8> {
    part.first as u8..=part.last as u8
}
