//! What is sent: the segments of sources, and the columns of the table.

use std::fmt;

use super::list::{Dice, Lists};
use super::shared::{Job, SEGMENT, SEGMENTS, Source, traffic};

/// How many addresses xdp-filter holds of both families together: it takes 10,000 of each, and no prefixes.
pub(crate) const FEW: usize = 10_000;

/// IPv6 among a hundred sources of a mixture, as in the list itself.
const V6_PERCENT: usize = 9;

/// A segment of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(crate) enum Segment {
    /// On the list.
    Listed4,
    /// On the list.
    Listed6,
    /// Not on it.
    Unlisted4,
    /// Not on it, mostly under roots that are unknown.
    Unlisted6,
    /// Not on it, under roots that have something on it.
    Neighbours6,
    /// On the list, both families.
    Listed,
    /// Not on it, both families.
    Unlisted,
    /// On the list: [`FEW`] addresses again and again.
    Few,
}

impl Segment {
    /// All, in the order in which they lie.
    pub(crate) const ALL: [Self; SEGMENTS as usize] = [
        Self::Listed4,
        Self::Listed6,
        Self::Unlisted4,
        Self::Unlisted6,
        Self::Neighbours6,
        Self::Listed,
        Self::Unlisted,
        Self::Few,
    ];

    /// The place of the first source.
    pub(crate) fn first(self) -> u32 {
        self as u32 * SEGMENT
    }

    /// Draws the sources, in random order.
    pub(crate) fn sources(self, lists: &Lists, dice: &mut Dice) -> Vec<Source> {
        let few = few(lists);
        let draw = |number: usize| {
            let six = dice.below(100) < V6_PERCENT;
            match self {
                Self::Listed6 => v6(lists.listed6(dice)),
                Self::Unlisted6 => v6(lists.unlisted6(dice)),
                Self::Neighbours6 => v6(lists.neighbour6(dice)),
                Self::Listed if six => v6(lists.listed6(dice)),
                Self::Listed | Self::Listed4 => v4(lists.listed4(dice)),
                Self::Unlisted if six => v6(lists.unlisted6(dice)),
                Self::Unlisted | Self::Unlisted4 => v4(lists.unlisted4(dice)),
                Self::Few => few[number % few.len()],
            }
        };
        (0..SEGMENT as usize).map(draw).collect()
    }

    /// Whether a filter should drop SYNs from here.
    pub(crate) fn is_listed(self) -> bool {
        matches!(self, Self::Listed | Self::Listed4 | Self::Listed6 | Self::Few)
    }
}

/// The addresses of [`Segment::Few`]; xdp-filter is given the same ones.
pub(crate) fn few(lists: &Lists) -> Vec<Source> {
    let mut dice = Dice(0xfe3);
    (0..FEW)
        .map(|_| if dice.below(100) < V6_PERCENT { v6(lists.listed6(&mut dice)) } else { v4(lists.listed4(&mut dice)) })
        .collect()
}

fn v4(address: u32) -> Source {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&address.to_be_bytes());
    Source { address: bytes, family: 4, _pad: 0 }
}

fn v6(address: u128) -> Source {
    Source { address: address.to_be_bytes(), family: 6, _pad: 0 }
}

/// A column of the table: what arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Column {
    /// SYNs to port 25.
    Syn(Segment),
    /// UDP and segments of established connections to port 25, by turns, from sources that are not listed.
    Other,
}

impl Column {
    /// Those that every filter is measured with.
    pub(crate) const MAIN: [Self; 3] = [Self::Syn(Segment::Listed), Self::Syn(Segment::Unlisted), Self::Other];

    /// Those that tell the families apart, for the empty programs and ours.
    pub(crate) const FAMILIES: [Self; 4] = [
        Self::Syn(Segment::Listed4),
        Self::Syn(Segment::Listed6),
        Self::Syn(Segment::Unlisted4),
        Self::Syn(Segment::Unlisted6),
    ];

    /// Whether a filter should drop these.
    pub(crate) fn is_dropped(self) -> bool {
        matches!(self, Self::Syn(segment) if segment.is_listed())
    }

    /// The job that sends them to an interface.
    pub(crate) fn job(self, interface: u32) -> Job {
        let (segment, traffic) = match self {
            Self::Syn(segment) => (segment, traffic::SYN),
            Self::Other => (Segment::Unlisted, traffic::OTHER),
        };
        Job { first: segment.first(), mask: SEGMENT - 1, traffic, interface, ..Job::default() }
    }

    /// Its name in a row's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Syn(Segment::Listed) => "listed",
            Self::Syn(Segment::Unlisted) => "unlisted",
            Self::Syn(Segment::Listed4) => "listed_v4",
            Self::Syn(Segment::Listed6) => "listed_v6",
            Self::Syn(Segment::Unlisted4) => "unlisted_v4",
            Self::Syn(Segment::Unlisted6) => "unlisted_v6",
            Self::Syn(Segment::Neighbours6) => "neighbours_v6",
            Self::Syn(Segment::Few) => "listed_10k",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(self.name())
    }
}
