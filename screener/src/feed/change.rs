//! From one list of a feed to the next: how they differ, and whether the next one can be meant.
//!
//! Pure. What a list may cover at all is judged by `rails`; here it is held against the list before.

use std::fmt;

use ipnet::IpNet;
use thiserror::Error;

use super::rails::{self, Coverage, Few};

/// A list of fewer prefixes may shrink and grow as it likes: what somebody keeps by hand does.
const SMALL: usize = 20;
/// A list may become so many times as long, and cover so many times as much.
const GROWTH: u32 = 4;
/// What such a small list may always cover: one prefix of the widest kind.
const SMALL_COVERS: Coverage = Coverage { v4: 1 << (32 - rails::WIDEST_V4), v6: 1 << (128 - rails::WIDEST_V6) };
/// What any other list may always cover: a /15, or a /28 of IPv6. Lists of single addresses have a network among them one day,
/// and none that is as large as a country.
const ALWAYS_COVERS: Coverage = Coverage { v4: 1 << (32 - 15), v6: 1 << (128 - 28) };
/// What a feed may permit at most: a permit beats every test, and the largest senders have well below a million addresses.
const MOST_PERMITTED_V4: u128 = 1 << 24;
/// The same for IPv6, where the largest senders have some /32s.
const MOST_PERMITTED_V6: u128 = 1 << (128 - 24);

/// How two lists differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What the second has and the first has not, in order.
    pub added: Vec<IpNet>,
    /// What the first has and the second has not, in order.
    pub removed: Vec<IpNet>,
    /// How many prefixes both have.
    pub kept: usize,
}

impl Difference {
    /// From one list to another, both in order, each prefix once.
    pub fn between(old: &[IpNet], new: &[IpNet]) -> Self {
        let mut difference = Self::default();
        let (mut old, mut new) = (old.iter().copied().peekable(), new.iter().copied().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (Some(a), Some(b)) if a == b => {
                    difference.kept += 1;
                    old.next();
                    new.next();
                }
                (Some(a), Some(b)) if a < b => difference.removed.extend(old.next()),
                (_, Some(_)) => difference.added.extend(new.next()),
                (Some(_), None) => difference.removed.extend(old.next()),
                (None, None) => return difference,
            }
        }
    }

    /// Whether the lists are equal.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

/// `12 came, 3 went, 1689 stay`
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} came, {} went, {} stay", self.added.len(), self.removed.len(), self.kept)
    }
}

/// Why a list is not taken though it was understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Implausible {
    /// Nothing is left.
    #[error("it is empty, and the one before has {0} prefixes (set may_be_empty if that is to be expected)")]
    Emptied(usize),
    /// There is nothing, and nothing was there before.
    #[error("it is empty (set may_be_empty if that is to be expected)")]
    Empty,
    /// Less than half is left.
    #[error("it shrinks from {from} to {to} prefixes, to less than half")]
    Shrunk {
        /// Until now.
        from: usize,
        /// From now on.
        to: usize,
    },
    /// There is suddenly far more.
    #[error("it grows from {from} to {to} prefixes, to more than {GROWTH} times as many")]
    Grown {
        /// Until now.
        from: usize,
        /// From now on.
        to: usize,
    },
    /// It suddenly covers far more.
    #[error("it would cover {to}, more than {GROWTH} times as much as the one before ({from})")]
    Wider {
        /// Until now.
        from: Coverage,
        /// From now on.
        to: Coverage,
    },
    /// It would permit more than one sender has.
    #[error("it would permit {0}, which beats every deny and every test: that is not one sender's")]
    PermitsTooMuch(Coverage),
    /// It would permit what nobody owns alone.
    #[error("it would permit {0}, wider than /{w4} (IPv4) or /{w6} (IPv6)", w4 = rails::WIDEST_V4, w6 = rails::WIDEST_V6)]
    PermitsTooWide(Few<IpNet>),
}

/// Whether a list may follow on another one, both in order; `None`: there is none that it could be held against.
///
/// # Errors
/// When it cannot be meant, as far as one can tell.
pub fn check_change(old: Option<&[IpNet]>, new: &[IpNet], may_be_empty: bool) -> Result<(), Implausible> {
    let from = old.map_or(0, <[_]>::len);
    if new.is_empty() {
        return match from {
            _ if may_be_empty => Ok(()),
            0 => Err(Implausible::Empty),
            from => Err(Implausible::Emptied(from)),
        };
    }
    let Some(old) = old.filter(|old| !old.is_empty()) else { return Ok(()) };
    let to = new.len();
    if from >= SMALL && to * 2 < from {
        return Err(Implausible::Shrunk { from, to });
    }
    let growth = GROWTH as usize;
    if to >= SMALL * growth && to > from.saturating_mul(growth) {
        return Err(Implausible::Grown { from, to });
    }
    let (before, after) = (Coverage::of(old), Coverage::of(new));
    if after.outgrows(before, GROWTH, if from < SMALL { SMALL_COVERS } else { ALWAYS_COVERS }) {
        return Err(Implausible::Wider { from: before, to: after });
    }
    Ok(())
}

