//! A prefix as an operator writes it.

use std::net::IpAddr;

use ipnet::IpNet;

/// `192.0.2.0/24`, or an address alone for just that one. Whether bits are set behind the length is the daemon's to judge.
pub(super) fn parse(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|_| address())
        .map_err(|_| format!("'{text}' is no prefix: write 192.0.2.0/24, 2001:db8::/32 or a single address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_alone_is_the_prefix_of_just_that_one() {
        assert_eq!(parse("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(parse("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert_eq!(parse("192.0.2.0/24").unwrap().to_string(), "192.0.2.0/24");
        assert!(parse("mx.example.com").unwrap_err().contains("write 192.0.2.0/24"));
    }
}
