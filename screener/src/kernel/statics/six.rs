//! Builds the IPv6 table ([`screener_ebpf::deny::six`]): whole, and the block of one root that a change touches.
//!
//! Pure: makes words out of spans. Never decides what holds where, and never touches a map.

use screener_ebpf::deny::Fate;
use screener_ebpf::deny::six::{BUCKETS, DEEP, DEEP_SHIFT, MOST_PROBES, bucket};

use super::flatten::{Cut, Span, Units, low_bits};

/// Low bits of an address within a root.
const IN_ROOT: u8 = 96;
/// Low bits of an address within a /64.
const IN_64: u8 = 64;
/// Slots in a bucket.
const SLOTS: usize = 4;
/// Buckets of the smallest table.
const FEWEST_BUCKETS: usize = 256;
/// So many whole neighbouring roots each get a slot; more are a span in the block of the wide ones. A registry's allotment
/// (/29, 8 roots) costs as little as a /32, and the wide block, which everybody unlisted is looked for in, stays short.
const MOST_ROOTS: u128 = 64;

/// Makes the whole table out of spans, which come in order.
pub(super) struct Builder(Cut<Roots>);

#[derive(Default)]
struct Roots {
    /// Root, and where its block is in `blocks`.
    roots: Vec<(u32, usize)>,
    blocks: Vec<u64>,
    /// Of prefixes shorter than /32, as long ranges of roots.
    wide: Vec<u64>,
}

/// The table: words from the header on, and what stands in the header.
pub(super) struct Table {
    pub(super) parts: [Vec<u64>; 2],
    pub(super) mask: u64,
    pub(super) wide: u64,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self(Cut::new(IN_ROOT, Roots::default()))
    }

    pub(super) fn take(&mut self, span: Span) {
        self.0.take(span);
    }

    pub(super) fn finish(self) -> Table {
        let Roots { roots, mut blocks, wide } = self.0.finish();
        let mut buckets = (roots.len() * 2).next_power_of_two() / SLOTS;
        buckets = buckets.max(FEWEST_BUCKETS);
        let slots = loop {
            if let Some(slots) = fill(&roots, buckets) {
                break slots;
            }
            buckets *= 2;
        };
        let first = (BUCKETS as usize * SLOTS + slots.len()) as u64;
        let wide_at = if wide.is_empty() { 0 } else { first + blocks.len() as u64 };
        if !wide.is_empty() {
            push_block(&mut blocks, &wide);
        }
        let slots = slots.iter().map(|&slot| if slot == 0 { 0 } else { slot - 1 + first }).collect();
        let mut table = Table { parts: [slots, blocks], mask: buckets as u64 - 1, wide: wide_at };
        table.move_deep_blocks(first);
        table
    }
}

impl Table {
    /// Deep blocks stand behind their root's block, and are found by their distance until now.
    fn move_deep_blocks(&mut self, first: u64) {
        let [_, blocks] = &mut self.parts;
        let mut at = 0;
        while at < blocks.len() {
            let end = at + 1 + blocks[at] as usize;
            let mut next = end;
            for span in at + 1..end {
                if blocks[span] & DEEP != 0 {
                    blocks[span] += first << DEEP_SHIFT;
                    let deep = blocks[next] as usize;
                    next += 1 + deep + deep.div_ceil(16);
                }
            }
            at = next;
        }
    }
}

fn push_block(blocks: &mut Vec<u64>, spans: &[u64]) {
    blocks.push(spans.len() as u64);
    blocks.extend_from_slice(spans);
}

/// The slots, each 0 or a root with the place of its block in the blocks plus one; `None`: the table is too small.
fn fill(roots: &[(u32, usize)], buckets: usize) -> Option<Vec<u64>> {
    let mut slots = vec![0; buckets * SLOTS];
    for &(root, block) in roots {
        let free = places(root, buckets as u32 - 1).find(|&slot| slots[slot] == 0)?;
        slots[free] = u64::from(root) << 32 | (block as u64 + 1);
    }
    Some(slots)
}

/// Where a root may stand, in the order in which it is looked for there: numbers of slots.
pub(super) fn places(root: u32, mask: u32) -> impl Iterator<Item = usize> {
    let first = bucket(root, mask);
    (0..MOST_PROBES).flat_map(move |probe| {
        let at = (first.wrapping_add(probe) & mask) as usize * SLOTS;
        at..at + SLOTS
    })
}

impl Units for Roots {
    fn whole(&mut self, unit: u128, count: u128, fate: Fate) {
        if count <= MOST_ROOTS {
            let block = self.blocks.len();
            push_block(&mut self.blocks, &[u64::from(fate.0)]);
            self.roots.extend((unit..unit + count).map(|root| (root as u32, block)));
            return;
        }
        push_run(&mut self.wide, unit, count, fate);
    }

    fn mixed(&mut self, unit: u128, parts: &[Span]) {
        let at = self.blocks.len();
        let block = block_of(unit as u32, parts, at as u64);
        self.roots.push((unit as u32, at));
        self.blocks.extend(block);
    }
}

/// What a change of a prefix shorter than /32 touches: ranges of whole roots, and roots that are not all alike.
#[derive(Default)]
pub(super) struct Region {
    runs: Vec<Run>,
    /// The roots that must have a slot.
    pub(super) mixed: Vec<u32>,
}

