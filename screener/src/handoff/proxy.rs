//! The PROXY header that tells the MTA who the client is (sections 2.1 and 2.2 of the PROXY protocol's text).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::HandoffMethod;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_LOCAL: u8 = 0x20;
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The connection is our own: no client.
    Local,
    /// The connection is made for a client: its two ends, of one family.
    Client(SocketAddr, SocketAddr),
}

impl ProxyHeader {
    /// For a client's connection.
    pub fn for_client(client: SocketAddr, server: SocketAddr) -> Self {
        Self::Client(client, server)
    }

    /// In the form that a handoff method asks for; empty where it asks for none.
    pub fn wire(self, method: HandoffMethod) -> Vec<u8> {
        match method {
            // `config/unbuilt.rs` refuses to pass descriptors; a version 2 header is what Postfix takes best without.
            HandoffMethod::ProxyV2 | HandoffMethod::PostfixPass => self.v2(),
            HandoffMethod::ProxyV1 => self.v1().into_bytes(),
            HandoffMethod::None => Vec::new(),
        }
    }

    /// As version 1, a line.
    fn v1(self) -> String {
        let Self::Client(client, server) = self else {
            // The version has a word for "no client", UNKNOWN, but Postfix refuses it: we are our own client then.
            return "PROXY TCP4 127.0.0.1 127.0.0.1 65535 25\r\n".to_owned();
        };
        let ends = match (client.ip(), server.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => format!("TCP4 {from} {to}"),
            (from, to) => format!("TCP6 {} {}", wide(from), wide(to)),
        };
        format!("PROXY {ends} {} {}\r\n", client.port(), server.port())
    }

    /// As version 2, binary.
    fn v2(self) -> Vec<u8> {
        let mut wire = SIGNATURE.to_vec();
        let Self::Client(client, server) = self else {
            wire.extend([VERSION_2_LOCAL, 0, 0, 0]);
            return wire;
        };
        wire.push(VERSION_2_PROXY);
        match (client.ip(), server.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                wire.extend([TCP_OVER_IPV4, 0, 12]);
                wire.extend(from.octets());
                wire.extend(to.octets());
            }
            // Ends of two families do not occur on one connection; as mapped addresses they would still be told truly.
            (from, to) => {
                wire.extend([TCP_OVER_IPV6, 0, 36]);
                wire.extend(wide(from).octets());
                wire.extend(wide(to).octets());
            }
        }
        wire.extend(client.port().to_be_bytes());
        wire.extend(server.port().to_be_bytes());
        wire
    }
}

fn wide(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_is_told_in_28_bytes() {
        let header = ProxyHeader::for_client("203.0.113.7:49152".parse().unwrap(), "192.0.2.10:25".parse().unwrap());
        let mut expected = SIGNATURE.to_vec();
        expected.extend([0x21, 0x11, 0, 12, 203, 0, 113, 7, 192, 0, 2, 10, 0xc0, 0x00, 0, 25]);
        assert_eq!(header.v2(), expected);
    }

    #[test]
    fn an_ipv6_client_is_told_in_52_bytes() {
        let header =
            ProxyHeader::for_client("[2001:db8::7]:49152".parse().unwrap(), "[2001:db8:25::10]:25".parse().unwrap());
        let wire = header.v2();
        assert_eq!(wire.len(), 52);
        assert_eq!(wire[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(wire[48..], [0xc0, 0x00, 0, 25]);
    }

    #[test]
    fn version_1_is_a_line() {
        let four = ProxyHeader::for_client("203.0.113.7:49152".parse().unwrap(), "192.0.2.10:25".parse().unwrap());
        assert_eq!(four.wire(HandoffMethod::ProxyV1), b"PROXY TCP4 203.0.113.7 192.0.2.10 49152 25\r\n");
        let six = ProxyHeader::for_client("[2001:db8::7]:1".parse().unwrap(), "[2001:db8:25::10]:25".parse().unwrap());
        assert_eq!(six.wire(HandoffMethod::ProxyV1), b"PROXY TCP6 2001:db8::7 2001:db8:25::10 1 25\r\n");
        assert!(six.wire(HandoffMethod::None).is_empty());
    }

    #[test]
    fn a_connection_of_our_own_is_local() {
        assert_eq!(ProxyHeader::Local.v2()[12..], [0x20, 0, 0, 0]);
    }
}
