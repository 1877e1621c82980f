//! What the system says about this host: its addresses, its networks, and where its default routes lead.
//!
//! Holds the reading of them. Never decides what follows from it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

/// The addresses of all interfaces.
///
/// # Errors
/// If the system does not tell.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    Ok(getifaddrs()?.filter_map(|interface| ip(interface.address.as_ref()?)).collect())
}

/// The addresses of the interfaces that are up, each with the length of its network's prefix.
///
/// # Errors
/// If the system does not tell.
pub fn own_networks() -> io::Result<Vec<IpNet>> {
    let up = getifaddrs()?.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP));
    let networks = up.filter_map(|interface| {
        let mask = ip(interface.netmask.as_ref()?)?;
        IpNet::with_netmask(ip(interface.address.as_ref()?)?, mask).ok()
    });
    Ok(networks.collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// The next hops of all default routes; none where the system has no routing tables to read.
pub fn gateways() -> Vec<IpAddr> {
    let v4 = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    next_hops(&v4, &v6)
}

/// From the two tables of proc(5): IPv4's numbers are printed as this machine reads them, IPv6's byte by byte.
fn next_hops(v4: &str, v6: &str) -> Vec<IpAddr> {
    let v4 = v4.lines().skip(1).filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [_, "00000000", gateway, _, _, _, _, "00000000", ..] = columns[..] else { return None };
        let address = Ipv4Addr::from(u32::from_str_radix(gateway, 16).ok()?.to_ne_bytes());
        (!address.is_unspecified()).then_some(IpAddr::V4(address))
    });
    let v6 = v6.lines().filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [destination, "00", _, _, gateway, ..] = columns[..] else { return None };
        let address = Ipv6Addr::from(u128::from_str_radix(gateway, 16).ok()?);
        let is_default = destination.bytes().all(|digit| digit == b'0');
        (is_default && !address.is_unspecified()).then_some(IpAddr::V6(address))
    });
    let mut hops: Vec<_> = v4.chain(v6).collect();
    hops.sort_unstable();
    hops.dedup();
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_network() {
        let networks = own_networks().unwrap();
        assert!(networks.contains(&"127.0.0.1/8".parse().unwrap()), "{networks:?}");
    }

    #[test]
    fn only_the_next_hops_of_default_routes_are_gateways() {
        let hop = u32::from_ne_bytes([192, 0, 2, 1]);
        let v4 = format!(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t{hop:08X}\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
             eth0\t00000000\t{hop:08X}\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
             eth1\t0007000A\t{hop:08X}\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
             tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"
        );
        let zeros = "0".repeat(32);
        let v6 = format!(
            "{zeros} 00 {zeros} 00 20010db8000000000000000000000001 00000400 1 0 00000003     eth0\n\
             20010db8000000000000000000000000 20 {zeros} 00 20010db8000000000000000000000002 00000100 1 0 00000001 eth3\n\
             {zeros} 00 {zeros} 00 {zeros} ffffffff 1 0 00200200       lo\n"
        );
        let shown: Vec<_> = next_hops(&v4, &v6).iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["192.0.2.1", "2001:db8::1"]);
        assert!(next_hops("", "").is_empty());
    }
}
