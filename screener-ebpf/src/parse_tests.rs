//! The parser on the host: one vector or more for each shape of reference/xdp.md section 4.3.

use std::vec::Vec;

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, PacketBuilder, TcpHeader,
    VlanId,
};

use super::*;

const SOURCE4: [u8; 4] = [203, 0, 113, 5];
const SOURCE6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
const PORT: [u8; 2] = 25u16.to_be_bytes();

fn settings() -> Settings {
    let mut ports = [[0; 2]; crate::MAX_PORTS];
    ports[0] = PORT;
    ports[7] = 587u16.to_be_bytes();
    Settings {
        abi: crate::ABI_VERSION,
        flags: 0,
        event_sample: 0,
        _pad: 0,
        ports,
        key_mask: [0xff; 16],
        syn_interval_ns: 0,
        syn_tolerance_ns: 0,
    }
}

/// What the parser says, without the places of the headers: those the refusals' tests look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    source: Address,
    port: [u8; 2],
    fragment: bool,
}

fn parse(frame: &[u8]) -> Result<Asked, Counter> {
    let asked = |request: Request| Asked { source: request.source(), port: request.port, fragment: request.fragment };
    request(frame, &settings()).map(asked).map_err(|unjudged| unjudged.counter)
}

fn wanted(source: Address) -> Result<Asked, Counter> {
    Ok(Asked { source, port: PORT, fragment: false })
}

/// An Ethernet frame with an IPv4 SYN; the TCP header stands at 34.
fn v4() -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(SOURCE4, [192, 0, 2, 10], 64);
    build(builder.tcp(40_000, 25, 7, 1024).syn(), &[])
}

/// An Ethernet frame with an IPv6 SYN; the TCP header stands at 54.
fn v6() -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6(SOURCE6, [0x20; 16], 64);
    build(builder.tcp(40_000, 25, 7, 1024).syn(), &[])
}

