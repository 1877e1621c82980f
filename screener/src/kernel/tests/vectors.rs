//! The vectors: a frame for every shape of reference/xdp.md section 4.3, and what must become of it for each kind of
//! source: the verdict, the counter, and the frame that comes out.

use screener_ebpf::parse::syn as parse_syn;
use screener_ebpf::reject::Answer;
use screener_ebpf::{Address, Counter, Family, action};

use super::frames::{behind, sealed, syn, syn_with, tagged, with, with_ip_options};
use super::rig::{DROP, PASS, Screen, TX, programs};

/// What a shape is to the parser.
#[derive(Clone, Copy, Debug)]
enum Is {
    /// A SYN to a screened port.
    Syn,
    /// A first fragment to a screened port.
    Fragment,
    /// Something else, which passes under this reason.
    Other(Family, Counter),
}

/// A frame and what it is.
struct Shape {
    name: String,
    frame: Vec<u8>,
    is: Is,
}

fn shape(name: impl Into<String>, frame: Vec<u8>, is: Is) -> Shape {
    Shape { name: name.into(), frame, is }
}

/// What the lists say about a source.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Listed {
    Drop,
    Reject,
    Tag,
    Count,
    No,
}

/// Sources of every kind: listed by themselves or in a prefix, neighbours, in a permit within a deny, in no list.
const SOURCES: &[(&str, Listed)] = &[
    ("203.0.113.5", Listed::Drop),
    ("203.0.113.4", Listed::No),
    ("203.0.113.6", Listed::No),
    ("198.51.100.77", Listed::Drop),
    ("198.51.100.128", Listed::No),
    ("192.0.2.200", Listed::No),
    ("203.0.113.35", Listed::Reject),
    ("203.0.113.65", Listed::Tag),
    ("203.0.113.97", Listed::Count),
    ("2001:db8::5", Listed::Drop),
    ("2001:db8::4", Listed::No),
    ("2001:db8::7", Listed::No),
    ("2001:db8:64:1:2:3:4:5", Listed::Drop),
    ("2001:db8:64:1:ffff::", Listed::No),
    ("2001:db8:64:3::1", Listed::No),
    ("2001:db8:48:ffff::1", Listed::Drop),
    ("2001:db9::1", Listed::Drop),
    ("2001:dba::1", Listed::No),
    ("2001:db8:6a::1", Listed::Reject),
    ("2001:db8:70::1", Listed::Tag),
    ("2001:db8:80::1", Listed::Count),
    ("fe80::1", Listed::No),
    ("fe80::bad", Listed::Drop),
];

fn fill(screen: &mut Screen) {
    for (prefix, action) in [
        ("203.0.113.5/32", action::DROP),
        ("198.51.100.0/24", action::DROP),
        ("198.51.100.128/32", action::PERMIT),
        ("203.0.113.32/28", action::REJECT),
        ("203.0.113.64/28", action::TAG),
        ("203.0.113.96/28", action::COUNT),
        ("2001:db8::5/128", action::DROP),
        ("2001:db8:64:1::/64", action::DROP),
        ("2001:db8:64:1:ffff::/80", action::PERMIT),
        ("2001:db8:48::/48", action::DROP),
        ("2001:db9::/32", action::DROP),
        ("2001:db8:68::/45", action::REJECT),
        ("2001:db8:70::/61", action::TAG),
        ("2001:db8:80::/48", action::COUNT),
        ("fe80::bad/128", action::DROP),
    ] {
        screen.put(prefix, action);
    }
}

const FOUR: Family = Family::Ipv4;
const SIX: Family = Family::Ipv6;
const OTHER: Family = Family::Other;
/// Where the TCP header stands without options: behind 14 and 20, or 14 and 40.
const TCP4: usize = 34;
const TCP6: usize = 54;

