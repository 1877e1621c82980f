//! From the bytes of a frame to the one question that `screen` asks: who wants to open a connection to a screened port?
//!
//! Holds the rules of reference/xdp.md section 4.2. Never judges a source and never fails a packet: whatever is not a
//! pure SYN to a screened port comes back with the reason under which it is counted and let through.

use crate::counter::{Counter, Family};
use crate::{Address, Settings};

/// How many IPv6 extension headers are followed. A real SYN has none; the stack sees the rest.
pub const MAX_EXTENSION_HEADERS: usize = 6;

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
    /// Who asks.
    pub source: Address,
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

/// Why a frame is not a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unjudged {
    /// The family, as far as the frame was read.
    pub family: Family,
    /// The reason.
    pub counter: Counter,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

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
    Unjudged { family: request.source.family(), counter: Counter::OtherPort }
}

/// Reads a frame: a pure SYN to whatever port, or why it is none.
///
/// A pure SYN is SYN without ACK and RST; the ECN bits and FIN are ignored, as the stack ignores them in LISTEN. What
/// most frames are (no TCP, or TCP that goes on) is decided with as few questions as possible, and without the settings.
#[inline(always)]
pub fn syn<P: Packet + ?Sized>(packet: &P) -> Result<Request, Unjudged> {
    let other = |counter| Unjudged { family: Family::Other, counter };
    let kind = ethertype(packet, 12).ok_or(other(Counter::Truncated))?;
    if !is_tag(kind) {
        // A copy of its own for the common case, with all offsets known to the compiler.
        return network(packet, kind, 14);
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
    network(packet, kind, at)
}

#[inline(always)]
fn ethertype<P: Packet + ?Sized>(packet: &P, at: usize) -> Option<u16> {
    packet.read(at).map(u16::from_be_bytes)
}

#[inline(always)]
fn is_tag(kind: u16) -> bool {
    kind == ETHERTYPE_VLAN || kind == ETHERTYPE_SERVICE_VLAN
}

/// The IP header at `at`, by the type before it.
#[inline(always)]
fn network<P: Packet + ?Sized>(packet: &P, kind: u16, at: usize) -> Result<Request, Unjudged> {
    match kind {
        ETHERTYPE_IPV4 => ipv4(packet, at).map_err(|counter| Unjudged { family: Family::Ipv4, counter }),
        ETHERTYPE_IPV6 => ipv6(packet, at).map_err(|counter| Unjudged { family: Family::Ipv6, counter }),
        _ => Err(Unjudged { family: Family::Other, counter: Counter::NotIp }),
    }
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, network: usize) -> Result<Request, Counter> {
    let header: [u8; 20] = packet.read(network).ok_or(Counter::Truncated)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Err(Counter::Malformed);
    }
    if header[9] != TCP {
        return Err(Counter::NotTcp);
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]);
    if fragment & 0x1fff != 0 {
        return Err(Counter::LaterFragment);
    }
    let end = network + usize::from(u16::from_be_bytes([header[2], header[3]]));
    let fragment = fragment & 0x2000 != 0;
    let transport = network + length;
    let port = tcp(packet, transport, end, fragment)?;
    let source = Address::V4([header[12], header[13], header[14], header[15]]);
    Ok(Request { source, port, fragment, network, transport, end })
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized>(packet: &P, network: usize) -> Result<Request, Counter> {
    let header: [u8; 40] = packet.read(network).ok_or(Counter::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Counter::Malformed);
    }
    // A jumbogram says 0 here and so ends before its TCP header: a SYN of 64 KiB is none.
    let end = network + 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let mut next = header[6];
    let mut at = network + 40;
    let mut fragment = false;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match next {
            TCP => break,
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY => {
                let [after, length] = packet.read(at).ok_or(Counter::Truncated)?;
                at += (usize::from(length) + 1) * 8;
                next = after;
            }
            AUTHENTICATION => {
                let [after, length] = packet.read(at).ok_or(Counter::Truncated)?;
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
    let port = tcp(packet, at, end, fragment)?;
    let mut source = [0; 16];
    source.copy_from_slice(&header[8..24]);
    if is_mapped(&source) {
        return Err(Counter::MappedSource);
    }
    Ok(Request { source: Address::V6(source), port, fragment, network, transport: at, end })
}

/// Whether the address is in `::ffff:0:0/96`.
#[inline(always)]
pub fn is_mapped(address: &[u8; 16]) -> bool {
    matches!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ..])
}

/// The destination port of the SYN whose TCP header stands at `at`, in a packet that ends at `end` by its own account.
#[inline(always)]
fn tcp<P: Packet + ?Sized>(packet: &P, at: usize, end: usize, fragment: bool) -> Result<[u8; 2], Counter> {
    if fragment {
        // The smallest fragment holds 8 bytes: the ports, but not the flags.
        let [_, _, high, low]: [u8; 4] = packet.read(at).ok_or(Counter::Truncated)?;
        return if end < at + 4 { Err(Counter::Malformed) } else { Ok([high, low]) };
    }
    let header: [u8; 20] = packet.read(at).ok_or(Counter::Truncated)?;
    if header[13] & (SYN | ACK | RST) != SYN {
        return Err(Counter::NotSyn);
    }
    let length = usize::from(header[12] >> 4) * 4;
    if length < 20 || end < at + length {
        return Err(Counter::Malformed);
    }
    Ok([header[2], header[3]])
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
