//! Who belongs to a pool, and what a new list of members must look like to take the place of the old one.
//!
//! Pure. Never asks where a list comes from: the last one that was good is compared with the next.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::feed::{self, Coverage};

/// What a pool may always have, however few it had: a sender that had one host has a few next week. Of IPv6 one customer's /48.
const SMALL: Coverage = Coverage { v4: 256, v6: 1 << (128 - 48) };

/// The prefixes of a pool: in order, IPv4 first, and none covers another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(Vec<IpNet>);

/// How many addresses a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(Coverage);

/// `17,408 IPv4 addresses and 12 IPv6 networks of 64 bits`, without the commas.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.v4, self.0.v6.div_ceil(1 << 64)) {
            (v4, 0) => write!(f, "{v4} IPv4 addresses"),
            (0, v6) => write!(f, "{v6} IPv6 networks of 64 bits"),
            (v4, v6) => write!(f, "{v4} IPv4 addresses and {v6} IPv6 networks of 64 bits"),
        }
    }
}

/// Why a new list of members is not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Implausible {
    /// Nobody is left, or nobody was there from the beginning.
    #[error("it names no address at all")]
    Empty,
    /// Some prefix covers what no sender owns.
    #[error("{0} is wider than /{w4} (IPv4) or /{w6} (IPv6)", w4 = feed::WIDEST_V4, w6 = feed::WIDEST_V6)]
    TooWide(IpNet),
    /// There are suddenly far more.
    #[error("it grows from {from} to {to}, more than {growth} times")]
    Grown {
        /// Until now.
        from: Size,
        /// From now on.
        to: Size,
        /// What is allowed.
        growth: u32,
    },
}

impl Members {
    /// From an expansion's prefixes, or a file's.
    pub fn new(prefixes: &[IpNet]) -> Self {
        let mut joined = IpNet::aggregate(&prefixes.to_vec());
        joined.sort_unstable();
        Self(joined)
    }

    /// The prefix that an address lies in.
    pub fn covering(&self, address: IpAddr) -> Option<IpNet> {
        let at = self.0.partition_point(|net| net.network() <= address);
        self.0[..at].last().copied().filter(|net| net.contains(&address))
    }

    /// Whether any member lies in a network, or the network in a member's prefix.
    pub fn meets(&self, net: IpNet) -> bool {
        let next = self.0.partition_point(|other| other.network() < net.network());
        self.covering(net.network()).is_some() || self.0.get(next).is_some_and(|other| net.contains(other))
    }

    /// The prefixes, in order.
    pub fn prefixes(&self) -> &[IpNet] {
        &self.0
    }

    /// How many addresses these are.
    pub fn size(&self) -> Size {
        Size(Coverage::of(&self.0))
    }

    /// What speaks against a list by itself, whatever was there before. An operator cannot wave these through.
    ///
    /// # Errors
    /// When it is empty or too wide.
    pub fn check(&self) -> Result<(), Implausible> {
        if self.0.is_empty() {
            return Err(Implausible::Empty);
        }
        let wide = self.0.iter().find(|net| net.prefix_len() < feed::widest(net));
        wide.map_or(Ok(()), |net| Err(Implausible::TooWide(*net)))
    }

    /// Whether a list may follow on another one.
    ///
    /// # Errors
    /// When it is `growth` times as large in either family.
    pub fn check_growth(&self, old: &Self, growth: u32) -> Result<(), Implausible> {
        let (from, to) = (old.size(), self.size());
        if to.0.outgrows(from.0, growth, SMALL) { Err(Implausible::Grown { from, to, growth }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(prefixes: &[&str]) -> Members {
        Members::new(&prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_found_in_the_prefix_that_covers_it() {
        let pool = members(&["203.0.113.0/24", "192.0.2.0/25", "192.0.2.128/25", "2001:db8::/32", "198.51.100.7/32"]);
        let found = |address: &str| pool.covering(address.parse().unwrap()).map(|net| net.to_string());
        assert_eq!(found("192.0.2.200").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(found("203.0.113.255").as_deref(), Some("203.0.113.0/24"));
        assert_eq!(found("2001:db8:ffff::1").as_deref(), Some("2001:db8::/32"));
        for outside in
            ["192.0.1.255", "192.0.3.0", "198.51.100.6", "198.51.100.8", "2001:db9::", "::", "255.255.255.255"]
        {
            assert_eq!(found(outside), None, "{outside}");
        }
        assert_eq!(Members::default().covering("192.0.2.1".parse().unwrap()), None);
        let meets = |pool: &Members, net: &str| pool.meets(net.parse().unwrap());
        assert!(meets(&pool, "198.51.100.0/24") && meets(&pool, "192.0.2.7/32") && !meets(&pool, "198.51.100.8/29"));
        let one = members(&["2001:db8:0:7::25/128"]);
        assert!(
            meets(&one, "2001:db8:0:7::/64") && !meets(&one, "2001:db8:0:8::/64") && !meets(&one, "2001:db8:0:6::/64")
        );
    }

    #[test]
    fn nobody_and_everybody_are_no_pools() {
        assert_eq!(members(&[]).check(), Err(Implausible::Empty));
        assert_eq!(members(&["10.0.0.0/7"]).check(), Err(Implausible::TooWide("10.0.0.0/7".parse().unwrap())));
        assert_eq!(members(&["2000::/3"]).check(), Err(Implausible::TooWide("2000::/3".parse().unwrap())));
        // Two halves that are joined.
        assert!(members(&["10.0.0.0/8", "11.0.0.0/8"]).check().is_err());
        assert_eq!(members(&["40.92.0.0/15", "2001:db8::/32"]).check(), Ok(()));
    }

    #[test]
    fn growth_is_judged_by_family_and_only_above_what_is_small() {
        let one = members(&["192.0.2.1/32"]);
        assert_eq!(members(&["192.0.2.0/24"]).check_growth(&one, 4), Ok(()));
        let error = members(&["192.0.0.0/16"]).check_growth(&one, 4).unwrap_err();
        assert_eq!(error.to_string(), "it grows from 1 IPv4 addresses to 65536 IPv4 addresses, more than 4 times");
        let many = members(&["192.0.0.0/16"]);
        assert_eq!(members(&["192.0.0.0/14"]).check_growth(&many, 4), Ok(()));
        assert!(members(&["192.0.0.0/13"]).check_growth(&many, 4).is_err());
        assert!(members(&["192.0.0.0/16", "2001:db8::/32"]).check_growth(&many, 4).is_err());
        assert_eq!(members(&["192.0.0.0/16", "2001:db8::/48"]).check_growth(&many, 4), Ok(()));
        // To shrink is no reason by itself.
        assert_eq!(one.check_growth(&many, 4), Ok(()));
    }
}
