//! Ranges of addresses: some cut out of others, and the fewest prefixes that cover what is left.
//!
//! Exact to the address. Never judges a range.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

/// IPv4 within IPv6. What a range of IPv6 says about it means no client: theirs are IPv4.
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

/// The addresses of one family from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    family: Family,
    first: u128,
    last: u128,
}

impl Span {
    /// `None`: of two families, or none between them.
    pub(crate) fn between(first: IpAddr, last: IpAddr) -> Option<Self> {
        let family = match (first, last) {
            (IpAddr::V4(_), IpAddr::V4(_)) => Family::V4,
            (IpAddr::V6(_), IpAddr::V6(_)) => Family::V6,
            _ => return None,
        };
        let [first, last] = [first, last].map(|address| match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        });
        (first <= last).then_some(Self { family, first, last })
    }

    /// All addresses of IPv4.
    pub(crate) fn all_v4() -> Self {
        Self { family: Family::V4, first: 0, last: u32::MAX.into() }
    }

    /// All addresses of IPv6.
    pub(crate) fn all_v6() -> Self {
        Self { family: Family::V6, first: 0, last: u128::MAX }
    }

    /// Whether an address is in both.
    pub(crate) fn meets(self, other: Self) -> bool {
        self.family == other.family && self.first <= other.last && other.first <= self.last
    }

    /// How many addresses it has, less one.
    pub(crate) fn reach(self) -> u128 {
        self.last - self.first
    }

    pub(crate) fn is_v4(self) -> bool {
        self.family == Family::V4
    }

    /// Whether all of the other lies in it.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.family == other.family && self.first <= other.first && other.last <= self.last
    }

    /// The fewest prefixes that have its addresses and no other, in order.
    pub(crate) fn prefixes(self) -> impl Iterator<Item = IpNet> {
        let (v4, v6) = match self.family {
            Family::V4 => {
                // An address of this family has 32 bits.
                let [first, last] = [self.first, self.last].map(|bits| Ipv4Addr::from_bits(bits as u32));
                (Some(Ipv4Subnets::new(first, last, 0)), None)
            }
            Family::V6 => {
                let [first, last] = [self.first, self.last].map(Ipv6Addr::from_bits);
                (None, Some(Ipv6Subnets::new(first, last, 0)))
            }
        };
        let v6 = v6.into_iter().flatten().filter(|net| !MAPPED.contains(net));
        v4.into_iter().flatten().map(IpNet::V4).chain(v6.map(IpNet::V6))
    }
}

impl From<IpNet> for Span {
    fn from(net: IpNet) -> Self {
        let (family, first, last) = match net {
            IpNet::V4(v4) => (Family::V4, v4.network().to_bits().into(), v4.broadcast().to_bits().into()),
            IpNet::V6(v6) => (Family::V6, v6.network().to_bits(), v6.broadcast().to_bits()),
        };
        Self { family, first, last }
    }
}

/// What is to be cut out.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    /// In order, with something between each two.
    spans: Vec<Span>,
}