/// A root, how many from there on, and their fate.
type Run = (u128, u128, Fate);

impl Region {
    /// Out of spans within the region.
    pub(super) fn of(spans: Vec<Span>) -> Self {
        let mut cut = Cut::new(IN_ROOT, Self::default());
        spans.into_iter().for_each(|span| cut.take(span));
        cut.finish()
    }

    /// The block of the wide prefixes, in place of an old one of these spans, of which what lay between two roots has gone.
    /// `None`: there is no wide prefix any more.
    pub(super) fn wide_block(&self, old: &[u64], first: u32, last: u32) -> Option<Vec<u64>> {
        let (first, last) = (u128::from(first), u128::from(last));
        let ends = old.iter().skip(1).map(|span| u128::from(span >> 32)).chain([1 << 32]);
        let kept = old.iter().zip(ends).flat_map(|(&span, end)| {
            let (begin, fate) = (u128::from(span >> 32), Fate(span as u8 & 15));
            let pieces = [(begin, end.min(first)), (begin.max(last + 1), end)];
            let pieces = pieces.into_iter().filter(move |&(from, to)| fate != Fate::NONE && from < to);
            pieces.map(move |(from, to)| (from, to - from, fate))
        });
        let mut runs: Vec<Run> = kept.chain(self.runs.iter().copied()).collect();
        runs.sort_by_key(|&(root, _, _)| root);
        let (mut spans, mut block) = (Vec::new(), Vec::new());
        for (root, count, fate) in runs {
            push_run(&mut spans, root, count, fate);
        }
        push_block(&mut block, &spans);
        (!spans.is_empty()).then_some(block)
    }
}

impl Units for Region {
    fn whole(&mut self, unit: u128, count: u128, fate: Fate) {
        self.runs.push((unit, count, fate));
    }

    fn mixed(&mut self, unit: u128, _: &[Span]) {
        self.mixed.push(unit as u32);
    }
}

/// Adds a run of units, by the low 32 bits of their numbers, to sorted spans, and the gap before and the end behind it.
fn push_run(spans: &mut Vec<u64>, unit: u128, count: u128, fate: Fate) {
    let first = unit & low_bits(32);
    begin_at(spans, first, u64::from(fate.0));
    let end = first + count;
    if end <= low_bits(32) {
        // The gap behind; what follows at once takes its place.
        spans.push((end as u64) << 32);
    }
}

/// Adds the beginning of a span: in the place of the gap behind the one before it, if there is none.
fn begin_at(spans: &mut Vec<u64>, first: u128, what: u64) {
    if spans.is_empty() && first > 0 {
        spans.push(0);
    }
    let word = (first as u64) << 32;
    if spans.last() == Some(&word) {
        spans.pop();
    }
    spans.push(word | what);
}

/// The block of a root of which these parts are listed, with its deep blocks behind it; `at`: the word it will be at.
pub(super) fn block_of(root: u32, parts: &[Span], at: u64) -> Vec<u64> {
    let mut cut = Cut::new(IN_64, Spans { base: u128::from(root) << 32, spans: Vec::new(), deep: Vec::new() });
    for part in parts {
        cut.take(*part);
    }
    let Spans { mut spans, deep, .. } = cut.finish();
    if spans.is_empty() {
        spans.push(0);
    }
    let mut block = Vec::with_capacity(1 + spans.len() + deep.len());
    let deep_at = at + 1 + spans.len() as u64;
    for span in &mut spans {
        if *span & DEEP != 0 {
            *span += deep_at << DEEP_SHIFT;
        }
    }
    push_block(&mut block, &spans);
    block.extend(deep);
    block
}

/// What a root's block is made of.
struct Spans {
    /// The number of the root's first /64.
    base: u128,
    spans: Vec<u64>,
    deep: Vec<u64>,
}

impl Units for Spans {
    fn whole(&mut self, unit: u128, count: u128, fate: Fate) {
        push_run(&mut self.spans, unit - self.base, count, fate);
    }

    fn mixed(&mut self, unit: u128, parts: &[Span]) {
        let place = self.deep.len() as u64;
        let second = unit - self.base;
        begin_at(&mut self.spans, second, DEEP | place << DEEP_SHIFT);
        if second < low_bits(32) {
            self.spans.push((second as u64 + 1) << 32);
        }
        let (mut firsts, mut fates) = (Vec::new(), Vec::new());
        let mut next = 0;
        for part in parts {
            let first = part.first as u64;
            if first > next {
                firsts.push(next);
                fates.push(Fate::NONE);
            }
            firsts.push(first);
            fates.push(part.fate);
            match (part.last as u64).checked_add(1) {
                Some(after) => next = after,
                None => return self.push_deep(&firsts, &fates),
            }
        }
        firsts.push(next);
        fates.push(Fate::NONE);
        self.push_deep(&firsts, &fates);
    }
}

impl Spans {
    fn push_deep(&mut self, firsts: &[u64], fates: &[Fate]) {
        push_block(&mut self.deep, firsts);
        for sixteen in fates.chunks(16) {
            let word = sixteen.iter().rev().fold(0, |word, fate| word << 4 | u64::from(fate.0));
            self.deep.push(word);
        }
    }
}
