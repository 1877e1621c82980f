//! The refusal on the host, before another implementation of the protocols (etherparse): what it makes of the answer must
//! be the RST that RFC 9293 asks for, whatever the SYN looked like.

use std::vec::Vec;

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, NetSlice, SlicedPacket,
    TcpHeader, TransportSlice,
};
use proptest::prelude::*;

use super::*;
use crate::parse::syn;

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SOURCE4: [u8; 4] = [203, 0, 113, 5];
const HERE4: [u8; 4] = [192, 0, 2, 10];
const SOURCE6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
const HERE6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

/// A SYN in all the shapes that matter to its answer.
#[derive(Clone, Debug)]
struct Syn {
    v6: bool,
    tags: Vec<[u8; 4]>,
    /// Whole words of IPv4 options, or extension headers of eight bytes.
    extras: u8,
    sequence: u32,
    fin: bool,
    tcp_options: u8,
    payload: Vec<u8>,
    padding: usize,
}

impl Default for Syn {
    fn default() -> Self {
        Self {
            v6: false,
            tags: Vec::new(),
            extras: 0,
            sequence: 7,
            fin: false,
            tcp_options: 0,
            payload: Vec::new(),
            padding: 0,
        }
    }
}

impl Syn {
    fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        let ether_type = if self.v6 { EtherType::IPV6 } else { EtherType::IPV4 };
        Ethernet2Header { source: CLIENT, destination: HOST, ether_type }.write(&mut frame).unwrap();
        for tag in &self.tags {
            frame.splice(12..12, *tag);
        }
        let mut tcp = TcpHeader::new(40_000, 25, self.sequence, 1024);
        tcp.syn = true;
        tcp.fin = self.fin;
        tcp.set_options_raw(&std::vec![1; usize::from(self.tcp_options) * 4]).unwrap();
        if self.v6 {
            let extensions: Vec<u8> = (0..self.extras)
                .flat_map(|number| {
                    let next =
                        if number + 1 == self.extras { IpNumber::TCP } else { IpNumber::IPV6_DESTINATION_OPTIONS };
                    [next.0, 0, 1, 4, 0, 0, 0, 0]
                })
                .collect();
            let length = extensions.len() + tcp.header_len() + self.payload.len();
            let ip = Ipv6Header {
                traffic_class: 3,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: u16::try_from(length).unwrap(),
                next_header: if self.extras == 0 { IpNumber::TCP } else { IpNumber::IPV6_DESTINATION_OPTIONS },
                hop_limit: 9,
                source: SOURCE6,
                destination: HERE6,
            };
            ip.write(&mut frame).unwrap();
            frame.extend(extensions);
        } else {
            let mut ip = Ipv4Header::new(0, 9, IpNumber::TCP, SOURCE4, HERE4).unwrap();
            ip.options = Ipv4Options::try_from(&std::vec![1; usize::from(self.extras) * 4][..]).unwrap();
            ip.set_payload_len(tcp.header_len() + self.payload.len()).unwrap();
            ip.header_checksum = ip.calc_header_checksum();
            ip.write(&mut frame).unwrap();
        }
        // The checksum of TCP stays 0: between virtual machines nobody fills it in.
        tcp.write(&mut frame).unwrap();
        frame.extend(&self.payload);
        frame.resize(frame.len() + self.padding, 0xee);
        frame
    }
}

/// What the program does, on the host.
fn refuse(frame: &[u8]) -> Option<Vec<u8>> {
    let request = syn(frame).expect("a SYN");
    let answer = Answer::to(frame, frame.len(), &request)?;
    assert!(answer.length <= frame.len(), "the frame never grows");
    let mut answered = frame[..answer.length].to_vec();
    answer.write(&mut answered[..]).expect("there is room");
    Some(answered)
}

/// Checks an answer with the other implementation.
fn check(syn: &Syn, answer: &[u8]) {
    let link = 14 + 4 * syn.tags.len();
    assert_eq!(answer[..6], CLIENT);
    assert_eq!(answer[6..12], HOST);
    assert_eq!(answer[12..link], syn.frame()[12..link], "the tags and the type stay");
    let sliced = SlicedPacket::from_ethernet(answer).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP in {answer:02x?}") };
    let header = tcp.to_header();
    let expected = match sliced.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert!(!syn.v6);
            assert_eq!((ip.source, ip.destination), (HERE4, SOURCE4));
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!((ip.total_len, ip.time_to_live, ip.options.len()), (40, 64, 0));
            assert!(ip.dont_fragment && !ip.more_fragments);
            assert_eq!(ip.fragment_offset.value(), 0);
            header.calc_checksum_ipv4(&ip, &[]).unwrap()
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header().to_header();
            assert!(syn.v6);
            assert_eq!((ip.source, ip.destination), (HERE6, SOURCE6));
            assert_eq!((ip.payload_length, ip.hop_limit, ip.next_header), (20, 64, IpNumber::TCP));
            header.calc_checksum_ipv6(&ip, &[]).unwrap()
        }
        NetSlice::Arp(_) => panic!("ARP in {answer:02x?}"),
    };
    assert_eq!(header.checksum, expected);
    assert_eq!((header.source_port, header.destination_port), (25, 40_000));
    assert_eq!((header.sequence_number, header.window_size, header.header_len()), (0, 0, 20));
    let taken = 1 + u32::from(syn.fin) + u32::try_from(syn.payload.len()).unwrap();
    assert_eq!(header.acknowledgment_number, syn.sequence.wrapping_add(taken));
    let wanted = TcpHeader { rst: true, ack: true, ..TcpHeader::default() };
    let flags = |tcp: &TcpHeader| [tcp.syn, tcp.ack, tcp.rst, tcp.fin, tcp.psh, tcp.urg, tcp.ece, tcp.cwr, tcp.ns];
    assert_eq!(flags(&header), flags(&wanted));
    assert!(tcp.payload().is_empty());
}

