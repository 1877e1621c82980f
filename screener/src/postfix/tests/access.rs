//! Who is let in and who is kept out by a list and its tables, against a search from the top for each address.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::super::access::{Access, Verdict};
use super::super::networks::Networks;
use super::Shelf;

fn read(list: &str, own: &str, shelf: &Shelf) -> Access {
    Access::read(list, &Networks::read(own, shelf), shelf)
}

fn says(access: &Access, address: &str) -> &'static str {
    let address: IpAddr = address.parse().unwrap();
    let found = access.claims.prefixes().find(|(net, _)| net.contains(&address));
    match found {
        Some((_, Verdict::OwnNetwork)) => "own",
        Some((_, Verdict::Permit(_))) => "permit",
        Some((_, Verdict::Reject(_) | Verdict::RejectMany(_))) => "reject",
        Some((_, Verdict::End)) | None => "-",
    }
}

const TABLE: &str = "\
# who
192.0.2.9 reject
192.0.2.0/24 permit
!198.51.100.0/25 dunno
if 198.51.100.0/26
198.51.100.7 reject spam
  and more
!198.51.100.0/27 permit
endif
198.51.100.0/24 reject, whatever
2001:db8::/32 PERMIT
203.0.113.1/24 reject
";

#[test]
fn the_first_match_decides_in_the_list_and_in_its_tables() {
    let shelf = Shelf::default()
        .with("/t", TABLE)
        .with("/hash", "203.0.113.5 permit\n203.0.113.6 reject\nexample.com permit\n2001:DB8:F::5 permit\n");
    let access = read("permit_mynetworks cidr:/t texthash:/hash", "192.0.2.8/30 !192.0.2.4 [2001:db8:1::]/48", &shelf);
    for (address, expected) in [
        ("192.0.2.8", "own"),
        ("192.0.2.9", "own"),
        ("192.0.2.4", "permit"),
        ("198.51.100.7", "reject"),
        ("198.51.100.8", "reject"),
        ("198.51.100.40", "permit"),
        ("198.51.100.100", "reject"),
        ("198.51.100.200", "-"),
        ("2001:db8:1::1", "own"),
        ("2001:db8:2::1", "permit"),
        // A negation is about its own family only.
        ("2001:db9::1", "-"),
        // `dunno` leaves it to the next table.
        ("203.0.113.5", "permit"),
        ("203.0.113.6", "reject"),
        ("203.0.113.7", "-"),
        ("2001:db8:f::5", "permit"),
    ] {
        assert_eq!(says(&access, address), expected, "{address}");
    }
    assert!(access.unclear.is_empty(), "{:?}", access.unclear);
    let [ignored] = access.ignored.as_slice() else { panic!("{:?}", access.ignored) };
    assert!(ignored.starts_with("/t:12: ") && ignored.contains("write 203.0.113.0/24 for the network"), "{ignored}");
}

#[test]
fn behind_what_is_not_understood_nobody_is_let_in() {
    let shelf =
        Shelf::default().with("/t", "192.0.2.0/24 permit\n198.51.100.0/24 reject\n").with("/w", "192.0.2.1 OK\n");
    for (list, part) in [
        ("mysql:/x cidr:/t", "a table of type mysql is not read: write what it says into a cidr: table"),
        ("cidr:/none cidr:/t", "cannot read /none"),
        ("cidr:/w cidr:/t", "/w:1: 'OK' is none of permit, reject and dunno"),
        ("permit_all cidr:/t", "is nothing that Postfix knows here"),
    ] {
        let access = read(list, "", &shelf);
        assert_eq!((says(&access, "192.0.2.7"), says(&access, "198.51.100.7")), ("-", "reject"), "{list}");
        assert!(access.unclear[0].contains(part), "{:?}", access.unclear);
    }
    // What stands before it counts.
    assert_eq!(says(&read("cidr:/t mysql:/x", "", &shelf), "192.0.2.7"), "permit");
    assert_eq!(says(&read("dunno cidr:/t", "", &shelf), "192.0.2.7"), "-");
    for list in ["mysql:/x 192.0.2.0/24", "2001:db8::/32 192.0.2.0/24", "192.0.2.1/24 192.0.2.0/24"] {
        let networks = Networks::read(list, &shelf);
        assert!(!networks.has("192.0.2.1".parse().unwrap()) && networks.unclear.len() == 1, "{list}");
        assert!(!networks.has("2001:db8::1".parse().unwrap()), "{list}");
    }
}

