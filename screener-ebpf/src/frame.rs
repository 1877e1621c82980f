//! The linear part of a frame, as the verifier wants to see it read and written.
//!
//! Holds every access to the packet's memory. Headers always lie in the linear part, also in frames of several buffers.

use aya_ebpf::programs::XdpContext;
use screener_ebpf::parse::Packet;
use screener_ebpf::reject::PacketMut;

/// The furthest that two tags and six extension headers of the greatest length can reach, rounded up: the verifier
/// wants to see a bound of every offset.
const FURTHEST: usize = 0x3fff;

/// Bytes that begin at an even address, so that the compiler joins two of them into one access.
///
/// Every header begins at an even offset, and the frame itself at an even address: the verifier counts on the same
/// (`NET_IP_ALIGN`) where a machine must not access memory across a boundary.
#[repr(C, align(2))]
struct Even<T>(T);

/// The linear part of a frame.
pub(crate) struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame as it is now. Only good until its size is changed.
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }

    /// How many bytes there are.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Where `length` bytes at `offset` lie; `None` if the frame ends before them.
    #[inline(always)]
    fn at(&self, offset: usize, length: usize) -> Option<usize> {
        if offset > FURTHEST {
            return None;
        }
        let at = self.start + offset;
        if at + length > self.end { None } else { Some(at) }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        const { assert!(N.is_multiple_of(2)) };
        let at = self.at(offset, N)?;
        // SAFETY: the bytes lie in the packet, checked in the form in which the verifier checks it again, and begin at an
        // even address; any bytes make an array.
        Some(unsafe { (at as *const Even<[u8; N]>).read() }.0)
    }
}

impl PacketMut for Frame {
    #[inline(always)]
    fn part<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let at = self.at(offset, N)?;
        // SAFETY: as for reading; and nobody else has the frame now but who holds `self`.
        Some(unsafe { &mut *(at as *mut [u8; N]) })
    }
}