/// What both families have, with the TCP header of a plain SYN at `tcp`.
fn common(source: &str, family: Family, tcp: usize) -> Vec<Shape> {
    let address = source.parse().unwrap();
    let plain = || syn(source);
    let data = b"EHLO there\r\n";
    let mut shapes = vec![
        shape("plain", plain(), Is::Syn),
        shape("fast open with data", syn_with(address, &[34, 2, 1, 1], data), Is::Syn),
        shape("ECN", with(plain(), &[(tcp + 13, &[0xc2])]), Is::Syn),
        shape("AccECN", with(plain(), &[(tcp + 12, &[0x51, 0xc2])]), Is::Syn),
        shape("40 bytes of options", syn_with(address, &[1; 40], &[]), Is::Syn),
        shape("to port 587", with(plain(), &[(tcp + 2, &587u16.to_be_bytes())]), Is::Syn),
        shape("from port 25", with(plain(), &[(tcp, &25u16.to_be_bytes())]), Is::Syn),
        shape(
            "a TCP header that goes on behind the packet",
            with(plain(), &[(tcp + 12, &[0x60])]),
            Is::Other(family, Counter::Malformed),
        ),
        shape("a TCP header of 16 bytes", with(plain(), &[(tcp + 12, &[0x40])]), Is::Other(family, Counter::Malformed)),
        shape(
            "a reply to our own mail",
            with(plain(), &[(tcp, &[0, 25, 0x9c, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x12])]),
            Is::Other(family, Counter::NotSyn),
        ),
        shape("one tag", tagged(plain(), &[(0x8100, 7)]), Is::Syn),
        shape("a priority tag", tagged(plain(), &[(0x8100, 0x6000)]), Is::Syn),
        shape("a service tag", tagged(plain(), &[(0x88a8, 7)]), Is::Syn),
        shape("two tags", tagged(plain(), &[(0x88a8, 7), (0x8100, 8)]), Is::Syn),
        shape(
            "three tags",
            tagged(plain(), &[(0x88a8, 7), (0x8100, 8), (0x8100, 9)]),
            Is::Other(OTHER, Counter::VlanDepth),
        ),
        shape("a tag of the old kind", tagged(plain(), &[(0x9100, 7)]), Is::Other(OTHER, Counter::NotIp)),
        shape("LLC", with(plain(), &[(12, &[0, 100])]), Is::Other(OTHER, Counter::NotIp)),
        shape("ARP", with(plain(), &[(12, &[8, 6])]), Is::Other(OTHER, Counter::NotIp)),
        shape("PPPoE", with(plain(), &[(12, &[0x88, 0x64])]), Is::Other(OTHER, Counter::NotIp)),
        shape("MPLS", with(plain(), &[(12, &[0x88, 0x47])]), Is::Other(OTHER, Counter::NotIp)),
    ];
    for port in [0u16, 24, 26, 465, 6400, 40_000] {
        let frame = with(plain(), &[(tcp + 2, &port.to_be_bytes())]);
        shapes.push(shape(format!("to port {port}"), frame, Is::Other(family, Counter::OtherPort)));
    }
    for flags in 0..=255u8 {
        let is = if flags & 0x16 == 0x02 { Is::Syn } else { Is::Other(family, Counter::NotSyn) };
        shapes.push(shape(format!("flags {flags:#010b}"), with(plain(), &[(tcp + 13, &[flags])]), is));
    }
    let mut junk = plain();
    junk.extend(&plain()[tcp..]);
    shapes.push(shape("padding that looks like a SYN", junk, Is::Syn));
    // The shortest frame that the kernel lets us try is an Ethernet header.
    for length in 14..tcp + 20 {
        shapes.push(shape(
            format!("cut at {length}"),
            plain()[..length].to_vec(),
            Is::Other(family, Counter::Truncated),
        ));
    }
    for length in 14..tcp + 28 {
        let frame = tagged(plain(), &[(0x88a8, 7), (0x8100, 8)])[..length].to_vec();
        let seen = if length < 22 { OTHER } else { family };
        shapes.push(shape(format!("two tags, cut at {length}"), frame, Is::Other(seen, Counter::Truncated)));
    }
    shapes
}