impl Holes {
    pub(crate) fn new(mut all: Vec<Span>) -> Self {
        all.sort_unstable();
        let mut spans: Vec<Span> = Vec::new();
        for next in all {
            match spans.last_mut() {
                Some(last) if last.family == next.family && next.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(next.last);
                }
                _ => spans.push(next),
            }
        }
        Self { spans }
    }

    /// What is left of a range, in order.
    pub(crate) fn cut(&self, from: Span) -> Vec<Span> {
        let Span { family, last, .. } = from;
        let after = self.spans.partition_point(|hole| (hole.family, hole.last) < (family, from.first));
        let met = self.spans[after..].iter().take_while(|hole| hole.family == family && hole.first <= last);
        let mut left = Vec::new();
        let mut first = Some(from.first);
        for hole in met {
            if let Some(first) = first.filter(|&first| first < hole.first) {
                left.push(Span { family, first, last: hole.first - 1 });
            }
            first = hole.last.checked_add(1);
        }
        left.extend(first.filter(|&first| first <= last).map(|first| Span { family, first, last }));
        left
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(first: &str, last: &str) -> Span {
        Span::between(first.parse().unwrap(), last.parse().unwrap()).unwrap()
    }

    fn prefixes(span: Span) -> String {
        span.prefixes().map(|net| net.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_range_is_the_fewest_prefixes() {
        for (first, last, expected) in [
            ("127.16.0.0", "127.31.255.255", "127.16.0.0/12"),
            ("127.0.0.1", "127.0.0.6", "127.0.0.1/32 127.0.0.2/31 127.0.0.4/31 127.0.0.6/32"),
            ("0.0.0.0", "255.255.255.255", "0.0.0.0/0"),
            ("255.255.255.255", "255.255.255.255", "255.255.255.255/32"),
            ("2001:db8::", "2001:db8::ffff", "2001:db8::/112"),
            ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
            // Never a prefix that is taken for one of IPv4.
            ("::ffff:0:0", "::ffff:ffff:ffff", ""),
            ("::ffff:0:0", "::1:0:0:0", "::1:0:0:0/128"),
        ] {
            assert_eq!(prefixes(span(first, last)), expected, "{first} to {last}");
        }
        assert_eq!(Span::between("1.2.3.4".parse().unwrap(), "1.2.3.3".parse().unwrap()), None);
        assert_eq!(Span::between("1.2.3.4".parse().unwrap(), "::".parse().unwrap()), None);
    }

    #[test]
    fn a_hole_takes_exactly_its_addresses() {
        let holes = Holes::new(vec![
            span("10.0.0.5", "10.0.0.9"),
            span("10.0.0.0", "10.0.0.0"),
            span("10.0.0.8", "10.0.0.11"),
            span("255.255.255.0", "255.255.255.255"),
            span("::", "::a"),
        ]);
        let cut = |first, last| {
            let left = holes.cut(span(first, last));
            left.into_iter().map(prefixes).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(cut("10.0.0.0", "10.0.0.15"), "10.0.0.1/32 10.0.0.2/31 10.0.0.4/32, 10.0.0.12/30");
        assert_eq!(cut("10.0.0.6", "10.0.0.7"), "");
        assert_eq!(cut("255.255.254.0", "255.255.255.255"), "255.255.254.0/24");
        assert_eq!(cut("0.0.0.0", "0.0.0.11"), "0.0.0.0/29 0.0.0.8/30");
        assert_eq!(cut("::", "::b"), "::b/128");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Over 64 addresses at either end of each family.
        #[test]
        fn what_is_left_is_what_is_listed_and_not_excluded(
            v6 in any::<bool>(),
            top in any::<bool>(),
            listed in (0_u128..64, 0_u128..64),
            holes in proptest::collection::vec((0_u128..64, 0_u128..64), 0..6),
        ) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let base = match (top, v6) {
                (false, _) => 0,
                (true, false) => u128::from(u32::MAX) - 63,
                (true, true) => u128::MAX - 63,
            };
            let of = |(one, other): (u128, u128)| {
                Span { family, first: base + one.min(other), last: base + one.max(other) }
            };
            let listed = of(listed);
            let holes: Vec<Span> = holes.into_iter().map(of).collect();
            let left = Holes::new(holes.clone()).cut(listed);
            let nets: Vec<IpNet> = left.iter().flat_map(|span| span.prefixes()).collect();
            for bits in base..=base + 63 {
                let at = Span { family, first: bits, last: bits };
                let expected = listed.covers(at) && !holes.iter().any(|hole| hole.covers(at));
                let met = nets.iter().filter(|&&net| Span::from(net).covers(at)).count();
                prop_assert_eq!(met, usize::from(expected));
            }
            // Fewest: no two of them are the halves of one.
            let mut wider: Vec<_> = nets.iter().filter_map(IpNet::supernet).collect();
            wider.dedup();
            let whole = |net: &IpNet| left.iter().any(|span| span.covers(Span::from(*net)));
            prop_assert!(!wider.iter().any(whole), "{:?}", nets);
        }
    }
}
