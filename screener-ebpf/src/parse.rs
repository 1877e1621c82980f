//! From the bytes of a frame to the one question that `screen` asks: who wants to open a connection to a screened port?
//!
//! Holds the rules of reference/xdp.md section 4.2. Never judges a source and never fails a packet: whatever is not a
//! pure SYN to a screened port comes back with the reason under which it is counted and let through.

use core::mem::MaybeUninit;

use crate::counter::{Counter, Family};
use crate::{Address, Settings};

/// How many IPv6 extension headers are followed. A real SYN has none; the stack sees the rest.
pub const MAX_EXTENSION_HEADERS: usize = 6;

/// The furthest that two tags and [`MAX_EXTENSION_HEADERS`] of the greatest length can reach, rounded up to ones in binary.
pub const FURTHEST: usize = 0x3fff;

/// Access to the bytes of a frame, from its Ethernet header on.
pub trait Packet {
    /// The `N` bytes at `offset`; `None` if the frame ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Packet for [u8] {
    #[inline]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// Something that asks for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether it is IPv6.
    pub v6: bool,
    /// Who asks; an IPv4 address in the first four bytes, and zeros behind it. Not an [`Address`]: in that most bytes of an
    /// IPv4 address would be undefined, which the compiler fills with whatever is at hand, and the verifier refuses.
    pub address: [u8; 16],
    /// The destination port in network order.
    pub port: [u8; 2],
    /// A first fragment: its flags may stand in the next one, so it counts as a SYN for a source that is to be dropped
    /// (nothing reassembles without it), and as nothing for everybody else.
    pub fragment: bool,
    /// Where the IP header begins.
    pub network: usize,
    /// Where the TCP header begins.
    pub transport: usize,
    /// Where the packet ends by its own account; behind it the frame may go on with padding.
    pub end: usize,
}

impl Request {
    /// Who asks.
    #[inline(always)]
    pub const fn source(&self) -> Address {
        if self.v6 {
            return Address::V6(self.address);
        }
        let [a, b, c, d, ..] = self.address;
        Address::V4([a, b, c, d])
    }
}

/// Why a frame is not a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unjudged {
    /// The family, as far as the frame was read.
    pub family: Family,
    /// The reason.
    pub counter: Counter,
}

// In network order, as they are read.
const ETHERTYPE_IPV4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_IPV6: u16 = 0x86dd_u16.to_be();
const ETHERTYPE_VLAN: u16 = 0x8100_u16.to_be();
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8_u16.to_be();

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Reads a frame: a pure SYN to a screened port, or why it is none.
#[inline(always)]
pub fn request<P: Packet + ?Sized>(packet: &P, settings: &Settings) -> Result<Request, Unjudged> {
    let request = syn(packet)?;
    if settings.screens(request.port) { Ok(request) } else { Err(other_port(&request)) }
}

/// Why a SYN to a port that is not screened is let through.
#[inline(always)]
pub const fn other_port(request: &Request) -> Unjudged {
    Unjudged { family: if request.v6 { Family::Ipv6 } else { Family::Ipv4 }, counter: Counter::OtherPort }
}

/// Reads a frame: a pure SYN to whatever port, or why it is none.
#[inline(always)]
pub fn syn<P: Packet + ?Sized>(packet: &P) -> Result<Request, Unjudged> {
    let mut place = MaybeUninit::uninit();
    read_syn(packet, &mut place)?;
    // SAFETY: filled, since there is no reason against it.
    Ok(unsafe { place.assume_init() })
}

/// Reads a frame: a pure SYN to whatever port, or why it is none.
///
/// A pure SYN is SYN without ACK and RST; the ECN bits and FIN are ignored, as the stack ignores them in LISTEN. What
/// most frames are (no TCP, or TCP that goes on) is decided with as few questions as possible, and without the settings.
///
/// Into a place, which is filled if there is no reason against it, and not as a result: in that, the offsets would share
/// their bytes with the reason, and come out of the compiler in pieces that the verifier cannot put together.
#[inline(always)]
pub fn read_syn<P: Packet + ?Sized>(packet: &P, request: &mut MaybeUninit<Request>) -> Result<(), Unjudged> {
    let other = |counter| Unjudged { family: Family::Other, counter };
    let kind = ethertype(packet, 12).ok_or(other(Counter::Truncated))?;
    if !is_tag(kind) {
        // A copy of its own for the common case, with all offsets known to the compiler.
        return network(packet, kind, 14, request);
    }
    let mut kind = ethertype(packet, 16).ok_or(other(Counter::Truncated))?;
    let mut at = 18;
    if is_tag(kind) {
        kind = ethertype(packet, 20).ok_or(other(Counter::Truncated))?;
        at = 22;
        if is_tag(kind) {
            return Err(other(Counter::VlanDepth));
        }
    }
    network(packet, kind, at, request)
}

#[inline(always)]
fn ethertype<P: Packet + ?Sized>(packet: &P, at: usize) -> Option<u16> {
    packet.read(at).map(u16::from_ne_bytes)
}

#[inline(always)]
fn is_tag(kind: u16) -> bool {
    kind == ETHERTYPE_VLAN || kind == ETHERTYPE_SERVICE_VLAN
}

