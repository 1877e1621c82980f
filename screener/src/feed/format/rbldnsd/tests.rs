//! rbldnsd's notations, what it would skip, and that what is excluded is never denied.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::super::tests::{prefixes, read};
use super::super::{Format, List};

fn list(text: &str) -> Result<List, String> {
    read(Format::Rbldnsd, text)
}

fn told(text: &str) -> String {
    list(text).unwrap_err()
}

#[test]
fn addresses_are_written_as_rbldnsd_writes_them() {
    for (line, expected) in [
        ("10.0.0.0/24", "10.0.0.0/24"),
        ("10.0.0", "10.0.0.0/24"),
        ("10/24", "10.0.0.0/24"),
        ("10-10.0.0", ""),
        ("10.0.0.0-10.0.0.255", "10.0.0.0/24"),
        (
            "10.0.0.1-255",
            "10.0.0.1/32 10.0.0.2/31 10.0.0.4/30 10.0.0.8/29 10.0.0.16/28 10.0.0.32/27 10.0.0.64/26 10.0.0.128/25",
        ),
        ("10.16.0-10.31.255", "10.16.0.0/12"),
        ("10.16-10.31", "10.16.0.0/12"),
        ("10.16-31", "10.16.0.0/12"),
        ("10.16/12", "10.16.0.0/12"),
        ("10-11", "10.0.0.0/7"),
        ("0/0", "0.0.0.0/0"),
        ("10.0.0.7", "10.0.0.7/32"),
        ("10.0.0.7 :127.0.0.3:listed # $ by us", "10.0.0.7/32"),
        ("10.0.0.7:3:listed", "10.0.0.7/32"),
        ("10.0.0.7\tfree text; and # more", "10.0.0.7/32"),
        ("10.0.0.7# comment", "10.0.0.7/32"),
        ("10.0.0.7 ;", "10.0.0.7/32"),
        ("2001:21ab:c000/36", "2001:21ab:c000::/36"),
        ("2001:21ab:def7:4242 :127.0.1.3: text", "2001:21ab:def7:4242::/64"),
        ("abac:adab:ad00:42f", "abac:adab:ad00:42f::/64"),
        ("2605:6001:42::/52", "2605:6001:42::/52"),
        ("::1                   # localhost", "::1/128"),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8/128"),
        ("::ffff:c000:200/120", "192.0.2.0/24"),
    ] {
        match expected {
            "" => assert!(list(line).is_err(), "{line}"),
            _ => assert_eq!(prefixes(Format::Rbldnsd, line), expected, "{line}"),
        }
    }
}

#[test]
fn what_is_for_the_server_says_nothing_about_clients() {
    let text = "$SOA 300 ns.bl.test. admin.bl.test. 0 600 300 86400 300\n#$NS 1w ns.bl.test\n:$TTL 60\n;$1 see\n$= $\n\
                $TIMESTAMP 2026:11:26 +7d\n#$Id: a list of somebody's $\n\n; a comment\n:127.0.0.2:Listed, see $1\n127.0.0.2\n\
                ::ffff:7f00:2\n10.0.0.1\n:2\n10.0.0.2\n10.0.0.1 :3: again\n";
    let list = list(text).unwrap();
    assert_eq!(prefixes(Format::Rbldnsd, text), "10.0.0.1/32 10.0.0.2/32");
    assert_eq!((list.test_points, list.repeated), (2, 1));
    assert_eq!(list.notes().len(), 2);
    // Wider than where test points are: the guard rails shall see it.
    assert_eq!(prefixes(Format::Rbldnsd, "127/8"), "127.0.0.0/8");
}

#[test]
fn exclusions_are_cut_out_and_win() {
    let text = "10.0.0.0/29\n! 10.0.0.2\n!10.0.0.6-10.0.0.9 : ignored\n10.0.0.8\n2001:db8:1:2\n!2001:db8:1:2::\n";
    let read = list(text).unwrap();
    let nets = read.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(nets[..3], ["10.0.0.0/31", "10.0.0.3/32", "10.0.0.4/31"]);
    assert_eq!((nets.len(), read.exclusions, read.nothing_left), (3 + 64, 3, 1));
    assert!(told("10.0.0.8\n!10.0.0.0/24\n").contains("there is no prefix in it"));
}

