//! What is a header and what is none, however it comes; and that what we write is what we would read.

use bytes::Bytes;
use proptest::prelude::*;

use super::tlv::crc32c;
use super::*;

const V4: &str = "PROXY TCP4 203.0.113.7 192.0.2.10 49152 25\r\n";

fn client(client: &str, server: &str) -> Header {
    Header::for_client(client.parse().unwrap(), server.parse().unwrap())
}

/// A version 2 header by hand.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut wire = SIGNATURE.to_vec();
    wire.extend([command, family]);
    wire.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    wire.extend(body);
    wire
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut wire = vec![kind];
    wire.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
    wire.extend(value);
    wire
}

const IPV4: [u8; 12] = [203, 0, 113, 7, 192, 0, 2, 10, 0xc0, 0x00, 0, 25];

fn refused(wire: &[u8]) -> String {
    parse(wire).expect_err("a header that must be refused").to_string()
}

fn read(wire: &[u8]) -> Header {
    let (header, used) = parse(wire).unwrap().expect("a whole header");
    assert_eq!(used, wire.len());
    header
}

#[test]
fn version_1_names_both_ends() {
    assert_eq!(read(V4.as_bytes()), client("203.0.113.7:49152", "192.0.2.10:25"));
    let six = "PROXY TCP6 2001:db8::7 2001:db8:25::10 1 65535\r\n";
    assert_eq!(read(six.as_bytes()), client("[2001:db8::7]:1", "[2001:db8:25::10]:65535"));
    assert_eq!(client("203.0.113.7:49152", "192.0.2.10:25").v1(), V4.as_bytes());
    assert_eq!(client("[2001:db8::7]:1", "[2001:db8:25::10]:65535").v1(), six.as_bytes());
}

#[test]
fn a_client_under_tls_is_told_with_version_and_cipher() {
    let told = Tlv::tls("TLSv1.3", "TLS_AES_256_GCM_SHA384");
    let mut expected = vec![0x01, 0, 0, 0, 1];
    expected.extend(tlv(0x21, b"TLSv1.3"));
    expected.extend(tlv(0x23, b"TLS_AES_256_GCM_SHA384"));
    assert_eq!((told.kind.0, &told.value[..]), (0x20, &expected[..]));
    let mut header = client("203.0.113.7:49152", "192.0.2.10:25");
    header.tlvs.push(told);
    assert_eq!(read(&header.v2()), header);
}

#[test]
fn an_ipv4_client_takes_28_bytes_of_version_2_and_an_ipv6_client_52() {
    let four = client("203.0.113.7:49152", "192.0.2.10:25");
    assert_eq!(four.v2(), v2(0x21, 0x11, &IPV4));
    assert_eq!(four.v2().len(), 28);
    let six = client("[2001:db8::7]:49152", "[2001:db8:25::10]:25");
    let wire = six.v2();
    assert_eq!((wire.len(), &wire[12..16], &wire[48..]), (52, &[0x21, 0x21, 0, 36][..], &[0xc0, 0x00, 0, 25][..]));
    assert_eq!((read(&four.v2()), read(&wire)), (four, six));
}

#[test]
fn a_mapped_address_is_the_ipv4_address_that_it_is() {
    let mapped = b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.10 49152 25\r\n";
    assert_eq!(read(mapped), client("203.0.113.7:49152", "192.0.2.10:25"));
}

#[test]
fn a_health_check_and_an_unknown_client_have_no_address_whatever_else_is_said() {
    assert_eq!(read(&v2(0x20, 0x00, b"")).origin, Origin::Local);
    // haproxy fills in the addresses of its own connection; the family may be anything.
    assert_eq!(read(&v2(0x20, 0x11, &IPV4)).origin, Origin::Local);
    assert_eq!(read(&v2(0x20, 0xff, b"x")).origin, Origin::Local);
    assert_eq!(Header::local().v2(), v2(0x20, 0x00, b""));
    for unknown in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        &v2(0x21, 0x00, b""),
        &v2(0x21, 0x01, &tlv(5, b"id")),
        &v2(0x21, 0x31, &[b'/'; 216]),
    ] {
        assert_eq!(read(unknown).origin, Origin::Unknown, "{}", unknown.escape_ascii());
    }
    let unknown = Header { origin: Origin::Unknown, tlvs: Vec::new() };
    assert_eq!((read(&unknown.v1()), read(&unknown.v2())), (unknown.clone(), unknown));
}

