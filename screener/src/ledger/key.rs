//! How clients and prefixes are written as keys of the file: fixed width, and in the order of the addresses.
//!
//! Holds only the two encodings. Never panics on what it reads: a key that was not written here decodes to `None`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::client::ClientKey;

/// Family byte and 16 address bytes; an IPv4 address stands in the first four, zeros behind.
pub(super) type ClientBytes = [u8; 17];
/// As [`ClientBytes`], and the prefix length: a prefix sorts before what it covers.
pub(super) type PrefixBytes = [u8; 18];

const V4: u8 = 4;
const V6: u8 = 6;

fn put_address(bytes: &mut [u8], address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            bytes[0] = V4;
            bytes[1..5].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            bytes[0] = V6;
            bytes[1..17].copy_from_slice(&v6.octets());
        }
    }
}

fn get_address(bytes: &[u8]) -> Option<IpAddr> {
    let (&family, rest) = bytes.split_first()?;
    let rest: [u8; 16] = rest.get(..16)?.try_into().ok()?;
    match family {
        V4 if rest[4..].iter().all(|&byte| byte == 0) => Some(Ipv4Addr::new(rest[0], rest[1], rest[2], rest[3]).into()),
        V6 => Some(Ipv6Addr::from(rest).into()),
        _ => None,
    }
}

pub(super) fn client_bytes(client: ClientKey) -> ClientBytes {
    let mut bytes = [0; 17];
    put_address(&mut bytes, client.address());
    bytes
}

/// The address alone: the caller cuts it to today's key length, which need not be the one it was written under.
pub(super) fn client_address(bytes: &ClientBytes) -> Option<IpAddr> {
    get_address(bytes)
}

pub(super) fn prefix_bytes(prefix: IpNet) -> PrefixBytes {
    let mut bytes = [0; 18];
    put_address(&mut bytes, prefix.addr());
    bytes[17] = prefix.prefix_len();
    bytes
}

pub(super) fn prefix(bytes: &PrefixBytes) -> Option<IpNet> {
    IpNet::new(get_address(bytes)?, bytes[17]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Ipv6KeyLength;

    fn key(text: &str) -> ClientKey {
        ClientKey::of(text.parse().unwrap(), Ipv6KeyLength::default())
    }

    #[test]
    fn keys_sort_as_the_clients_do_and_come_back_unchanged() {
        let clients = ["0.0.0.0", "9.0.0.1", "10.0.0.0", "192.0.2.255", "198.51.100.0", "2001:db8::", "2001:db8:1::"];
        let clients: Vec<_> = clients.into_iter().map(key).collect();
        assert!(clients.is_sorted());
        let bytes: Vec<_> = clients.iter().copied().map(client_bytes).collect();
        assert!(bytes.is_sorted());
        let back: Vec<_> = bytes.iter().filter_map(client_address).collect();
        assert_eq!(back, clients.iter().map(|client| client.address()).collect::<Vec<_>>());
    }

    #[test]
    fn a_prefix_sorts_before_what_it_covers_and_comes_back_unchanged() {
        let prefixes = ["10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "2001:db8::/32", "2001:db8::/64"];
        let prefixes: Vec<IpNet> = prefixes.into_iter().map(|text| text.parse().unwrap()).collect();
        let bytes: Vec<_> = prefixes.iter().copied().map(prefix_bytes).collect();
        assert!(bytes.is_sorted());
        assert_eq!(bytes.iter().filter_map(prefix).collect::<Vec<_>>(), prefixes);
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        let mut foreign = client_bytes(key("192.0.2.1"));
        foreign[9] = 1;
        assert_eq!(client_address(&foreign), None);
        assert_eq!(client_address(&[5; 17]), None);
        let mut long = prefix_bytes("192.0.2.0/24".parse().unwrap());
        long[17] = 33;
        assert_eq!(prefix(&long), None);
    }
}
