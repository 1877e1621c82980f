//! Every format by example with its traps, and that no bytes at all make a reader panic.

use proptest::prelude::*;

use super::*;

const NOW: UnixTime = UnixTime(1_795_694_400);

pub(super) fn read(format: Format, text: &str) -> Result<List, String> {
    format.read(text, NOW, &mut |_| ()).map_err(|bad| bad.told("list"))
}

pub(super) fn prefixes(format: Format, text: &str) -> String {
    let list = read(format, text).unwrap();
    list.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_plain_list_has_prefixes_addresses_and_comments() {
    let text = "\u{feff}# a list\r\n\n 198.51.100.0/24 # a net\r\n203.0.113.9;one\n; nothing\n2001:db8::/32\n203.0.113.9/32\n\
                ::ffff:192.0.2.0/120\n";
    assert_eq!(prefixes(Format::Cidr, text), "192.0.2.0/24 198.51.100.0/24 203.0.113.9/32 2001:db8::/32");
    assert_eq!(read(Format::Cidr, text).unwrap().repeated, 1);
    assert_eq!(prefixes(Format::Netset, "# Entries : 2 subnets\n  1.2.3.4\n5.6.0.0/16  \n"), "1.2.3.4/32 5.6.0.0/16");
    assert_eq!(
        read(Format::Netset, "1.2.3.4 ; no comment\n"),
        Err("list:1: '1.2.3.4 ; no comment' is no prefix and no address".into())
    );
}

#[test]
fn complaints_name_the_line_and_the_text_and_are_not_without_end() {
    let text = "198.51.100.0/24\nfoo\u{1b}[2J\n198.51.100.7/24\n".to_owned() + &"nonsense\n".repeat(20);
    let told = read(Format::Cidr, &text).unwrap_err();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[0], r"list:2: 'foo\u{1b}[2J' is no prefix and no address");
    assert!(
        lines[1].starts_with("list:3: 198.51.100.7/24 has bits set behind its length: write 198.51.100.0/24"),
        "{told}"
    );
    assert_eq!((lines.len(), lines[10]), (SHOWN + 1, "and 12 more lines that are not understood"));
    assert_eq!(read(Format::Cidr, "# nothing\n"), Err("list:1: there is no prefix in it".to_owned()));
    assert!(read(Format::Cidr, &"x".repeat(1000)).unwrap_err().len() < 400);
    let packed = String::from_utf8_lossy(&[0x1f, 0x8b, 8, 0, 0]);
    for format in Format::ALL {
        let told = read(format, &packed).unwrap_err();
        assert_eq!(told, "list:1: this is compressed: unpack it with gunzip first");
    }
}

#[test]
fn ranges_and_exclusions_that_come_to_too_many_prefixes_are_refused_before_they_are_all_there() {
    // 59 prefixes a line, and 64 MiB would have three million lines.
    let ranges = "1.0.0.1-223.255.255.254\n".repeat(MOST_PREFIXES / 50);
    // Each hole leaves about a hundred prefixes.
    let holes = (0..60_000_u64).map(|hole| format!("!2000:{:x}:{:x}::1\n", hole / 7919, hole * 7919 % 0x1_0000));
    let holes = "2000::/3\n".to_owned() + &holes.collect::<String>();
    for (format, text) in [(Format::Rbldnsd, &ranges), (Format::Spamd, &ranges), (Format::Rbldnsd, &holes)] {
        let told = read(format, text).unwrap_err();
        assert!(told.starts_with("list:1: it comes to more than 4194304 prefixes"), "{told}");
    }
}