#[test]
fn what_is_wrong_is_said_as_soon_as_it_is_certain() {
    for (wire, message) in [
        (&b"EHLO x\r\n"[..], "unrecognized protocol header"),
        (b"PROXx", "unrecognized protocol header"),
        (b"\r\n\r\n\0\r\nQUIt", "unrecognized protocol header"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.10 49152 25\n", "missing protocol header terminator"),
        (&[V4.trim_end().as_bytes(), &[b' '; 80]].concat(), "missing protocol header terminator"),
        (b"PROXY UDP4 203.0.113.7 192.0.2.10 1 25\r\n", "bad or missing protocol type"),
        (b"PROXY \r\n", "bad or missing protocol type"),
        (b"PROXY TCP4 \xff\r\n", "bad or missing protocol type"),
        (b"PROXY TCP4 2001:db8::7 2001:db8::8 1 25\r\n", "bad or missing address"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.10 1\r\n", "bad or missing address"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.10 1 25 x\r\n", "bad or missing address"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.10 1 70000\r\n", "bad or missing address"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.10 +1 25\r\n", "bad or missing address"),
        (b"PROXY TCP4 203.0.113.7 192.0.2.10 01 25\r\n", "bad or missing address"),
        (b"PROXY TCP4 203.0.113.7  192.0.2.10 1 25\r\n", "bad or missing address"),
        (b"PROXY TCP4 0.0.0.0 192.0.2.10 1 25\r\n", "bad or missing address: 0.0.0.0 is no client's"),
        (&v2(0x31, 0x11, &IPV4), "unrecognized protocol header: version 3"),
        (&v2(0x22, 0x11, &IPV4), "bad or missing protocol type: command 2"),
        (&v2(0x21, 0x12, &IPV4), "bad or missing protocol type: transport 0x02"),
        (&v2(0x21, 0x41, &IPV4), "bad or missing protocol type: address family 4"),
        (&v2(0x21, 0x11, &IPV4[..11]), "short protocol header: 11 bytes"),
        (&v2(0x21, 0x21, &IPV4), "short protocol header: 12 bytes"),
        // The sixteen bytes suffice: nobody waits for what is too much.
        (&v2(0x21, 0x11, &[0; LONGEST])[..FIXED], "protocol header too long: 4112 bytes, at most 4096"),
        (&v2(0x21, 0x11, &[&IPV4[..], &[5, 0, 9, 1]].concat()), "bad TLV in protocol header: type 0x05"),
        (&v2(0x21, 0x11, &[&IPV4[..], &[5, 0]].concat()), "bad TLV in protocol header: type 0x05"),
    ] {
        let refusal = refused(wire);
        assert!(refusal.starts_with(message), "{refusal} instead of {message}");
    }
}

#[test]
fn tlvs_are_kept_in_order_and_what_says_something_of_the_client_goes_on() {
    let body = [
        &IPV4[..],
        &tlv(0x04, b"\0\0"),
        &tlv(0x20, b"\x01\0\0\0\0"),
        &tlv(0x05, b"from-the-proxy"),
        &tlv(0xea, b"\x01vpce-1"),
    ]
    .concat();
    let header = read(&v2(0x21, 0x11, &body));
    let kinds: Vec<u8> = header.tlvs.iter().map(|tlv| tlv.kind.0).collect();
    assert_eq!(kinds, [0x04, 0x20, 0x05, 0xea]);
    assert_eq!(header.tlvs[2], Tlv { kind: TlvKind::UNIQUE_ID, value: Bytes::from_static(b"from-the-proxy") });
    let on = read(&header.v2());
    assert_eq!(on.tlvs, header.tlvs[1..], "all but the padding");
}

#[test]
fn tlvs_that_would_make_the_header_too_long_for_postfix_are_left_out() {
    let long = Tlv { kind: TlvKind::SSL, value: vec![0; 520].into() };
    let id = Tlv { kind: TlvKind::UNIQUE_ID, value: Bytes::from_static(b"id") };
    let header = Header { tlvs: vec![long, id.clone()], ..client("203.0.113.7:1", "192.0.2.10:25") };
    assert!(header.v2().len() <= LONGEST_WRITTEN);
    assert_eq!(read(&header.v2()).tlvs, [id]);
}

#[test]
fn a_checksum_is_checked_wherever_it_stands_and_is_not_passed_on() {
    for place in [0, 1] {
        let mut others = [tlv(0x03, &[0; 4]), tlv(0x05, b"id")];
        others.rotate_left(place);
        let mut wire = v2(0x21, 0x11, &[&IPV4[..], &others.concat()].concat());
        let at = wire.windows(3).position(|bytes| bytes == [0x03, 0, 4]).unwrap() + 3;
        assert_eq!(refused(&wire), "bad checksum in protocol header");
        let sum = crc32c(&[&wire]).to_be_bytes();
        wire[at..at + 4].copy_from_slice(&sum);
        let header = read(&wire);
        assert!(header.tlvs.iter().any(|tlv| tlv.kind == TlvKind::CRC32C));
        assert!(!read(&header.v2()).tlvs.iter().any(|tlv| tlv.kind == TlvKind::CRC32C));
        wire[17] ^= 1;
        assert_eq!(refused(&wire), "bad checksum in protocol header");
    }
    let short = v2(0x21, 0x11, &[&IPV4[..], &tlv(0x03, b"\0")].concat());
    assert_eq!(refused(&short), "bad checksum in protocol header");
}

fn endpoint(four: bool) -> BoxedStrategy<SocketAddr> {
    let plausible = |end: &SocketAddr| {
        let ip = end.ip();
        !(ip.is_unspecified() || ip.is_multicast() || ip == std::net::Ipv4Addr::BROADCAST) && ip == ip.to_canonical()
    };
    if four {
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from).prop_filter("an address", plausible).boxed()
    } else {
        any::<([u16; 8], u16)>().prop_map(SocketAddr::from).prop_filter("an address", plausible).boxed()
    }
}