#[test]
fn what_rbldnsd_would_skip_or_not_serve_is_an_error_that_says_what_to_write() {
    for (line, part) in [
        ("10", "'10' alone is no address: write 10/8"),
        ("10.0.0.1/24", "write 10.0.0.0/24 for the network"),
        ("2001:db8::1/32", "write 2001:db8::/32 for the network"),
        ("10.0.0.1-10.0.0", "is no address, prefix or range: write"),
        ("10.0.0.9-8", "is no address, prefix or range"),
        ("10.0.0.1-9/24", "is no address, prefix or range"),
        ("10.0.0.256", "is no address, prefix or range"),
        ("10.0.0.0/33", "is no address, prefix or range"),
        ("10.0.0.", "is no address, prefix or range"),
        ("10.0.0.1.2", "is no address, prefix or range"),
        ("10.0.0.1x", "is no address, prefix or range"),
        ("2001:db8:::1", "is no address, prefix or range"),
        ("beef", "is no address, prefix or range"),
        ("example.com", "is no address, prefix or range"),
        ("10.0.0.1 :0:no address", "between the colons an address must stand"),
        (":text alone", "between the colons an address must stand"),
        ("$TLL 60", "rbldnsd knows no such $ line"),
        (":$TLL 60", "rbldnsd knows no such $ line"),
        ("$DATASET ip4set:proxies @", "import the part behind each $DATASET"),
        ("$MAXRANGE4 /33", "$MAXRANGE4 '/33': write a number"),
        ("$MAXRANGE4 0", "$MAXRANGE4 '0': write a number"),
        ("$TIMESTAMP tomorrow", "$TIMESTAMP 'tomorrow': write yyyy:mm:dd"),
        ("$TIMESTAMP 2026:13:01", "write yyyy:mm:dd"),
        ("$TIMESTAMP 2026:11:26 +7x", "write yyyy:mm:dd"),
        ("$TIMESTAMP 0 +7d", "write yyyy:mm:dd"),
        ("$TIMESTAMP 2026:11:26 2026:11:27 2026:11:28", "write yyyy:mm:dd"),
        ("$TIMESTAMP 2026:11:26:12:05:01", "made at 2026-11-26T12:05:01Z, and now it is 2026-11-26T12:00:00Z"),
        ("$TIMESTAMP 2027:01:01", "made at 2027-01-01T00:00:00Z, and now it is 2026-11-26T12:00:00Z"),
        ("$TIMESTAMP 2026-11-01 2026-11-26:11:59:59", "holds until 2026-11-26T11:59:59Z only: fetch it again"),
        ("$TIMESTAMP 20261101 +2w", "holds until 2026-11-15T00:00:00Z only"),
    ] {
        let told = told(&format!("192.0.2.1\n{line}\n"));
        assert!(told.starts_with("list:2: ") && told.contains(part), "{line}: {told}");
    }
    for fine in [
        "2026:11:26:12:05:00",
        "0",
        "- -",
        "2026:11:26:12:00:00",
        "20261126115959 20261126120000",
        "2026-11-26 +12h",
        "2026:11:01 0",
    ] {
        assert!(list(&format!("$TIMESTAMP {fine}\n192.0.2.1\n")).is_ok(), "{fine}");
    }
}

#[test]
fn the_lists_own_limit_for_a_range_holds_from_its_line_on_and_never_grows() {
    let text =
        "10/8\n$MAXRANGE4 /24\n10.1.1\n2001:db8::/32\n$MAXRANGE4 1000\n10.2.0-1\n$MAXRANGE4 1\n!10.0.0.0-1\n10.0.0.9\n";
    let told = told(text);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    assert!(
        lines[0].starts_with("list:6: '10.2.0-1' has 512 addresses, and the list's own $MAXRANGE4 allows 256"),
        "{told}"
    );
    assert!(lines[1].starts_with("list:8: '!10.0.0.0-1' has 2 addresses"), "{told}");
    assert!(list("$MAXRANGE4 /0\n0/0\n").is_ok());
}

/// An entry within 10.0.0.0/24 in one of the notations, and which last octets it has.
fn entry() -> impl Strategy<Value = (bool, String, std::ops::RangeInclusive<u8>)> {
    (any::<bool>(), 0..4_u8, any::<u8>(), any::<u8>(), 24..=32_u32).prop_map(|(excludes, kind, one, other, length)| {
        let (first, last) = (one.min(other), one.max(other));
        match kind {
            0 => (excludes, format!("10.0.0.{first}-{last}"), first..=last),
            1 => (excludes, format!("10.0.0.{first}-10.0.0.{last}"), first..=last),
            2 => (excludes, format!("10.0.0.{one}"), one..=one),
            _ => {
                let low = one & (255_u32 << (32 - length)) as u8;
                (excludes, format!("10.0.0.{low}/{length}"), low..=low | ((1_u32 << (32 - length)) - 1) as u8)
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn who_is_listed_and_not_excluded_is_denied_and_nobody_else(
        entries in proptest::collection::vec(entry(), 1..12),
    ) {
        let mut text = String::new();
        for (excludes, entry, _) in &entries {
            let _ = writeln!(text, "{}{entry}", if *excludes { "!" } else { "" });
        }
        let said = |which: bool, octet: &u8| entries.iter().any(|(excludes, _, range)| *excludes == which && range.contains(octet));
        let denied: Vec<IpNet> = list(&text).map(|list| list.prefixes).unwrap_or_default();
        for octet in 0..=255_u8 {
            let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, octet));
            let expected = said(false, &octet) && !said(true, &octet);
            prop_assert_eq!(denied.iter().any(|net| net.contains(&address)), expected, "{} in {}", address, text);
        }
    }
}
