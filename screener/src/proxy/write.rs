//! Writing: the header that tells the MTA who the client is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{FIXED, Header, Origin, SIGNATURE, Tlv};

/// The longest header that is written: what fits into the smallest segment, and all that Postfix takes (`HAPROXY_MAX_LEN`).
/// TLVs that would not fit are left out.
pub const LONGEST_WRITTEN: usize = 536;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

impl Header {
    /// As version 1, a line.
    pub fn v1(&self) -> Vec<u8> {
        let Origin::Client { client, server } = self.origin else { return b"PROXY UNKNOWN\r\n".to_vec() };
        let ends = match (client.ip(), server.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => format!("TCP4 {from} {to}"),
            (from, to) => format!("TCP6 {} {}", wide(from), wide(to)),
        };
        format!("PROXY {ends} {} {}\r\n", client.port(), server.port()).into_bytes()
    }

    /// As version 2, binary, with those of the TLVs that say something about the client and fit.
    pub fn v2(&self) -> Vec<u8> {
        let (command, family, addresses) = match self.origin {
            Origin::Local => (LOCAL, UNSPECIFIED, Vec::new()),
            Origin::Unknown => (PROXY, UNSPECIFIED, Vec::new()),
            Origin::Client { client, server } => addresses(client, server),
        };
        let mut wire = SIGNATURE.to_vec();
        wire.extend([command, family, 0, 0]);
        wire.extend(addresses);
        for tlv in self.tlvs.iter().filter(|tlv| tlv.kind.goes_on()) {
            if wire.len() + tlv.wire_length() <= LONGEST_WRITTEN {
                put(&mut wire, tlv);
            }
        }
        let length =
            u16::try_from(wire.len() - FIXED).unwrap_or_else(|_| unreachable!("no longer than LONGEST_WRITTEN"));
        wire[FIXED - 2..FIXED].copy_from_slice(&length.to_be_bytes());
        wire
    }
}

fn addresses(client: SocketAddr, server: SocketAddr) -> (u8, u8, Vec<u8>) {
    let mut wire = Vec::with_capacity(36);
    let family = match (client.ip(), server.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            wire.extend(from.octets());
            wire.extend(to.octets());
            TCP_OVER_IPV4
        }
        // Ends of two families do not occur on one connection; as mapped addresses they would still be told truly.
        (from, to) => {
            wire.extend(wide(from).octets());
            wire.extend(wide(to).octets());
            TCP_OVER_IPV6
        }
    };
    wire.extend(client.port().to_be_bytes());
    wire.extend(server.port().to_be_bytes());
    (PROXY, family, wire)
}

fn put(wire: &mut Vec<u8>, tlv: &Tlv) {
    // What does not fit into `LONGEST_WRITTEN` does not come here.
    let length = u16::try_from(tlv.value.len()).unwrap_or(u16::MAX);
    wire.push(tlv.kind.0);
    wire.extend(length.to_be_bytes());
    wire.extend_from_slice(&tlv.value);
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
