//! Ranges in which no stranger has an address: private, local, reserved, multicast.
//!
//! Holds the list and the question. Not in it are the ranges for documentation: nobody is there either, and a list that names
//! them does no harm.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::rails::Few;

/// IANA's special-purpose registry, multicast, and what is reserved for the future.
const V4: [([u8; 4], u8); 10] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([224, 0, 0, 0], 3),
];
/// The same for IPv6: unspecified, loopback and IPv4-compatible, local, link-local and site-local, multicast.
const V6: [([u16; 8], u8); 4] = [
    ([0, 0, 0, 0, 0, 0, 0, 0], 96),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 9),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8),
];

/// Whether all of a prefix lies in such a range.
pub fn is_private(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => {
            V4.iter().any(|&(first, length)| Ipv4Net::new(first.into(), length).is_ok_and(|range| range.contains(net)))
        }
        IpNet::V6(net) => {
            V6.iter().any(|&(first, length)| Ipv6Net::new(first.into(), length).is_ok_and(|range| range.contains(net)))
        }
    }
}

/// Takes what is private out of a list, and says what that was.
pub fn leave_out(list: &mut Vec<IpNet>) -> Few<IpNet> {
    list.extract_if(.., |net| is_private(net)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_private_range_is_left_out_and_what_covers_one_is_not() {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
        // What FireHOL's level1 holds by design.
        let private = nets(&[
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "224.0.0.0/3",
            "10.1.2.3/32",
            "::1/128",
            "fd00::/8",
            "fe80::/10",
            "ff02::/16",
        ]);
        let rest = nets(&["8.0.0.0/7", "192.0.0.0/16", "192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32", "::/0"]);
        let mut list = [private.clone(), rest.clone()].concat();
        assert_eq!(leave_out(&mut list).len(), private.len());
        assert_eq!(list, rest);
    }
}
