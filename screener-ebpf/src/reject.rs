//! The RST with which `screen` answers a SYN under a `reject` entry, so that an honest sender fails at once.
//!
//! Holds the making of the answer out of the SYN, in place: the MAC addresses change sides, the VLAN tags stay, and
//! an IP and a TCP header take the place of the SYN's, whatever options, extension headers and data those had. In
//! steps that keep little in hand, because a program has 512 bytes of stack for everything. Never answers where the stack
//! would not: what is not answered here is left to it.

use crate::parse::{Packet, Request};

/// A packet that can be written to.
pub trait PacketMut {
    /// The `N` bytes at `offset`; `None` if the frame ends before them.
    ///
    /// One question for the whole of a header: the verifier looks at each, and the compiler likes to turn several that
    /// are alike into arithmetic with the end of the packet, which the verifier forbids.
    fn part<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]>;
}

impl PacketMut for [u8] {
    #[inline]
    fn part<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.get_mut(offset..)?.first_chunk_mut()
    }
}

/// What the answer needs to know of the SYN, beside the addresses, which stay where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    v6: bool,
    /// Where the IP header begins.
    network: usize,
    /// The ports as the SYN has them, in network order.
    source_port: [u8; 2],
    destination_port: [u8; 2],
    acknowledged: u32,
    /// How long the frame has to be, at most as long as it is.
    pub length: usize,
}

/// Bytes of the answer's headers.
const LENGTH_V4: usize = 40;
const LENGTH_V6: usize = 60;
/// Zeros behind the headers in IPv4, where the SYN's frame has room for them: an Ethernet frame has 60 bytes at least.
const PADDING_V4: usize = 6;

const TCP: u8 = 6;
const FIN: u8 = 0x01;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const TTL: u8 = 64;
const DO_NOT_FRAGMENT: u8 = 0x40;

impl Answer {
    /// The answer to a request in a frame of `length` bytes (RFC 9293 section 3.10.7.1): sequence number 0, and everything
    /// that the SYN takes up in the sequence is acknowledged. `None`: it gets none here.
    ///
    /// The checksum of the IPv4 header is looked at: it guards the address that the answer goes to. That of TCP is not:
    /// between virtual machines nobody fills it in.
    #[inline(always)]
    pub fn to<P: Packet + ?Sized>(packet: &P, length: usize, request: &Request) -> Option<Self> {
        let (network, transport) = (request.network, request.transport);
        // A group is never answered, nor one who poses as one.
        let [to, _, _, _, _, _, from, _]: [u8; 8] = packet.read(0)?;
        if (to | from) & 1 != 0 {
            return None;
        }
        let v6 = request.v6;
        let shortest = if v6 {
            are_hosts_v6(packet, network)?;
            network + LENGTH_V6
        } else {
            are_hosts_v4(packet, network)?;
            is_intact(packet, network, transport)?;
            network + LENGTH_V4
        };
        let padded = shortest + PADDING_V4;
        let [a, b, c, d, e, f, g, h, _, _, _, _, offset, flags]: [u8; 14] = packet.read(transport)?;
        let data = transport + usize::from(offset >> 4) * 4;
        // A header that goes on behind the packet, or a packet that goes on behind the frame: the stack answers neither.
        if request.fragment || data > request.end || request.end > length {
            return None;
        }
        let taken = (request.end - data) as u32 + 1 + u32::from(flags & FIN);
        Some(Self {
            v6,
            network,
            source_port: [a, b],
            destination_port: [c, d],
            acknowledged: u32::from_be_bytes([e, f, g, h]).wrapping_add(taken),
            length: if !v6 && length >= padded { padded } else { shortest },
        })
    }

    /// Writes the answer over the SYN, in a frame that has been cut to [`Answer::length`]. `None`: it has no room, and
    /// what stands in it must not be sent.
    #[inline(always)]
    pub fn write<P: PacketMut + ?Sized>(&self, packet: &mut P) -> Option<()> {
        let link: &mut [u8; 12] = packet.part(0)?;
        exchange::<6, 12>(link, 0);
        let network = self.network;
        if self.v6 {
            let headers: &mut [u8; LENGTH_V6] = packet.part(network)?;
            let addresses = exchange::<16, LENGTH_V6>(headers, 8);
            fill(headers, 0, [0x60, 0, 0, 0, 0, 20, TCP, TTL]);
            fill(headers, 40, self.tcp(addresses));
        } else {
            let headers: &mut [u8; LENGTH_V4] = packet.part(network)?;
            let addresses = exchange::<4, LENGTH_V4>(headers, 12);
            // All words but the checksum and the addresses, in their order, without those that are 0.
            let [high, low] = finish(addresses + 0x4500 + LENGTH_V4 as u32 + 0x4000 + 0x4006);
            fill(headers, 0, [0x45, 0, 0, LENGTH_V4 as u8, 0, 0, DO_NOT_FRAGMENT, 0, TTL, TCP, high, low]);
            fill(headers, 20, self.tcp(addresses));
            if self.length > network + LENGTH_V4 {
                *packet.part(network + LENGTH_V4)? = [0; PADDING_V4];
            }
        }
        Some(())
    }