#[test]
fn spamhaus_lists_are_taken_only_when_they_are_complete() {
    let text = "; Spamhaus DROP List 2026/11/25\n1.10.16.0/20 ; SBL256894\n1.19.0.0/16 ; SBL434604\n; EOF\n";
    assert_eq!(prefixes(Format::SpamhausText, text), "1.10.16.0/20 1.19.0.0/16");
    let cut = read(Format::SpamhausText, &text[..text.len() - 6]).unwrap_err();
    assert!(cut.contains("not the whole list"), "{cut}");

    let json = |records: usize| {
        format!(
            "{{\"cidr\":\"1.10.16.0/20\",\"sblid\":\"SBL256894\",\"rir\":\"apnic\"}}\n\
             {{\"cidr\":\"2a06:e480::\\/29\",\"sblid\":\"SBL1\"}}\n{{\"cidr\":\"1.10.16.0/20\"}}\n\
             {{\"type\":\"metadata\",\"timestamp\":1791060242,\"records\":{records}}}\n"
        )
    };
    for records in [2, 3] {
        assert_eq!(prefixes(Format::SpamhausJson, &json(records)), "1.10.16.0/20 2a06:e480::/29");
    }
    assert!(read(Format::SpamhausJson, &json(4)).unwrap_err().contains("says that it has 4 records, and has 3"));
    let cut = json(3);
    let cut = &cut[..cut.rfind("{\"type").unwrap()];
    assert!(read(Format::SpamhausJson, cut).unwrap_err().contains("not the whole list"));
    let broken = read(Format::SpamhausJson, "{\"asn\":1}\n{\"cidr\":\n{\"type\":\"metadata\"}\n").unwrap_err();
    assert!(broken.contains("list:1: ") && broken.contains("list:2: ") && broken.lines().count() == 2, "{broken}");
    let long = format!("{{\"records\":\"{}\"}}\n", "x".repeat(10_000));
    assert!(read(Format::SpamhausJson, &long).unwrap_err().len() < 600);
}

#[test]
fn a_postscreen_table_gives_what_it_rejects_unless_the_order_of_its_lines_matters() {
    let text = "# table\n198.51.100.0/24 REJECT spam\n192.0.2.1 permit\n203.0.113.0/24\treject\n2001:db8::/32 dunno\n";
    let list = read(Format::PostscreenAccess, text).unwrap();
    assert_eq!(
        (prefixes(Format::PostscreenAccess, text).as_str(), list.left_out),
        ("198.51.100.0/24 203.0.113.0/24", 2)
    );
    for (text, line, part) in [
        ("198.51.100.7 permit\n198.51.100.0/24 reject\n", 1, "permit add 198.51.100.7/32"),
        ("198.51.100.7 reject\n198.51.100.0/24 dunno\n", 2, "the other way round"),
        ("!198.51.100.0/24 reject\n", 1, "in place of ! and if"),
        ("if 198.51.100.0/24\nendif\n", 1, "in place of ! and if"),
        ("198.51.100.0/24 OK\n", 1, "permit, reject or dunno"),
        ("198.51.100.0/24\n", 1, "permit, reject or dunno"),
    ] {
        let told = read(Format::PostscreenAccess, text).unwrap_err();
        assert!(told.starts_with(&format!("list:{line}: ")) && told.contains(part), "{told}");
    }
}

#[test]
fn formats_are_known_by_their_names() {
    for format in Format::ALL {
        assert_eq!(format.name().parse(), Ok(format));
    }
    assert!("ip4set".parse::<Format>().unwrap_err().contains("it knows cidr, netset"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_a_reader_panic(text in "(?s)[ -~\n\t;#/.:{}\"é]{0,200}|([!$:;#\"a-f0-9./ -]{0,30}\n){0,9}") {
        for format in Format::ALL {
            let _ = format.read(&text, NOW, &mut |_| ());
        }
        if let Ok(conf) = SpamdConf::read(&text) {
            let _ = conf.lists(&mut |file| Ok(file.to_owned()));
        }
    }

    #[test]
    fn what_is_written_a_prefix_a_line_is_read_back(
        addresses in proptest::collection::vec((any::<u32>(), 0..=32_u8), 1..50),
    ) {
        let nets = addresses.into_iter().map(|(bits, length)| {
            IpNet::new(std::net::Ipv4Addr::from(bits).into(), length).unwrap().trunc()
        });
        let mut nets: Vec<IpNet> = nets.collect();
        let text: String = nets.iter().map(|net| format!("{net} # drop\n")).collect();
        nets.sort_unstable();
        nets.dedup();
        prop_assert_eq!(read(Format::Cidr, &text).unwrap().prefixes, nets);
    }
}