fn shapes_v4(source: &str) -> Vec<Shape> {
    let plain = || syn(source);
    let mut shapes = common(source, FOUR, TCP4);
    for first in [0x40, 0x41, 0x42, 0x43, 0x44, 0x55, 0x65, 0x05] {
        let is = Is::Other(FOUR, Counter::Malformed);
        shapes.push(shape(format!("first byte {first:#x}"), with(plain(), &[(14, &[first])]), is));
    }
    for words in 1..=10 {
        shapes.push(shape(format!("{words} words of options"), with_ip_options(source, words), Is::Syn));
    }
    let long = with(plain(), &[(14, &[0x4f])]);
    shapes.push(shape("a header that goes on behind the end", long, Is::Other(FOUR, Counter::Truncated)));
    for total in [0u16, 20, 39] {
        let frame = with(plain(), &[(16, &total.to_be_bytes())]);
        shapes.push(shape(format!("total length {total}"), frame, Is::Other(FOUR, Counter::Malformed)));
    }
    shapes.push(shape(
        "a wrong checksum",
        {
            let mut frame = plain();
            frame[24] ^= 1;
            frame
        },
        Is::Syn,
    ));
    for (name, bits, is) in [
        ("do not fragment", [0x40, 0], Is::Syn),
        ("the reserved bit", [0x80, 0], Is::Syn),
        ("a first fragment", [0x20, 0], Is::Fragment),
        ("offset 1", [0, 1], Is::Other(FOUR, Counter::LaterFragment)),
        ("offset 2 and more to come", [0x20, 2], Is::Other(FOUR, Counter::LaterFragment)),
        ("offset 3", [0, 3], Is::Other(FOUR, Counter::LaterFragment)),
        ("the largest offset", [0x1f, 0xff], Is::Other(FOUR, Counter::LaterFragment)),
    ] {
        shapes.push(shape(name, with(plain(), &[(20, &bits)]), is));
    }
    for payload in [8, 16, 24] {
        let mut frame = syn_with(source.parse().unwrap(), &[1; 40], &[]);
        frame.truncate(TCP4 + payload);
        let total = u16::try_from(20 + payload).unwrap().to_be_bytes();
        let frame = with(frame, &[(16, &total), (20, &[0x20, 0])]);
        shapes.push(shape(format!("a first fragment of {payload} bytes"), frame, Is::Fragment));
    }
    let other_port = with(plain(), &[(20, &[0x20, 0]), (36, &[0, 26])]);
    shapes.push(shape("a first fragment to another port", other_port, Is::Other(FOUR, Counter::OtherPort)));
    for ttl in [0, 1, 255] {
        shapes.push(shape(format!("TTL {ttl}"), with(plain(), &[(22, &[ttl])]), Is::Syn));
    }
    for protocol in [0, 1, 4, 17, 41, 47, 50, 51, 132, 255] {
        let frame = with(plain(), &[(23, &[protocol])]);
        shapes.push(shape(format!("protocol {protocol}"), frame, Is::Other(FOUR, Counter::NotTcp)));
    }
    shapes
}