/// The IP header at `at`, by the type before it.
#[inline(always)]
fn network<P: Packet + ?Sized>(
    packet: &P,
    kind: u16,
    at: usize,
    request: &mut MaybeUninit<Request>,
) -> Result<(), Unjudged> {
    match kind {
        ETHERTYPE_IPV4 => ipv4(packet, at, request).map_err(|counter| Unjudged { family: Family::Ipv4, counter }),
        ETHERTYPE_IPV6 => ipv6(packet, at, request).map_err(|counter| Unjudged { family: Family::Ipv6, counter }),
        _ => Err(Unjudged { family: Family::Other, counter: Counter::NotIp }),
    }
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, network: usize, request: &mut MaybeUninit<Request>) -> Result<(), Counter> {
    let header: [u8; 20] = packet.read(network).ok_or(Counter::Truncated)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(Counter::Malformed);
    }
    if header[9] != TCP {
        return Err(Counter::NotTcp);
    }
    if header[6] & 0x1f != 0 || header[7] != 0 {
        return Err(Counter::LaterFragment);
    }
    let fragment = header[6] & 0x20 != 0;
    let transport = network + length;
    let port = tcp(packet, transport, fragment)?;
    // Read anew, or the compiler would read it above, for nothing in most cases.
    let total: [u8; 2] = packet.read(network + 2).ok_or(Counter::Truncated)?;
    let [a, b, c, d]: [u8; 4] = packet.read(network + 12).ok_or(Counter::Truncated)?;
    let end = network + usize::from(u16::from_be_bytes(total));
    fits(packet, transport, end, fragment)?;
    let address = [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    request.write(Request { v6: false, address, port, fragment, network, transport, end });
    Ok(())
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized>(packet: &P, network: usize, request: &mut MaybeUninit<Request>) -> Result<(), Counter> {
    let header: [u8; 40] = packet.read(network).ok_or(Counter::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Counter::Malformed);
    }
    let mut next = header[6];
    let mut at = network + 40;
    let mut fragment = false;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if next == TCP {
            break;
        }
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => {
                let [after, length] = packet.read(at).ok_or(Counter::Truncated)?;
                at += (usize::from(length) + 1) * 8;
                next = after;
            }
            AUTHENTICATION => {
                let [after, length] = packet.read(at).ok_or(Counter::Truncated)?;
                // Three words stand in every one of them (RFC 4302 section 2.2).
                if length == 0 {
                    return Err(Counter::Malformed);
                }
                at += (usize::from(length) + 2) * 4;
                next = after;
            }
            FRAGMENT => {
                let [after, _, high, low, _, _, _, _] = packet.read(at).ok_or(Counter::Truncated)?;
                let offset = u16::from_be_bytes([high, low]);
                if offset & 0xfff8 != 0 {
                    return Err(Counter::LaterFragment);
                }
                fragment |= offset & 1 != 0;
                at += 8;
                next = after;
            }
            _ => break,
        }
    }
    match next {
        TCP => {}
        HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | AUTHENTICATION | FRAGMENT => {
            return Err(Counter::HeaderDepth);
        }
        _ => return Err(Counter::NotTcp),
    }
    let port = tcp(packet, at, fragment)?;
    let length: [u8; 2] = packet.read(network + 4).ok_or(Counter::Truncated)?;
    let address: [u8; 16] = packet.read(network + 8).ok_or(Counter::Truncated)?;
    // A jumbogram says 0 here and so ends before its TCP header: a SYN of 64 KiB is none.
    let end = network + 40 + usize::from(u16::from_be_bytes(length));
    fits(packet, at, end, fragment)?;
    if is_mapped(&address) {
        return Err(Counter::MappedSource);
    }
    request.write(Request { v6: true, address, port, fragment, network, transport: at, end });
    Ok(())
}

/// Whether the address is in `::ffff:0:0/96`.
#[inline(always)]
pub fn is_mapped(address: &[u8; 16]) -> bool {
    matches!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
}

/// The destination port of the SYN, or of the first fragment, whose TCP header stands at `at`.
#[inline(always)]
fn tcp<P: Packet + ?Sized>(packet: &P, at: usize, fragment: bool) -> Result<[u8; 2], Counter> {
    if fragment {
        // The smallest fragment holds 8 bytes: the ports, but not the flags.
        let [_, _, high, low]: [u8; 4] = packet.read(at).ok_or(Counter::Truncated)?;
        return Ok([high, low]);
    }
    let header: [u8; 20] = packet.read(at).ok_or(Counter::Truncated)?;
    if header[13] & (SYN | ACK | RST) != SYN {
        return Err(Counter::NotSyn);
    }
    Ok([header[2], header[3]])
}

/// Whether the TCP header at `at`, or of a fragment the ports, lies in the packet, which ends at `end` by its own account.
#[inline(always)]
fn fits<P: Packet + ?Sized>(packet: &P, at: usize, end: usize, fragment: bool) -> Result<(), Counter> {
    if fragment {
        return if end < at + 4 { Err(Counter::Malformed) } else { Ok(()) };
    }
    let [offset, _]: [u8; 2] = packet.read(at + 12).ok_or(Counter::Truncated)?;
    let length = usize::from(offset >> 4) * 4;
    if length < 20 || end < at + length { Err(Counter::Malformed) } else { Ok(()) }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
