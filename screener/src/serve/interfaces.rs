//! What the configuration asks of the kernel half; and which interfaces face the Internet where it does not say: those with a
//! default route.

use std::collections::BTreeSet;

use crate::config::{self, Config};
use crate::kernel::{Options, XdpPolicy};

/// What to say when no interface can be found.
pub(crate) const NONE: &str = "XDP is not attached: kernel.interfaces is empty and there is no default route to tell the \
                               interface that faces the Internet; name it there, or set kernel.xdp = \"off\"";

/// The options of the kernel half.
pub(crate) fn kernel_options(config: &Config, steer: bool) -> Options {
    let xdp = match config.kernel.xdp {
        config::XdpMode::Auto => XdpPolicy::Auto,
        config::XdpMode::Native => XdpPolicy::Native,
        config::XdpMode::Generic => XdpPolicy::Generic,
        config::XdpMode::Off => XdpPolicy::Off,
    };
    let mut interfaces: Vec<_> = config.kernel.interfaces.iter().map(ToString::to_string).collect();
    if interfaces.is_empty() && xdp != XdpPolicy::Off {
        interfaces = with_default_route();
    }
    Options {
        interfaces,
        xdp,
        follow: false,
        steer,
        ports: config.kernel.ports.clone(),
        pin: config.kernel.pin.clone(),
        key_length: config.ledger.ipv6_prefix,
        event_sample: 1,
        syn_rate: config.kernel.syn_rate,
    }
}

/// The interfaces of all default routes, IPv4 and IPv6.
fn with_default_route() -> Vec<String> {
    let v4 = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    default_routes(&v4, &v6)
}

/// From the two tables of proc(5): in the first the destination is the second column and its mask the eighth, in the other
/// the destination with its length come first and the name last.
fn default_routes(v4: &str, v6: &str) -> Vec<String> {
    let mut names = BTreeSet::new();
    for line in v4.lines().skip(1) {
        let columns: Vec<_> = line.split_whitespace().collect();
        if let [name, "00000000", _, _, _, _, _, "00000000", ..] = columns[..] {
            names.insert(name);
        }
    }
    for line in v6.lines() {
        let columns: Vec<_> = line.split_whitespace().collect();
        if let [destination, "00", .., name] = columns[..]
            && destination.bytes().all(|digit| digit == b'0')
        {
            names.insert(name);
        }
    }
    // The kernel's own "unreachable" default stands on the loopback.
    names.remove("lo");
    names.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_default_routes_count_and_never_the_loopback() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let zeros = "0".repeat(32);
        let v6 = format!(
            "{zeros} 00 {zeros} 00 fe80000000000000000000000000001 00000400 1 0 00000003     eth2\n\
             20010db8000000000000000000000000 20 {zeros} 00 {zeros} 00000100 1 0 00000001     eth3\n\
             {zeros} 00 {zeros} 00 {zeros} ffffffff 1 0 00200200       lo\n"
        );
        assert_eq!(default_routes(v4, &v6), ["eth0", "eth2"]);
        assert!(default_routes("", "").is_empty());
    }
}