#[test]
fn a_table_with_keys_knows_addresses_as_postfix_writes_them_and_nothing_else() {
    let table = "192.0.2.0/24 permit\n[2001:db8::1] permit\n2001:db8:0:0::2 permit\n::ffff:192.0.2.9 permit\n192.0.2.8 permit\n";
    let shelf = Shelf::default().with("/h", table);
    for kind in ["hash", "texthash", "lmdb"] {
        let access = read(&format!("{kind}:/h"), "", &shelf);
        for (address, expected) in [
            ("192.0.2.8", "permit"),
            ("192.0.2.7", "-"),
            ("192.0.2.9", "-"),
            ("2001:db8::1", "-"),
            ("2001:db8::2", "-"),
        ] {
            assert_eq!(says(&access, address), expected, "{address} in {kind}");
        }
        assert!(access.unclear.is_empty() && access.ignored.len() == 4, "{:?}", access.ignored);
        assert!(access.ignored[0].starts_with("/h:1: '192.0.2.0/24': ") && access.ignored[0].contains("a cidr: table"));
    }
    assert!(!read("fail:/h", "", &shelf).unclear.is_empty());
}

#[test]
fn names_in_a_list_of_networks_are_passed_by_and_files_have_comments_and_lines_that_go_on() {
    let file = "  203.0.113.0/24\n# ours\n192.0.2.0/28\n  # indented\n\t198.51.100.0/24 # the office\n";
    let networks = Networks::read(
        "localhost /f !mail.example.com mx.example.com/24 [2001:db8::]/32",
        &Shelf::default().with("/f", file),
    );
    let has = |address: &str| networks.has(address.parse().unwrap());
    assert!(has("192.0.2.1") && has("198.51.100.7") && has("2001:db8::1"), "{networks:?}");
    assert!(!has("203.0.113.1"), "what begins with white space begins with nothing");
    assert!(networks.unclear.is_empty(), "{:?}", networks.unclear);
    for name in ["localhost", "mail.example.com", "mx.example.com/24", "office"] {
        assert!(networks.ignored.iter().any(|line| line.starts_with(&format!("'{name}': "))), "{:?}", networks.ignored);
    }
}

/// A rule in 10.0.0.0/26, in or out of an `if`.
fn rule() -> impl Strategy<Value = (u8, u8, u8, bool, bool)> {
    (0..64_u8, 26..=32_u8, 0..3_u8, any::<bool>(), any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_address_meets_what_a_search_from_the_top_finds(
        rules in proptest::collection::vec(rule(), 1..10),
        outer in (0..64_u8, 26..=30_u8, any::<bool>()),
        reach in (0..10_usize, 0..10_usize),
    ) {
        let net = |last: u8, length: u8| IpNet::new(Ipv4Addr::new(10, 0, 0, last).into(), length).unwrap().trunc();
        let words = ["permit", "reject", "dunno"];
        let (from, to) = (reach.0.min(reach.1), reach.0.max(reach.1));
        let mut text = String::new();
        for (at, (last, length, word, negated, _)) in rules.iter().enumerate() {
            if at == from {
                let _ = writeln!(text, "if {}{}", if outer.2 { "!" } else { "" }, net(outer.0, outer.1));
            }
            let mark = if *negated { "!" } else { "" };
            let _ = writeln!(text, "{mark}{} {}", net(*last, *length), words[usize::from(*word)]);
            if at == to {
                let _ = writeln!(text, "endif");
            }
        }
        let shelf = Shelf::default().with("/t", &text);
        let access = read("cidr:/t", "", &shelf);
        for last in 0..64_u8 {
            let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, last));
            let first = rules.iter().enumerate().find(|(at, (last, length, _, negated, _))| {
                let within = !(from..=to).contains(at) || (net(outer.0, outer.1).contains(&address) != outer.2);
                within && net(*last, *length).contains(&address) != *negated
            });
            let expected = first.map_or("-", |(_, rule)| ["permit", "reject", "-"][usize::from(rule.2)]);
            prop_assert_eq!(says(&access, &address.to_string()), expected, "{} in\n{}", address, text);
        }
    }
}
