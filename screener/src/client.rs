//! Who is on the other end: the remote address, normalised, and the key under which everything about it is kept.
//!
//! Holds the one place where an address becomes a key. Never holds what is known about the client.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How many leading bits of an IPv6 address tell one client from another, 32 to 128.
///
/// A customer of most networks holds a whole /64 and may speak from any address in it; that is the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Ipv6KeyLength(u8);

/// The prefix length is out of range.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an IPv6 client key has 32 to 128 bits, not {0}: 64 is one customer's network, 128 one address")]
pub struct BadKeyLength(u8);

impl Ipv6KeyLength {
    /// The number of bits.
    pub fn bits(self) -> u8 {
        self.0
    }
}

impl Default for Ipv6KeyLength {
    fn default() -> Self {
        Self(64)
    }
}

impl TryFrom<u8> for Ipv6KeyLength {
    type Error = BadKeyLength;

    fn try_from(bits: u8) -> Result<Self, Self::Error> {
        if (32..=128).contains(&bits) { Ok(Self(bits)) } else { Err(BadKeyLength(bits)) }
    }
}

impl From<Ipv6KeyLength> for u8 {
    fn from(length: Ipv6KeyLength) -> u8 {
        length.0
    }
}

/// The client as a key: an IPv4 address, or an IPv6 address cut to [`Ipv6KeyLength`] bits with zeros behind.
///
/// IPv4-mapped IPv6 addresses (`::ffff:192.0.2.1`) are IPv4: a dual-stack listener shows them so.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientKey {
    /// The whole address.
    V4(Ipv4Addr),
    /// The address with all bits behind the key length zero.
    V6(Ipv6Addr),
}

impl ClientKey {
    /// The key of an address.
    pub fn of(address: IpAddr, length: Ipv6KeyLength) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - u32::from(length.0))))),
        }
    }

    /// The first address of the key, for lookups in prefix tables and for printing.
    pub fn address(self) -> IpAddr {
        match self {
            Self::V4(v4) => v4.into(),
            Self::V6(v6) => v6.into(),
        }
    }

    /// The addresses that the key stands for.
    pub fn network(self, length: Ipv6KeyLength) -> IpNet {
        match self {
            Self::V4(v4) => Ipv4Net::from(v4).into(),
            Self::V6(v6) => Ipv6Net::new_assert(v6, length.0).into(),
        }
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(f)
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ClientKey {
        ClientKey::of(text.parse().unwrap(), Ipv6KeyLength::default())
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_client() {
        assert_eq!(key("::ffff:192.0.2.7"), key("192.0.2.7"));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    }

    #[test]
    fn a_key_length_of_128_keeps_the_whole_address() {
        let whole = Ipv6KeyLength::try_from(128).unwrap();
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!(ClientKey::of(address, whole).address(), address);
        assert_eq!(Ipv6KeyLength::try_from(31), Err(BadKeyLength(31)));
    }
}