fn build(builder: etherparse::PacketBuilderStep<TcpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// The IPv6 SYN with extension headers in front of TCP.
fn v6_behind(headers: &[(u8, &[u8])]) -> Vec<u8> {
    let plain = v6();
    let mut frame = plain[..54].to_vec();
    let types: Vec<u8> = headers.iter().map(|(kind, _)| *kind).chain([TCP]).collect();
    frame[20] = types[0];
    for (number, (_, bytes)) in headers.iter().enumerate() {
        let start = frame.len();
        frame.extend(*bytes);
        frame[start] = types[number + 1];
    }
    frame.extend(&plain[54..]);
    let payload = u16::try_from(frame.len() - 54).unwrap();
    frame[18..20].copy_from_slice(&payload.to_be_bytes());
    frame
}

#[test]
fn a_plain_syn_is_a_request_in_both_families() {
    assert_eq!(parse(&v4()), wanted(Address::V4(SOURCE4)));
    assert_eq!(parse(&v6()), wanted(Address::V6(SOURCE6)));
}

#[test]
fn every_configured_port_is_screened_and_no_other() {
    for (port, screened) in [(25u16, true), (587, true), (24, false), (26, false), (0, false), (6400, false)] {
        let mut frame = v4();
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        let expected = if screened { Ok(port.to_be_bytes()) } else { Err(Counter::OtherPort) };
        assert_eq!(parse(&frame).map(|request| request.port), expected, "{port}");
    }
    // Replies to our own outbound mail come from port 25.
    let mut frame = v4();
    frame[34..36].copy_from_slice(&PORT);
    frame[36..38].copy_from_slice(&40_000u16.to_be_bytes());
    assert_eq!(parse(&frame), Err(Counter::OtherPort));
}

#[test]
fn of_all_flags_only_syn_without_ack_and_rst_is_a_request() {
    for (mut frame, flags_at) in [(v4(), 47), (v6(), 67)] {
        for flags in 0..=255u8 {
            frame[flags_at] = flags;
            let expected = flags & (SYN | ACK | RST) == SYN;
            assert_eq!(parse(&frame).is_ok(), expected, "{flags:#010b}");
            if !expected {
                assert_eq!(parse(&frame), Err(Counter::NotSyn));
            }
        }
        // AccECN's bit in the byte of the data offset.
        frame[flags_at] = SYN;
        frame[flags_at - 1] |= 1;
        assert!(parse(&frame).is_ok());
    }
}

#[test]
fn a_frame_cut_anywhere_passes_as_truncated() {
    for (whole, least) in [(v4(), 54), (v6(), 74)] {
        assert_eq!(whole.len(), least);
        for length in 0..least {
            assert_eq!(parse(&whole[..length]), Err(Counter::Truncated), "{length}");
        }
    }
}

#[test]
fn one_tag_or_two_are_followed_and_a_third_is_not() {
    let tag = |kind: u16, mut frame: Vec<u8>| {
        let [a, b] = kind.to_ne_bytes();
        frame.splice(12..12, [a, b, 0, 7]);
        frame
    };
    for plain in [v4(), v6()] {
        let expected = parse(&plain);
        let single = tag(ETHERTYPE_VLAN, plain.clone());
        assert_eq!(parse(&single), expected);
        assert_eq!(parse(&tag(ETHERTYPE_SERVICE_VLAN, plain)), expected);
        let double = tag(ETHERTYPE_SERVICE_VLAN, single);
        assert_eq!(parse(&double), expected);
        for length in 0..double.len() {
            assert_eq!(parse(&double[..length]), Err(Counter::Truncated), "{length}");
        }
        assert_eq!(parse(&tag(ETHERTYPE_SERVICE_VLAN, double)), Err(Counter::VlanDepth));
    }
    // As another stack builds it.
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
        .double_vlan(VlanId::try_new(5).unwrap(), VlanId::try_new(6).unwrap())
        .ipv4(SOURCE4, [192, 0, 2, 10], 64);
    assert_eq!(parse(&build(builder.tcp(1, 25, 7, 1024).syn(), &[])), wanted(Address::V4(SOURCE4)));
}

#[test]
fn ipv4_options_are_stepped_over() {
    for words in 1..=10u8 {
        let mut frame = v4();
        let options = std::vec![1u8; usize::from(words) * 4];
        frame.splice(34..34, options);
        frame[14] = 0x45 + words;
        let total = u16::try_from(frame.len() - 14).unwrap();
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        assert_eq!(parse(&frame), wanted(Address::V4(SOURCE4)), "{words}");
    }
    for wrong in [0x40, 0x44, 0x55, 0x65] {
        let mut frame = v4();
        frame[14] = wrong;
        assert_eq!(parse(&frame), Err(Counter::Malformed), "{wrong:#x}");
    }
}

#[test]
fn lengths_that_end_within_the_header_are_malformed() {
    let mut frame = v4();
    frame[16..18].copy_from_slice(&39u16.to_be_bytes());
    assert_eq!(parse(&frame), Err(Counter::Malformed));
    let mut frame = v6();
    frame[18..20].copy_from_slice(&19u16.to_be_bytes());
    assert_eq!(parse(&frame), Err(Counter::Malformed));
    let mut frame = v4();
    frame[46] = 0x40;
    assert_eq!(parse(&frame), Err(Counter::Malformed), "a TCP header of 16 bytes");
    frame[46] = 0x60;
    assert_eq!(parse(&frame), Err(Counter::Malformed), "a TCP header that goes on behind the packet");
}

#[test]
fn padding_behind_the_packet_changes_nothing() {
    let mut frame = v4();
    frame.resize(60, 0xff);
    assert_eq!(parse(&frame), wanted(Address::V4(SOURCE4)));
}

#[test]
fn a_syn_with_data_or_forty_bytes_of_options_is_a_syn() {
    let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(SOURCE4, [192, 0, 2, 10], 64);
    let fast_open = build(builder.tcp(1, 25, 7, 1024).syn().options_raw(&[1; 40]).unwrap(), b"EHLO there\r\n");
    assert_eq!(parse(&fast_open), wanted(Address::V4(SOURCE4)));
}

#[test]
fn fragments_are_known_by_their_offset() {
    let mut ip = Ipv4Header::new(20, 64, IpNumber::TCP, SOURCE4, [192, 0, 2, 10]).unwrap();
    for offset in [1, 2, 3, 0x1fff] {
        ip.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        let mut frame = v4();
        frame[14..34].copy_from_slice(&ip.to_bytes());
        assert_eq!(parse(&frame), Err(Counter::LaterFragment), "{offset}");
    }
    ip.fragment_offset = IpFragOffset::ZERO;
    ip.more_fragments = true;
    let mut frame = v4();
    frame[14..34].copy_from_slice(&ip.to_bytes());
    for payload in [8, 16, 20] {
        let request = parse(&frame[..34 + payload]).unwrap();
        assert!(request.fragment, "the flags may stand in the next fragment");
    }
    assert_eq!(parse(&frame[..37]), Err(Counter::Truncated));
    // "Do not fragment" is no fragment.
    let mut frame = v4();
    frame[20] = 0x40;
    assert_eq!(parse(&frame), wanted(Address::V4(SOURCE4)));
}

#[test]
fn ipv6_fragment_headers_follow_the_same_rule() {
    let fragment = |offset: u16, more: bool| {
        let offset = IpFragOffset::try_new(offset).unwrap();
        v6_behind(&[(FRAGMENT, &Ipv6FragmentHeader::new(IpNumber::TCP, offset, more, 9).to_bytes())])
    };
    assert_eq!(parse(&fragment(0, false)), wanted(Address::V6(SOURCE6)), "an atomic fragment is whole");
    assert!(parse(&fragment(0, true)).unwrap().fragment);
    for offset in [1, 0x1fff] {
        assert_eq!(parse(&fragment(offset, false)), Err(Counter::LaterFragment));
        assert_eq!(parse(&fragment(offset, true)), Err(Counter::LaterFragment));
    }
}

#[test]
fn extension_headers_are_followed_in_any_legal_chain_up_to_a_bound() {
    let short: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
    let long: &[u8] = &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // The length of AH counts words of four bytes, less two: 16 bytes here.
    let authentication: &[u8] = &[0, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9];
    let chains: [&[(u8, &[u8])]; 7] = [
        &[(HOP_BY_HOP, short)],
        &[(ROUTING, long)],
        &[(DESTINATION, short)],
        &[(MOBILITY, long)],
        &[(AUTHENTICATION, authentication)],
        &[(AUTHENTICATION, authentication), (HOP_BY_HOP, long)],
        &[(HOP_BY_HOP, short), (DESTINATION, long), (ROUTING, short), (DESTINATION, short)],
    ];
    for chain in chains {
        let frame = v6_behind(chain);
        assert_eq!(parse(&frame), wanted(Address::V6(SOURCE6)), "{chain:?}");
        for length in 0..frame.len() {
            assert_eq!(parse(&frame[..length]), Err(Counter::Truncated), "{chain:?} {length}");
        }
    }
    let many = |count| v6_behind(&std::vec![(DESTINATION, short); count]);
    assert_eq!(parse(&many(MAX_EXTENSION_HEADERS)), wanted(Address::V6(SOURCE6)));
    assert_eq!(parse(&many(MAX_EXTENSION_HEADERS + 1)), Err(Counter::HeaderDepth));
    let too_short = v6_behind(&[(AUTHENTICATION, short)]);
    assert_eq!(parse(&too_short), Err(Counter::Malformed), "no authentication header is shorter than twelve bytes");
}

#[test]
fn what_another_stack_chains_is_understood() {
    let mut extensions = Ipv6Extensions {
        hop_by_hop_options: Some(etherparse::Ipv6RawExtHeader::new_raw(IpNumber::TCP, &[0; 6]).unwrap()),
        auth: Some(etherparse::IpAuthHeader::new(IpNumber::TCP, 1, 2, &[7; 12]).unwrap()),
        ..Ipv6Extensions::default()
    };
    let length = 20 + extensions.header_len();
    let first = extensions.set_next_headers(IpNumber::TCP);
    let ip = Ipv6Header {
        traffic_class: 0,
        flow_label: etherparse::Ipv6FlowLabel::ZERO,
        payload_length: u16::try_from(length).unwrap(),
        next_header: first,
        hop_limit: 64,
        source: SOURCE6,
        destination: [0x20; 16],
    };
    let mut frame = v6()[..14].to_vec();
    ip.write(&mut frame).unwrap();
    extensions.write(&mut frame, first).unwrap();
    let mut tcp = TcpHeader::new(40_000, 25, 7, 1024);
    tcp.syn = true;
    tcp.write(&mut frame).unwrap();
    assert_eq!(parse(&frame), wanted(Address::V6(SOURCE6)));
}

#[test]
fn other_protocols_pass_by_reason() {
    let mut arp = v4();
    arp[12..14].copy_from_slice(&0x0806u16.to_be_bytes());
    assert_eq!(parse(&arp), Err(Counter::NotIp));
    let mut length_field = v4();
    length_field[12..14].copy_from_slice(&100u16.to_be_bytes());
    assert_eq!(parse(&length_field), Err(Counter::NotIp), "LLC");
    for protocol in [1, 4, 17, 41, 47, 50, 132] {
        let mut frame = v4();
        frame[23] = protocol;
        assert_eq!(parse(&frame), Err(Counter::NotTcp), "{protocol}");
        let mut frame = v6();
        frame[20] = protocol;
        assert_eq!(parse(&frame), Err(Counter::NotTcp), "{protocol}");
    }
    let mut empty = v6()[..54].to_vec();
    empty[20] = 59;
    empty[18..20].copy_from_slice(&[0, 0]);
    assert_eq!(parse(&empty), Err(Counter::NotTcp), "no next header");
}

#[test]
fn a_mapped_source_is_never_judged() {
    let mut frame = v6();
    frame[22..38].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 5]);
    assert_eq!(parse(&frame), Err(Counter::MappedSource));
}
