//! Frames for the vectors: SYNs as another implementation (etherparse) builds them, and what can be done to them.

use std::net::IpAddr;

use etherparse::{Ipv4Header, PacketBuilder};

/// What every frame is sent to.
const SERVER4: [u8; 4] = [192, 0, 2, 10];
const SERVER6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A SYN to port 25 with these TCP options (whole words) and data.
pub(super) fn syn_with(source: IpAddr, options: &[u8], data: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(CLIENT_MAC, SERVER_MAC);
    let builder = match source {
        IpAddr::V4(source) => builder.ipv4(source.octets(), SERVER4, 64),
        IpAddr::V6(source) => builder.ipv6(source.octets(), SERVER6, 64),
    };
    let builder = builder.tcp(40_000, 25, 7, 1024).syn().options_raw(options).unwrap();
    let mut frame = Vec::new();
    builder.write(&mut frame, data).unwrap();
    frame
}

/// A SYN to port 25 and nothing else. In IPv4 the TCP header stands at 34, in IPv6 at 54.
pub(super) fn syn(source: &str) -> Vec<u8> {
    syn_with(source.parse().unwrap(), &[], &[])
}

/// The frame with some bytes replaced, and the IPv4 header's checksum made right where there is such a header.
pub(super) fn with(mut frame: Vec<u8>, changes: &[(usize, &[u8])]) -> Vec<u8> {
    for (at, bytes) in changes {
        frame[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    sealed(frame)
}

/// The frame with the right checksum in its IPv4 header.
pub(super) fn sealed(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.get(12..14) == Some(&[8, 0])
        && let Ok((mut header, _)) = Ipv4Header::from_slice(&frame[14..])
    {
        header.header_checksum = header.calc_header_checksum();
        frame[24..26].copy_from_slice(&header.header_checksum.to_be_bytes());
    }
    frame
}

/// The frame behind tags: each is a type and an identifier, the outermost first.
pub(super) fn tagged(mut frame: Vec<u8>, tags: &[(u16, u16)]) -> Vec<u8> {
    for (kind, identifier) in tags.iter().rev() {
        frame.splice(12..12, [kind.to_be_bytes(), identifier.to_be_bytes()].concat());
    }
    frame
}

/// The IPv4 SYN with so many words of options in its IP header.
pub(super) fn with_ip_options(source: &str, words: u8) -> Vec<u8> {
    let mut frame = syn(source);
    frame.splice(34..34, vec![1; usize::from(words) * 4]);
    let total = u16::try_from(frame.len() - 14).unwrap().to_be_bytes();
    with(frame, &[(14, &[0x45 + words]), (16, &total)])
}

/// The IPv6 SYN behind extension headers: the type and the bytes of each; the first byte is filled in here.
pub(super) fn behind(source: &str, headers: &[(u8, &[u8])]) -> Vec<u8> {
    const TCP: u8 = 6;
    let plain = syn(source);
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
