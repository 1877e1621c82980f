//! Ranges in which no stranger has an address: private, local, reserved, multicast.
//!
//! Holds the list, the question and the cut. Not in it are the ranges for documentation: nobody is there either, and a list that names
//! them does no harm.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::rails::Few;
use super::span::{Holes, Span};

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

fn ranges() -> impl Iterator<Item = IpNet> {
    let v4 = V4.iter().filter_map(|&(first, length)| Ipv4Net::new(first.into(), length).ok().map(IpNet::V4));
    let v6 = V6.iter().filter_map(|&(first, length)| Ipv6Net::new(first.into(), length).ok().map(IpNet::V6));
    v4.chain(v6)
}

/// Whether any of a prefix lies in such a range.
pub fn meets_private(net: &IpNet) -> bool {
    ranges().any(|range| range.contains(net) || net.contains(&range))
}

/// Takes what is private out of a list, which is in order afterwards. Says which prefixes that was, and of which others a part.
pub fn leave_out(list: &mut Vec<IpNet>) -> (Few<IpNet>, Few<IpNet>) {
    let (whole, part): (Vec<_>, Vec<_>) =
        list.extract_if(.., |net| meets_private(net)).partition(|net| ranges().any(|range| range.contains(net)));
    let holes = Holes::new(ranges().map(Span::from).collect());
    list.extend(part.iter().flat_map(|&net| holes.cut(net.into())).flat_map(Span::prefixes));
    list.sort_unstable();
    list.dedup();
    (whole.into_iter().collect(), part.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_private_range_is_left_out_and_what_covers_one_is_cut() {
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
        let wide = nets(&["172.0.0.0/11", "192.128.0.0/9", "fc00::/6"]);
        let rest = nets(&["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32"]);
        let mut list = [rest.clone(), private.clone(), wide.clone()].concat();
        let (whole, part) = leave_out(&mut list);
        assert_eq!((whole.len(), part.len()), (private.len(), wide.len()));
        let cut = ["172.0.0.0/12", "192.128.0.0/11", "192.160.0.0/13", "192.169.0.0/16", "192.170.0.0/15"];
        assert!(nets(&cut).iter().all(|net| list.contains(net)), "{list:?}");
        assert!(rest.iter().all(|net| list.contains(net)) && list.is_sorted() && !list.iter().any(meets_private));
        assert!(private.iter().chain(&wide).all(meets_private) && !rest.iter().any(meets_private));
    }
}