/// Whether a list, in order, may be permitted. What the one before permits already is no news.
///
/// # Errors
/// When it would permit too much.
pub fn check_permits(before: &[IpNet], list: &[IpNet]) -> Result<(), Implausible> {
    let wide = list.iter().filter(|net| net.prefix_len() < rails::widest(net) && before.binary_search(net).is_err());
    let wide: Few<_> = wide.copied().collect();
    if !wide.is_empty() {
        return Err(Implausible::PermitsTooWide(wide));
    }
    let too_much = |coverage: Coverage| coverage.v4 > MOST_PERMITTED_V4 || coverage.v6 > MOST_PERMITTED_V6;
    let coverage = Coverage::of(list);
    if too_much(coverage) && !too_much(Coverage::of(before)) {
        return Err(Implausible::PermitsTooMuch(coverage));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// So many single addresses.
    fn some(count: u32) -> Vec<IpNet> {
        (0..count).map(|number| IpNet::from(std::net::IpAddr::from((0x0100_0000 + number).to_be_bytes()))).collect()
    }

    fn refused(old: &[IpNet], new: &[IpNet]) -> String {
        check_change(Some(old), new, false).unwrap_err().to_string()
    }

    #[test]
    fn a_list_must_not_shrink_below_half_nor_become_empty() {
        assert_eq!(check_change(Some(&some(100)), &some(50), false), Ok(()));
        assert_eq!(refused(&some(100), &some(49)), "it shrinks from 100 to 49 prefixes, to less than half");
        assert!(
            refused(&some(100), &[]).starts_with("it is empty, and the one before has 100 prefixes (set may_be_empty")
        );
        assert_eq!(check_change(Some(&some(100)), &[], true), Ok(()));
        assert!(check_change(Some(&some(100)), &some(1), true).is_err(), "a part is no empty list");
        assert_eq!(check_change(None, &[], false), Err(Implausible::Empty));
        assert_eq!(check_change(None, &[], true), Ok(()));
        // What a person keeps by hand.
        assert_eq!(check_change(Some(&some(19)), &some(1), false), Ok(()));
    }

    #[test]
    fn a_list_must_not_grow_without_measure() {
        assert_eq!(check_change(Some(&some(100)), &some(400), false), Ok(()));
        assert_eq!(refused(&some(100), &some(401)), "it grows from 100 to 401 prefixes, to more than 4 times as many");
        assert_eq!(check_change(Some(&some(1)), &some(79), false), Ok(()));
        assert_eq!(check_change(Some(&[]), &some(100_000), false), Ok(()), "the first list after an empty one");
        assert_eq!(check_change(None, &some(100_000), false), Ok(()));
        let wide = nets(&["1.0.0.0/8", "2.0.0.0/8"]);
        assert!(
            refused(&some(2), &wide).starts_with("it would cover 0.8 % of IPv4's unicast addresses (33554432), more")
        );
        assert_eq!(check_change(Some(&wide[..1]), &wide, false), Ok(()));
        assert!(refused(&nets(&["2001:db8::/32"]), &nets(&["2a00::/12"])).contains("of the IPv6 addresses in use"));
    }

    #[test]
    fn a_list_of_addresses_may_get_a_network_and_not_a_part_of_the_internet() {
        let with = |net: &str| [some(40), nets(&[net])].concat();
        for fine in ["40.92.0.0/16", "2a00::/28"] {
            assert_eq!(check_change(Some(&some(40)), &with(fine), false), Ok(()), "{fine}");
        }
        for much in ["40.0.0.0/8", "40.92.0.0/14", "2a00::/24"] {
            assert!(refused(&some(40), &with(much)).contains("more than 4 times as much"), "{much}");
        }
        assert_eq!(check_change(Some(&some(19)), &nets(&["40.0.0.0/8"]), false), Ok(()), "kept by hand");
    }

    #[test]
    fn a_feed_permits_what_one_sender_may_have() {
        assert_eq!(check_permits(&[], &nets(&["64.233.160.0/19", "2a00:1450:4000::/36"])), Ok(()));
        let wide = nets(&["2.0.0.0/7"]);
        let said = check_permits(&[], &wide).unwrap_err().to_string();
        assert_eq!(said, "it would permit 2.0.0.0/7, wider than /8 (IPv4) or /16 (IPv6)");
        assert_eq!(check_permits(&wide, &wide), Ok(()), "what is permitted already is no news");
        let much = nets(&["1.0.0.0/8", "3.0.0.0/8"]);
        assert!(matches!(check_permits(&[], &much), Err(Implausible::PermitsTooMuch(_))));
        assert!(check_permits(&[], &nets(&["2a00::/20"])).unwrap_err().to_string().contains("not one sender's"));
    }

    proptest! {
        #[test]
        fn a_difference_is_what_sets_say(old in prop::collection::btree_set(0_u32..40, 0..30), new in prop::collection::btree_set(0_u32..40, 0..30)) {
            let list = |set: &BTreeSet<u32>| -> Vec<IpNet> {
                let mut list: Vec<_> = set.iter().map(|&n| some(n + 1)[n as usize]).collect();
                list.sort_unstable();
                list
            };
            let difference = Difference::between(&list(&old), &list(&new));
            prop_assert_eq!(&difference.added, &list(&(&new - &old)));
            prop_assert_eq!(&difference.removed, &list(&(&old - &new)));
            prop_assert_eq!(difference.kept, (&old & &new).len());
            prop_assert_eq!(difference.is_empty(), old == new);
        }
    }
}