fn shapes_v6(source: &str) -> Vec<Shape> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const NONE: u8 = 59;
    const DESTINATION: u8 = 60;
    const MOBILITY: u8 = 135;
    let plain = || syn(source);
    let short: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let long: &[u8] = &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let jumbo: &[u8] = &[0, 0, 0xc2, 4, 0, 1, 0, 0];
    // Its length counts words of four bytes, less two: 16 bytes here.
    let authentication: &[u8] = &[0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9];
    let fragment = |offset: u16, more: u16| -> [u8; 8] {
        let [high, low] = (offset << 3 | more).to_be_bytes();
        [0, 0, high, low, 0, 0, 0, 9]
    };
    let mut shapes = common(source, SIX, TCP6);
    for first in [0x40, 0x50, 0x00] {
        let frame = with(plain(), &[(14, &[first])]);
        shapes.push(shape(format!("first byte {first:#x}"), frame, Is::Other(SIX, Counter::Malformed)));
    }
    for (name, headers) in [
        ("hop by hop", vec![(HOP_BY_HOP, short)]),
        ("routing", vec![(ROUTING, short)]),
        ("destination options", vec![(DESTINATION, long)]),
        ("mobility", vec![(MOBILITY, short)]),
        ("authentication", vec![(AUTHENTICATION, authentication)]),
        ("authentication behind hop by hop", vec![(HOP_BY_HOP, short), (AUTHENTICATION, authentication)]),
        ("authentication before hop by hop", vec![(AUTHENTICATION, authentication), (HOP_BY_HOP, short)]),
        ("the usual three", vec![(HOP_BY_HOP, long), (DESTINATION, short), (ROUTING, long)]),
        ("six", vec![(DESTINATION, short); 6]),
        ("a jumbogram's option", vec![(HOP_BY_HOP, jumbo)]),
    ] {
        shapes.push(shape(name, behind(source, &headers), Is::Syn));
    }
    for count in [7, 9] {
        let frame = behind(source, &vec![(DESTINATION, short); count]);
        shapes.push(shape(format!("{count} headers"), frame, Is::Other(SIX, Counter::HeaderDepth)));
    }
    let beyond: &[u8] = &[0, 255, 1, 4, 0, 0, 0, 0];
    let frame = behind(source, &[(DESTINATION, beyond)]);
    shapes.push(shape("a header that goes on behind the end", frame, Is::Other(SIX, Counter::Truncated)));
    for (name, offset, more, is) in [
        ("an atomic fragment", 0, 0, Is::Syn),
        ("a first fragment", 0, 1, Is::Fragment),
        ("a last fragment", 1, 0, Is::Other(SIX, Counter::LaterFragment)),
        ("a fragment between", 1, 1, Is::Other(SIX, Counter::LaterFragment)),
        ("the largest offset", 0x1fff, 1, Is::Other(SIX, Counter::LaterFragment)),
    ] {
        shapes.push(shape(name, behind(source, &[(FRAGMENT, &fragment(offset, more))]), is));
    }
    let whole = behind(source, &[(FRAGMENT, &fragment(0, 1))]);
    for length in TCP6..TCP6 + 12 {
        let frame = whole[..length].to_vec();
        shapes.push(shape(format!("a fragment cut at {length}"), frame, Is::Other(SIX, Counter::Truncated)));
    }
    let mut empty = plain()[..TCP6].to_vec();
    empty[18..21].copy_from_slice(&[0, 0, NONE]);
    shapes.push(shape("nothing behind the header", empty, Is::Other(SIX, Counter::NotTcp)));
    for length in [0u16, 19] {
        let frame = with(plain(), &[(18, &length.to_be_bytes())]);
        shapes.push(shape(format!("payload length {length}"), frame, Is::Other(SIX, Counter::Malformed)));
    }
    for protocol in [1, 4, 17, 41, 47, 50, NONE, 58, 132, 255] {
        let frame = with(plain(), &[(20, &[protocol])]);
        shapes.push(shape(format!("protocol {protocol}"), frame, Is::Other(SIX, Counter::NotTcp)));
    }
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 5];
    shapes.push(shape("a mapped source", with(plain(), &[(22, &mapped)]), Is::Other(SIX, Counter::MappedSource)));
    shapes
}

/// The RST for a frame as the library makes it on the host, where another implementation of TCP has looked at it.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let request = parse_syn(frame).ok()?;
    let answer = Answer::to(frame, frame.len(), &request)?;
    let mut answered = frame[..answer.length].to_vec();
    answer.write(&mut answered[..])?;
    Some(answered)
}

