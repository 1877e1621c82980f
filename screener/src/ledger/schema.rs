//! Which forms of the file there have been, and how each is read.
//!
//! Holds their numbers and what earlier versions wrote. Never writes an earlier form: a file is brought to the present one
//! as a whole (`writer`).

use super::pass::Packed;
use crate::pass::Test;

/// The layout of the tables. A change that an older daemon would misread gets a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Schema {
    /// A pass was five expiries, whether passed or not, and could not come from another host.
    One = 1,
    /// A pass is the tests that were passed, each with its expiry.
    Two = 2,
}

impl Schema {
    pub(super) const CURRENT: Self = Self::Two;

    pub(super) fn number(self) -> u64 {
        self as u64
    }

    /// `None`: of a later version.
    pub(super) fn of(number: u64) -> Option<Self> {
        [Self::One, Self::Two].into_iter().find(|schema| schema.number() == number)
    }

    /// A pass in this form; `None` for what was never written.
    pub(super) fn pass(self, bytes: &[u8]) -> Option<Packed> {
        match self {
            Self::One => first_pass(bytes),
            Self::Two => Packed::decode(bytes),
        }
    }
}

/// The number 1, five expiries and the creation in 64 bits each, origin, comment.
fn first_pass(bytes: &[u8]) -> Option<Packed> {
    let (&[1], rest) = bytes.split_first_chunk()? else { return None };
    let (numbers, rest) = rest.split_first_chunk::<{ 8 * (Test::COUNT + 1) }>()?;
    let (&[origin], comment) = rest.split_first_chunk()?;
    let mut numbers = numbers.chunks_exact(8).map(|chunk| chunk.try_into().map_or(0, u64::from_be_bytes));
    let mut until = [0; Test::COUNT];
    for slot in &mut until {
        *slot = numbers.next()?;
    }
    Packed::assembled(until, numbers.next()?, origin, comment)
}
