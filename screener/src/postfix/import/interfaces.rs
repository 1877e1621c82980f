//! This host's interfaces as Postfix sees them: the addresses behind a word of `inet_interfaces`, and the networks that are its own
//! if `mynetworks` does not name them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::lines::words;
use super::Import;

impl Import<'_> {
    /// The addresses behind an address or a name; none: Postfix would not start with it, or it is not known here.
    pub(super) fn addresses_of(&self, word: &str) -> Vec<IpAddr> {
        if let Ok(address) = word.replace(['[', ']'], "").parse() {
            return vec![address];
        }
        let found = (self.host.lookup)(word);
        // A name that leads elsewhere is none of an interface.
        if found.iter().all(|address| self.host.addresses.contains(address)) { found } else { Vec::new() }
    }

    /// Whether Postfix speaks the family of an address.
    pub(super) fn speaks(&self, address: IpAddr) -> bool {
        let protocols = self.parameters.value("inet_protocols").unwrap_or_default();
        let protocols = words(&protocols);
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        protocols.is_empty() || protocols.contains(&"all") || protocols.contains(&family)
    }

    /// `mynetworks` as `mynetworks_style` makes it of the interfaces: as a list, without this host's own addresses where those are
    /// all.
    ///
    /// # Errors
    /// If Postfix would not start with it; with what to do.
    pub(super) fn networks_by_style(&self) -> Result<String, String> {
        let value = |name: &str| self.parameters.value(name).map_err(|why| format!("{name}: {why}"));
        let style = value("mynetworks_style")?;
        let net: fn(IpNet) -> IpNet = match style.trim() {
            // Its own addresses are never screened.
            "host" => return Ok(String::new()),
            "subnet" => |interface| interface.trunc(),
            "class" => class,
            other => return Err(format!("'{other}' is no mynetworks_style, and Postfix itself would refuse it")),
        };
        let interfaces = value("inet_interfaces")?;
        let own: Vec<IpNet> = match words(&interfaces).as_slice() {
            ["all"] => self.host.interfaces.clone(),
            ["loopback-only"] => self.host.interfaces.iter().copied().filter(|it| it.addr().is_loopback()).collect(),
            named => {
                let addresses: Vec<IpAddr> = named.iter().flat_map(|word| self.addresses_of(word)).collect();
                self.host.interfaces.iter().copied().filter(|it| addresses.contains(&it.addr())).collect()
            }
        };
        let mut networks: Vec<String> = Vec::new();
        for interface in own.into_iter().filter(|it| self.speaks(it.addr()) && !is_link_local(it.addr())) {
            let network = match net(interface) {
                IpNet::V4(v4) => v4.to_string(),
                IpNet::V6(v6) => format!("[{}]/{}", v6.addr(), v6.prefix_len()),
            };
            if !networks.contains(&network) {
                networks.push(network);
            }
        }
        Ok(networks.join(" "))
    }
}

/// The network around an address as there were classes; of IPv6 there are none.
fn class(interface: IpNet) -> IpNet {
    let length = match interface.addr() {
        IpAddr::V4(v4) => match v4.octets()[0] {
            0..128 => 8,
            128..192 => 16,
            192..224 => 24,
            _ => 4,
        },
        IpAddr::V6(_) => interface.prefix_len(),
    };
    IpNet::new(interface.addr(), length).map_or(interface, |net| net.trunc())
}

/// Postfix names such a network with its interface, and no client's address matches that.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