/// What must become of a shape from a source: the verdict, the counter, the frame that comes out.
fn expected(shape: &Shape, listed: Listed) -> (u32, Family, Counter, Vec<u8>) {
    let same = shape.frame.clone();
    let family = || parse_syn(&shape.frame[..]).unwrap().source().family();
    match (shape.is, listed) {
        (Is::Other(family, counter), _) => (PASS, family, counter, same),
        (Is::Fragment, Listed::Drop) => (DROP, family(), Counter::DroppedFragment, same),
        (Is::Fragment, _) => (PASS, family(), Counter::FirstFragment, same),
        (Is::Syn, Listed::Drop) => (DROP, family(), Counter::Dropped, same),
        (Is::Syn, Listed::Reject) => match answer(&shape.frame) {
            Some(answer) => (TX, family(), Counter::Rejected, answer),
            None => (PASS, family(), Counter::RejectLater, same),
        },
        (Is::Syn, Listed::Tag) => (PASS, family(), Counter::TagLater, same),
        (Is::Syn, Listed::Count | Listed::No) => (PASS, family(), Counter::Unlisted, same),
    }
}

#[test]
fn every_shape_from_every_kind_of_source_gets_its_verdict_its_counter_and_its_frame() {
    for program in programs() {
        let mut screen = Screen::load_program(program);
        fill(&mut screen);
        let mut refused = 0;
        for &(source, listed) in SOURCES {
            let shapes = if source.contains(':') { shapes_v6(source) } else { shapes_v4(source) };
            let (before_all, count) = (screen.all_counted(), shapes.len() as u64);
            for shape in shapes {
                let about = format!("{program}: {} from {source}", shape.name);
                let (verdict, family, counter, frame) = expected(&shape, listed);
                let before = screen.counted(family, counter);
                let dry_run = screen.counted(family, Counter::Counted);
                assert_eq!(screen.run(&shape.frame), (verdict, frame), "{about}");
                assert_eq!(screen.counted(family, counter), before + 1, "{about}: not {}", counter.name());
                let dry = u64::from(listed == Listed::Count && matches!(shape.is, Is::Syn));
                assert_eq!(screen.counted(family, Counter::Counted), dry_run + dry, "{about}");
                refused += u32::from(verdict == TX);
            }
            assert_eq!(screen.all_counted(), before_all + count, "{program}: from {source}: once each");
        }
        assert!(refused > 100, "only {refused} refusals were seen");
    }
}

