//! From nested prefixes to what happens to each address: spans of addresses, none within another.
//!
//! Holds precedence between entries (DESIGN.md section 2): a permit beats every deny; among denies the longest prefix decides,
//! and a `count` entry lets what it lies upon decide. Pure, and of both families: addresses are numbers of 32 or 128 bits.

use screener_ebpf::action;
use screener_ebpf::deny::Fate;

/// How many bits an address has.
pub(super) const V4: u8 = 32;
/// How many bits an address has.
pub(super) const V6: u8 = 128;

/// A prefix of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix {
    /// Its first address.
    pub(super) first: u128,
    pub(super) length: u8,
}

impl Prefix {
    /// Its last address.
    pub(super) fn last(self, bits: u8) -> u128 {
        self.first | low_bits(bits - self.length)
    }

    /// The prefix of this length that covers the first address of this one.
    pub(super) fn cut(self, length: u8, bits: u8) -> Self {
        Self { first: self.first & !low_bits(bits - length), length }
    }
}

/// So many bits set, from the lowest on.
pub(super) fn low_bits(count: u8) -> u128 {
    u128::MAX.checked_shr(128 - u32::from(count)).unwrap_or(0)
}

/// A prefix and what is said about it: one of [`action`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) prefix: Prefix,
    pub(super) action: u8,
}

/// Neighbouring addresses with one fate, which is not [`Fate::NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u128,
    pub(super) last: u128,
    pub(super) fate: Fate,
}

/// What holds within a prefix, as far as nothing longer says otherwise.
#[derive(Clone, Copy)]
struct Level {
    last: u128,
    fate: Fate,
    permitted: bool,
}

impl Level {
    /// What holds within a prefix inside of this one.
    fn within(self, last: u128, action: u8) -> Self {
        if self.permitted || action == action::PERMIT {
            return Self { last, fate: Fate::NONE, permitted: true };
        }
        let fate = if action == action::COUNT { self.fate.and_counted() } else { Fate(action) };
        Self { last, fate, permitted: false }
    }
}

/// Flattens the entries that lie in `region` or cover it, and says so span by span, in order and clipped to it.
///
/// The items must come in the order of their prefixes: what covers comes before what is covered.
pub(super) fn flatten(items: impl IntoIterator<Item = Item>, region: Prefix, bits: u8, mut each: impl FnMut(Span)) {
    let end = region.last(bits);
    let mut joined = Joined { pending: None, each: &mut each };
    let mut levels = vec![Level { last: end, fate: Fate::NONE, permitted: false }];
    // The first address about which nothing has been said yet; `None`: none is left.
    let mut at = Some(region.first);
    for Item { prefix, action } in items {
        close(&mut levels, &mut at, prefix.first, &mut joined);
        let (Some(level), Some(from)) = (levels.last().copied(), at) else { break };
        if prefix.first > from {
            joined.say(Span { first: from, last: prefix.first - 1, fate: level.fate });
            at = Some(prefix.first);
        }
        levels.push(level.within(prefix.last(bits).min(end), action));
    }
    while let (Some(level), Some(from)) = (levels.pop(), at) {
        at = joined.up_to(level, from);
    }
    joined.finish();
}

/// Leaves the levels that end before an address.
fn close(levels: &mut Vec<Level>, at: &mut Option<u128>, before: u128, joined: &mut Joined<impl FnMut(Span)>) {
    while let (Some(&level), Some(from)) = (levels.last(), *at) {
        if level.last >= before {
            return;
        }
        *at = joined.up_to(level, from);
        levels.pop();
    }
}

/// Joins neighbours that are alike, and leaves out what is not listed.
struct Joined<'a, F> {
    pending: Option<Span>,
    each: &'a mut F,
}

impl<F: FnMut(Span)> Joined<'_, F> {
    /// Says what holds from an address to the end of a level, and returns the next address.
    fn up_to(&mut self, level: Level, from: u128) -> Option<u128> {
        if from > level.last {
            return Some(from);
        }
        self.say(Span { first: from, last: level.last, fate: level.fate });
        level.last.checked_add(1)
    }

    fn say(&mut self, span: Span) {
        if let Some(pending) = &mut self.pending
            && pending.fate == span.fate
            && pending.last + 1 == span.first
        {
            pending.last = span.last;
            return;
        }
        self.finish();
        if span.fate != Fate::NONE {
            self.pending = Some(span);
        }
    }

    fn finish(&mut self) {
        if let Some(span) = self.pending.take() {
            (self.each)(span);
        }
    }
}

/// Takes spans cut at the borders of units (a /24, a /32, a /64).
pub(super) trait Units {
    /// So many neighbouring units have one fate as a whole.
    fn whole(&mut self, unit: u128, count: u128, fate: Fate);
    /// A unit of which only parts are listed, or of several fates. The parts lie within it, in order.
    fn mixed(&mut self, unit: u128, parts: &[Span]);
}

/// Cuts spans, which come in order, into units of so many low bits.
pub(super) struct Cut<U> {
    low: u8,
    parts: Vec<Span>,
    pub(super) units: U,
}

impl<U: Units> Cut<U> {
    pub(super) fn new(low: u8, units: U) -> Self {
        Self { low, parts: Vec::new(), units }
    }

    pub(super) fn take(&mut self, mut span: Span) {
        let inside = low_bits(self.low);
        if span.first & inside != 0 || span.last < (span.first | inside) {
            let end = span.first | inside;
            self.part(Span { last: span.last.min(end), ..span });
            if span.last <= end {
                return;
            }
            span.first = end + 1;
        }
        // From here on it begins with a unit. The last one that is whole ends where the span does or at the border before.
        let whole_end =
            if span.last & inside == inside { Some(span.last) } else { (span.last & !inside).checked_sub(1) };
        if let Some(whole_end) = whole_end.filter(|&end| end > span.first) {
            self.flush();
            let first = span.first >> self.low;
            self.units.whole(first, (whole_end >> self.low) - first + 1, span.fate);
            if whole_end == span.last {
                return;
            }
            span.first = whole_end + 1;
        }
        self.part(span);
    }

    fn part(&mut self, part: Span) {
        if self.parts.last().is_some_and(|last| last.last >> self.low != part.first >> self.low) {
            self.flush();
        }
        self.parts.push(part);
    }

    fn flush(&mut self) {
        if let Some(first) = self.parts.first() {
            self.units.mixed(first.first >> self.low, &self.parts);
            self.parts.clear();
        }
    }

    /// The units, with the last of them said.
    pub(super) fn finish(mut self) -> U {
        self.flush();
        self.units
    }
}
