//! The source of live frames: an XDP program that is run by `BPF_PROG_TEST_RUN`, makes a frame out of the page it is
//! given, and sends it to an interface.
//!
//! Never runs on an interface. The page still holds the frame that it carried before, perhaps of the other family: all
//! headers are written anew, but for the Ethernet addresses, which come with the template.

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

use crate::shared::{FRAME, Source, traffic};
use crate::work::{job, source};

/// Where the frames go: an address that is on the way to no host, so that what is let through ends at the route.
const TO4: [u8; 4] = [192, 0, 2, 25];
const TO6: [u8; 16] = [0x20, 0x01, 0x0d, 0xb8, 0, 0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x25];

/// The bytes behind the IP header: TCP with one option, or UDP with sixteen bytes.
const PAYLOAD: u8 = 24;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

#[xdp]
#[allow(clippy::needless_pass_by_value, reason = "what the macro calls it with")]
fn generate(ctx: XdpContext) -> u32 {
    let Some(job) = job() else { return XDP_ABORTED };
    // SAFETY: a live map value that nobody else writes during a run.
    let job = unsafe { &mut *job };
    let number = job.count;
    job.count = number.wrapping_add(1);
    let Some(source) = source(job.first + (number & job.mask)) else { return XDP_ABORTED };
    let (protocol, flags) = match (job.traffic, number & 1) {
        (traffic::SYN, _) => (TCP, SYN),
        (_, 0) => (TCP, ACK),
        _ => (UDP, 0),
    };
    let start = ctx.data();
    if start + FRAME > ctx.data_end() {
        return XDP_ABORTED;
    }
    let layer4 = if source.family == 4 { ipv4(start, source, protocol) } else { ipv6(start, source, protocol) };
    if protocol == TCP {
        tcp(layer4, number, flags);
    } else {
        udp(layer4);
    }
    if job.interface == 0 {
        return XDP_DROP;
    }
    // SAFETY: a helper with plain arguments.
    unsafe { bpf_redirect(job.interface, 0) as u32 }
}

/// Writes bytes at a place of the frame that the caller has checked.
#[inline(always)]
fn put<const N: usize>(at: usize, bytes: [u8; N]) {
    // SAFETY: the caller has checked that FRAME bytes are there, and every place here is a constant within them.
    unsafe { (at as *mut [u8; N]).write_unaligned(bytes) }
}

/// Writes the type and the IPv4 header, and tells where the next one begins.
#[inline(always)]
fn ipv4(start: usize, source: &Source, protocol: u8) -> usize {
    let [a, b, c, d, ..] = source.address;
    let from = [a, b, c, d];
    put(start + 12, [0x08, 0x00]);
    put(start + 14, [0x45, 0, 0, 20 + PAYLOAD, 0, 0, 0x40, 0]);
    let sum = 0x4500
        + 20
        + u32::from(PAYLOAD)
        + 0x4000
        + pair(64, protocol)
        + pair(a, b)
        + pair(c, d)
        + pair(TO4[0], TO4[1])
        + pair(TO4[2], TO4[3]);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let [high, low] = (!(sum as u16)).to_be_bytes();
    put(start + 22, [64, protocol, high, low]);
    put(start + 26, from);
    put(start + 30, TO4);
    start + 34
}

/// Two bytes as the sum takes them.
#[inline(always)]
fn pair(high: u8, low: u8) -> u32 {
    u32::from(high) << 8 | u32::from(low)
}

/// Writes the type and the IPv6 header, and tells where the next one begins.
#[inline(always)]
fn ipv6(start: usize, source: &Source, protocol: u8) -> usize {
    put(start + 12, [0x86, 0xdd]);
    put(start + 14, [0x60, 0, 0, 0, 0, PAYLOAD, protocol, 64]);
    put(start + 22, source.address);
    put(start + 38, TO6);
    start + 54
}

/// Without a checksum: no filter looks at it, and what is let through ends before TCP does.
#[inline(always)]
fn tcp(at: usize, number: u32, flags: u8) {
    let [.., c, d] = number.to_be_bytes();
    put(at, [c | 0x80, d, 0, 25]);
    put(at + 4, number.to_be_bytes());
    put(at + 8, [0; 4]);
    put(at + 12, [0x60, flags, 0xff, 0xff, 0, 0, 0, 0]);
    put(at + 20, [2, 4, 0x05, 0xb4]);
}

#[inline(always)]
fn udp(at: usize) {
    put(at, [0, 53, 0x9c, 0x40, 0, PAYLOAD, 0, 0]);
    put(at + 8, [0; 16]);
}