#[test]
fn prefixes_hold_from_their_first_address_to_their_last() {
    let mut screen = Screen::load();
    for prefix in ["10.1.2.0/24", "10.1.4.128/25", "10.1.6.2/31", "10.1.8.9/32", "10.2.0.0/26", "10.2.1.64/26"] {
        screen.put(prefix, action::DROP);
    }
    for prefix in
        ["1.0.0.0/16", "223.255.0.0/16", "10.6.0.0/15", "10.8.128.0/17", "2001:db8:1::/45", "2001:db8:9:8000::/49"]
    {
        screen.put(prefix, action::DROP);
    }
    for (dropped, sources) in [
        (true, &["10.1.2.0", "10.1.2.63", "10.1.2.64", "10.1.2.127", "10.1.2.128", "10.1.2.191", "10.1.2.192"][..]),
        (
            true,
            &["10.1.2.255", "10.1.4.128", "10.1.4.255", "10.1.6.2", "10.1.6.3", "10.1.8.9", "10.2.0.0", "10.2.0.63"],
        ),
        (
            true,
            &["10.2.1.64", "10.2.1.127", "1.0.0.0", "1.0.255.255", "223.255.0.0", "223.255.255.255", "10.7.255.255"],
        ),
        (
            true,
            &["10.8.128.0", "10.8.255.255", "2001:db8::", "2001:db8:7:ffff:ffff:ffff:ffff:ffff", "2001:db8:9:8000::"],
        ),
        (true, &["2001:db8:9:ffff:ffff:ffff:ffff:ffff"]),
        (false, &["10.1.1.255", "10.1.3.0", "10.1.4.127", "10.1.5.0", "10.1.6.1", "10.1.6.4", "10.1.8.8", "10.1.8.10"]),
        (
            false,
            &["10.1.255.255", "10.2.0.64", "10.2.1.63", "10.2.1.128", "0.255.255.255", "1.1.0.0", "223.254.255.255"],
        ),
        (false, &["224.0.0.0", "10.5.255.255", "10.8.127.255", "10.9.0.0", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff"]),
        (false, &["2001:db8:8::", "2001:db8:9:7fff:ffff:ffff:ffff:ffff", "2001:db8:a::"]),
    ] {
        for source in sources {
            let expected = if dropped { DROP } else { PASS };
            assert_eq!(screen.verdict(&syn(source)), expected, "{source}");
        }
    }
}

#[test]
fn sources_that_nobody_has_are_judged_like_others_but_never_answered() {
    let mut screen = Screen::load();
    screen.put("0.0.0.0/0", action::REJECT);
    screen.put("::/0", action::REJECT);
    let never =
        ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.5", "240.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"];
    for source in never {
        assert_eq!(screen.run(&syn(source)), (PASS, syn(source)), "{source}");
    }
    assert_eq!(screen.counted(FOUR, Counter::RejectLater), 6);
    assert_eq!(screen.counted(SIX, Counter::RejectLater), 3);
    for group in [[0xff; 6], [0x33, 0x33, 0, 0, 0, 1]] {
        for at in [0, 6] {
            let frame = with(syn("203.0.113.5"), &[(at, &group)]);
            assert_eq!(screen.run(&frame), (PASS, frame), "a group's MAC address at {at}");
        }
    }
    for (source, at, group) in [("203.0.113.5", 30, &[224, 0, 0, 1][..]), ("2001:db8::5", 38, &[0xff, 2])] {
        let frame = with(syn(source), &[(at, group)]);
        assert_eq!(screen.verdict(&frame), PASS, "to a group");
    }
    screen.put("0.0.0.0/0", action::DROP);
    screen.put("::/0", action::DROP);
    for source in never {
        assert_eq!(screen.verdict(&syn(source)), DROP, "{source}");
    }
}

#[test]
fn refusals_are_left_to_the_stack_where_they_must_be() {
    let mut screen = Screen::load();
    screen.put("0.0.0.0/0", action::REJECT);
    let frame = syn("203.0.113.5");
    assert_eq!(screen.verdict(&frame), TX);
    screen.update(|settings| settings.set(screener_ebpf::Settings::REJECT_EARLY, false));
    assert_eq!(screen.run(&frame), (PASS, frame), "at once, without loading anything");
}

#[test]
fn a_jumbo_frame_of_several_buffers_is_judged_by_its_first() {
    // Before 5.18 there are no such frames: the kernel does not give them to a program, nor take one that could read them.
    let Some(program) = programs().into_iter().find(|&name| name == screener_ebpf::programs::SCREEN_FRAGS) else {
        return;
    };
    let mut screen = Screen::load_program(program);
    fill(&mut screen);
    for (source, verdict, counter) in [
        ("203.0.113.5", DROP, Counter::Dropped),
        ("203.0.113.4", PASS, Counter::Unlisted),
        ("203.0.113.35", PASS, Counter::RejectLater),
    ] {
        let frame = sealed(syn_with(source.parse().unwrap(), &[], &[7; 8946]));
        assert_eq!(frame.len(), 9000);
        let before = screen.counted(FOUR, counter);
        assert_eq!(screen.verdict(&frame), verdict, "{source}");
        assert_eq!(screen.counted(FOUR, counter), before + 1, "{source}");
    }
}

#[test]
fn the_host_reads_the_sources_of_the_vectors_as_they_were_meant() {
    for (source, _) in SOURCES {
        let expected = match source.parse().unwrap() {
            std::net::IpAddr::V4(source) => Address::V4(source.octets()),
            std::net::IpAddr::V6(source) => Address::V6(source.octets()),
        };
        assert_eq!(parse_syn(&syn(source)[..]).unwrap().source(), expected);
    }
}
