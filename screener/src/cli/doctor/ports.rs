//! Who listens on a TCP port, from `/proc`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// `TCP_LISTEN` of the kernel, in the tables' form.
const LISTEN: &str = "0A";

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    /// The processes that have it, as `name (number)`; empty: they cannot be seen.
    pub(super) processes: BTreeSet<String>,
    inode: u64,
}

impl Listener {
    /// Whether clients that connect to an address come to it. `[::]` takes IPv4 too, unless it was told not to, which
    /// cannot be seen.
    pub(super) fn covers(&self, wanted: SocketAddr) -> bool {
        let (own, wanted_ip) = (self.address.ip(), wanted.ip());
        let any = own.is_unspecified() && (own.is_ipv6() || wanted_ip.is_ipv4());
        self.address.port() == wanted.port() && (any || own == wanted_ip)
    }

    /// Whether it is one of ours.
    pub(super) fn is_ours(&self) -> bool {
        self.processes.iter().any(|process| process.starts_with("screener "))
    }

    /// Who listens where.
    pub(super) fn shown(&self) -> String {
        let names: Vec<_> = self.processes.iter().map(String::as_str).collect();
        let who = if names.is_empty() { "a process".to_owned() } else { names.join(", ") };
        format!("{who} on {}", self.address)
    }
}

/// The listeners on some ports.
pub(super) fn listeners(ports: &[u16]) -> Vec<Listener> {
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        found.extend(parse(&text).filter(|listener| ports.contains(&listener.address.port())));
    }
    if !found.is_empty() {
        name_processes(&mut found);
    }
    found
}

/// From a table of proc(5): the second column is the address, the fourth the state, the tenth the inode.
fn parse(table: &str) -> impl Iterator<Item = Listener> {
    table.lines().skip(1).filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [_, address, _, LISTEN, _, _, _, _, _, inode, ..] = columns[..] else { return None };
        let (ip, port) = address.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Listener {
            address: SocketAddr::new(ip_of(ip)?, port),
            processes: BTreeSet::new(),
            inode: inode.parse().ok()?,
        })
    })
}

/// The address as words of 32 bits in the machine's own order.
fn ip_of(hex: &str) -> Option<IpAddr> {
    let mut octets = Vec::new();
    for at in (0..hex.len()).step_by(8) {
        octets.extend(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    match *octets.as_slice() {
        [a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d).into()),
        _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()),
    }
}

fn name_processes(listeners: &mut [Listener]) {
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = process.file_name().to_string_lossy().into_owned();
        if !number.bytes().all(|digit| digit.is_ascii_digit()) {
            continue;
        }
        for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let Some(inode) = socket_of(&descriptor.path()) else { continue };
            for listener in listeners.iter_mut().filter(|listener| listener.inode == inode) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                listener.processes.insert(format!("{} ({number})", name.trim()));
            }
        }
    }
}

fn socket_of(descriptor: &Path) -> Option<u64> {
    let to = fs::read_link(descriptor).ok()?;
    to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_of_both_families_are_read_and_connections_left_out() {
        let v4 = u32::from_ne_bytes([192, 0, 2, 10]);
        let one = u32::from_ne_bytes([0, 0, 0, 1]);
        let table = format!(
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 00000000:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0\n\
             1: {v4:08X}:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 78 1 0\n\
             2: {v4:08X}:0019 0A0A0A0A:C350 01 00000000:00000000 00:00000000 00000000     0        0 79 1 0\n\
             3: 000000000000000000000000{one:08X}:0019 00000000000000000000000000000000:0000 0A 00000000:00000000 \
             00:00000000 00000000     0        0 80 1 0\n"
        );
        let found: Vec<_> = parse(&table).map(|listener| (listener.address.to_string(), listener.inode)).collect();
        let wanted = [("0.0.0.0:25", 77), ("192.0.2.10:25", 78), ("[::1]:25", 80)];
        assert_eq!(found, wanted.map(|(address, inode)| (address.to_owned(), inode)));
    }

    #[test]
    fn a_wildcard_covers_what_it_can() {
        let covers = |own: &str, wanted: &str| {
            let listener = Listener { address: own.parse().unwrap(), processes: BTreeSet::new(), inode: 0 };
            listener.covers(wanted.parse().unwrap())
        };
        assert!(covers("0.0.0.0:25", "192.0.2.1:25") && covers("[::]:25", "0.0.0.0:25"));
        assert!(covers("192.0.2.1:25", "192.0.2.1:25"));
        assert!(!covers("0.0.0.0:25", "[::]:25") && !covers("127.0.0.1:25", "0.0.0.0:25"));
        assert!(!covers("0.0.0.0:26", "0.0.0.0:25"));
    }
}
