//! Where a simulated world's choices come from: a seed, or the bytes that a fuzzer makes up.

/// A source of choices; the same source makes the same choices.
#[derive(Clone, Debug)]
pub enum Entropy<'a> {
    /// Without end.
    Seed(u64),
    /// A choice a byte; when they are used up, always the first one.
    Bytes(&'a [u8]),
}

impl Entropy<'_> {
    /// A number below `bound`, which is at most 256 and not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        match self {
            Self::Seed(state) => {
                // splitmix64: one word of state, and every seed is a good one.
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut word = *state;
                word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                ((word ^ (word >> 31)) % bound as u64) as usize
            }
            Self::Bytes(left) => {
                let Some((&first, rest)) = left.split_first() else { return 0 };
                *left = rest;
                usize::from(first) % bound
            }
        }
    }

    /// True in so many of 100 cases.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        // A fuzzer whose bytes are used up says no.
        self.below(100) >= 100 - percent
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Whether there is nothing left to choose with.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Bytes([]))
    }
}