    /// The TCP header. `addresses`: their sum, for the checksum.
    #[inline(always)]
    fn tcp(&self, addresses: u32) -> [u8; 20] {
        let acknowledged = self.acknowledged;
        let ports = word(self.destination_port) + word(self.source_port);
        let constant = u32::from(TCP) + 20 + word([0x50, RST | ACK]);
        let [high, low] = finish(addresses + constant + ports + (acknowledged >> 16) + (acknowledged & 0xffff));
        let [a, b, c, d] = acknowledged.to_be_bytes();
        let [e, f] = self.destination_port;
        let [g, h] = self.source_port;
        [e, f, g, h, 0, 0, 0, 0, a, b, c, d, 0x50, RST | ACK, 0, 0, high, low, 0, 0]
    }
}

/// Exchanges two addresses of `N` bytes that stand at `at` one behind the other. Gives back the sum of their words.
#[inline(always)]
fn exchange<const N: usize, const M: usize>(bytes: &mut [u8; M], at: usize) -> u32 {
    let mut sum = 0;
    let mut first = at;
    while first < at + N && first + N + 1 < M {
        let second = first + N;
        sum += word([bytes[first], bytes[first + 1]]) + word([bytes[second], bytes[second + 1]]);
        bytes.swap(first, second);
        bytes.swap(first + 1, second + 1);
        first += 2;
    }
    sum
}

/// Writes bytes at `at`, as far as there is room.
#[inline(always)]
fn fill<const N: usize, const M: usize>(bytes: &mut [u8; M], at: usize, new: [u8; N]) {
    let mut number = 0;
    while number < N && at + number < M {
        bytes[at + number] = new[number];
        number += 1;
    }
}

/// Whether the checksum of the IPv4 header is right that stands at `network` and ends at `transport`.
#[inline(always)]
fn is_intact<P: Packet + ?Sized>(packet: &P, network: usize, transport: usize) -> Option<()> {
    let mut total = 0;
    for number in 0..15 {
        let at = network + number * 4;
        if at >= transport {
            break;
        }
        let [a, b, c, d] = packet.read(at)?;
        total += word([a, b]) + word([c, d]);
    }
    (finish(total) == [0, 0]).then_some(())
}

/// Whether both addresses can be single hosts on the wire, and are two.
#[inline(always)]
fn are_hosts_v4<P: Packet + ?Sized>(packet: &P, network: usize) -> Option<()> {
    let source: [u8; 4] = packet.read(network + 12)?;
    let destination: [u8; 4] = packet.read(network + 16)?;
    let good = |first: u8| first != 0 && first != 127 && first < 224;
    let two = u32::from_ne_bytes(source) != u32::from_ne_bytes(destination);
    (good(source[0]) && good(destination[0]) && two).then_some(())
}

/// The same in IPv6. Nobody has an address of `::/64`: unspecified, loopback, mapped.
#[inline(always)]
fn are_hosts_v6<P: Packet + ?Sized>(packet: &P, network: usize) -> Option<()> {
    let mut different = 0;
    let mut seen = [0; 2];
    for half in 0..2 {
        let source = u64::from_ne_bytes(packet.read(network + 8 + half * 8)?);
        let destination = u64::from_ne_bytes(packet.read(network + 24 + half * 8)?);
        different |= source ^ destination;
        if half == 0 {
            seen = [source, destination];
        }
    }
    let good = |upper: u64| upper != 0 && upper.to_ne_bytes()[0] != 0xff;
    (good(seen[0]) && good(seen[1]) && different != 0).then_some(())
}

#[inline(always)]
fn word(bytes: [u8; 2]) -> u32 {
    u32::from(u16::from_be_bytes(bytes))
}

/// The Internet checksum of a sum of at most 65536 words.
#[inline(always)]
const fn finish(sum: u32) -> [u8; 2] {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
#[path = "reject_tests.rs"]
mod tests;