#[test]
fn a_plain_syn_gets_the_rst_of_a_closed_port() {
    for v6 in [false, true] {
        let syn = Syn { v6, ..Syn::default() };
        let answer = refuse(&syn.frame()).unwrap();
        assert_eq!(answer.len(), if v6 { 74 } else { 54 });
        check(&syn, &answer);
    }
}

#[test]
fn a_frame_that_was_long_enough_for_ethernet_still_is_and_its_end_is_empty() {
    let syn = Syn { padding: 6, ..Syn::default() };
    let answer = refuse(&syn.frame()).unwrap();
    assert_eq!(answer.len(), 60);
    assert_eq!(answer[54..], [0; 6]);
    check(&syn, &answer);
}

#[test]
fn the_sequence_wraps_around() {
    for v6 in [false, true] {
        let syn = Syn { v6, sequence: u32::MAX, payload: std::vec![9; 3], ..Syn::default() };
        let answer = refuse(&syn.frame()).unwrap();
        check(&syn, &answer);
    }
}

#[test]
fn groups_and_nobody_are_never_answered() {
    let four = Syn::default().frame();
    let with = |frame: &[u8], at: usize, bytes: &[u8]| {
        let mut frame = frame.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        if frame[12..14] == [8, 0] {
            let mut ip = Ipv4Header::from_slice(&frame[14..]).unwrap().0;
            ip.header_checksum = ip.calc_header_checksum();
            frame[14..34].copy_from_slice(&ip.to_bytes());
        }
        frame
    };
    assert!(refuse(&with(&four, 26, &[203, 0, 113, 6])).is_some());
    for mac in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        assert_eq!(refuse(&with(&four, 0, &mac)), None, "to a group's MAC address");
        assert_eq!(refuse(&with(&four, 6, &mac)), None, "from a group's MAC address");
    }
    for address in
        [[0, 0, 0, 0], [0, 9, 9, 9], [127, 0, 0, 1], [224, 0, 0, 1], [239, 1, 1, 1], [240, 0, 0, 1], [255; 4]]
    {
        assert_eq!(refuse(&with(&four, 26, &address)), None, "from {address:?}");
        assert_eq!(refuse(&with(&four, 30, &address)), None, "to {address:?}");
    }
    assert_eq!(refuse(&with(&four, 26, &HERE4)), None, "from where it goes to");
    let six = Syn { v6: true, ..Syn::default() }.frame();
    for address in ["::", "::1", "ff02::1", "ff0e::25", "::192.0.2.1"] {
        let address = address.parse::<std::net::Ipv6Addr>().unwrap().octets();
        assert_eq!(refuse(&with(&six, 22, &address)), None, "from {address:?}");
        assert_eq!(refuse(&with(&six, 38, &address)), None, "to {address:?}");
    }
    assert_eq!(
        refuse(&with(&six, 38, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1])),
        None,
        "to a mapped one"
    );
    assert_eq!(refuse(&with(&six, 22, &HERE6)), None, "from where it goes to");
    assert!(refuse(&with(&six, 22, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])).is_some(), "link-local");
    assert!(refuse(&with(&six, 22, &[0, 0x64, 0xff, 0x9b])).is_some(), "NAT64");
}

#[test]
fn what_the_stack_would_not_answer_is_left_to_it() {
    let four = Syn { payload: std::vec![1; 20], ..Syn::default() }.frame();
    let mut wrong_checksum = four.clone();
    wrong_checksum[24] ^= 1;
    assert_eq!(refuse(&wrong_checksum), None);
    assert_eq!(refuse(&four[..four.len() - 1]), None, "the packet goes on behind the frame");
    let mut fragment = four;
    fragment[20] = 0x20;
    let mut ip = Ipv4Header::from_slice(&fragment[14..]).unwrap().0;
    ip.header_checksum = ip.calc_header_checksum();
    fragment[14..34].copy_from_slice(&ip.to_bytes());
    assert_eq!(refuse(&fragment), None, "a fragment");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_syn_carries_its_answer_is_a_valid_rst(
        v6: bool,
        tags in prop_oneof![
            Just(std::vec![]),
            Just(std::vec![[0x81, 0, 0x20, 7]]),
            Just(std::vec![[0x81, 0, 0, 8], [0x88, 0xa8, 0, 9]]),
        ],
        extras in 0..=6u8,
        sequence: u32,
        fin: bool,
        tcp_options in 0..=10u8,
        payload in proptest::collection::vec(any::<u8>(), 0..1400),
        padding in 0..40usize,
    ) {
        let syn = Syn { v6, tags, extras, sequence, fin, tcp_options, payload, padding };
        let answer = refuse(&syn.frame());
        prop_assert!(answer.is_some());
        check(&syn, &answer.unwrap());
    }

    /// Whatever the bytes are: there is an answer within the frame, or there is none.
    #[test]
    fn no_bytes_whatever_are_written_past_their_end(
        frame in proptest::collection::vec(any::<u8>(), 0..120),
        v6: bool,
        network in prop_oneof![Just(14usize), Just(18), Just(22)],
        transport in 0..140usize,
        end in 0..200usize,
    ) {
        let request = Request { v6, address: [0x20; 16], port: [0, 25], fragment: false, network, transport, end };
        if let Some(answer) = Answer::to(&frame[..], frame.len(), &request) {
            let mut cut = frame[..answer.length.min(frame.len())].to_vec();
            let _ = answer.write(&mut cut[..]);
        }
    }
}
