//! Whom this host asks: `/etc/resolv.conf`, as the C library reads it (resolv.conf(5)).
//!
//! Reads the file anew each time; search domains and options are of no use here. Asks nobody.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::NoResolver;

const FILE: &str = "/etc/resolv.conf";
const PORT: u16 = 53;

/// The servers that the system asks. Where it names none, that is the one on this host, which may be about to start.
///
/// # Errors
/// When there is a file that cannot be read.
pub(crate) fn servers() -> Result<Vec<SocketAddr>, NoResolver> {
    let text = match fs::read(FILE) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|error| NoResolver(format!("{FILE}: {error}")))?,
    };
    let mut named = named_in(&text);
    if named.is_empty() {
        named.push(Ipv4Addr::LOCALHOST.into());
    }
    Ok(named.into_iter().map(|server| SocketAddr::new(server, PORT)).collect())
}

/// The servers that such a file names. A line that is wrong is passed over, as the C library does.
pub(crate) fn named_in(text: &[u8]) -> Vec<IpAddr> {
    let (config, _) = resolv_conf::Config::parse_with_errors(text);
    config.nameservers.into_iter().map(IpAddr::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_found_whatever_else_the_file_says() {
        let text =
            b"# made by hand\nsearch not..a.domain\noptions edns0 what:7\nnameserver 192.0.2.53\nnameserver what\n\
                     nameserver fe80::1%eth0\n; nameserver 192.0.2.54\nnameserver 203.0.113.53";
        let named = ["192.0.2.53", "fe80::1", "203.0.113.53"].map(|server| server.parse::<IpAddr>().unwrap());
        assert_eq!(named_in(text), named);
        assert!(named_in(b"search example.com\n").is_empty());
        assert!(named_in(b"\xff\xfe\n").is_empty());
    }
}