fn headers() -> impl Strategy<Value = Header> {
    let ends = any::<bool>().prop_flat_map(|four| (endpoint(four), endpoint(four)));
    let client = ends.prop_map(|(client, server)| Origin::Client { client, server });
    let origin = prop_oneof![4 => client, 1 => Just(Origin::Unknown)];
    let tlv = (any::<u8>().prop_map(TlvKind), proptest::collection::vec(any::<u8>(), 0..40))
        .prop_filter("one that goes on", |(kind, _)| kind.goes_on())
        .prop_map(|(kind, value)| Tlv { kind, value: value.into() });
    (origin, proptest::collection::vec(tlv, 0..8)).prop_map(|(origin, tlvs)| Header { origin, tlvs })
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read_and_every_part_of_it_is_incomplete(
        header in headers(),
        behind in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let plain = Header { tlvs: Vec::new(), ..header.clone() };
        for (wire, header) in [(header.v2(), &header), (plain.v1(), &plain)] {
            for length in 0..wire.len() {
                prop_assert_eq!(parse(&wire[..length]).unwrap(), None, "{} of {}", length, wire.len());
            }
            let input = [&wire[..], &behind].concat();
            let (read, used) = parse(&input).unwrap().unwrap();
            prop_assert_eq!((&read, used), (header, wire.len()));
        }
    }

    #[test]
    fn no_bytes_do_harm_and_more_bytes_never_take_a_verdict_back(
start in proptest::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 1.2.3.4 5.6.7.8 ", &SIGNATURE]),
        rest in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let input = [start, &rest].concat();
        let mut verdict = None;
        for length in 0..=input.len() {
            let now = parse(&input[..length]);
            match (&verdict, now) {
                (None, Ok(None)) => {}
                (None, now) => verdict = Some(now),
                (Some(before), now) => prop_assert_eq!(before, &now),
            }
        }
    }
}
