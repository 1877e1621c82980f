//! The linear part of a frame, as the verifier wants to see it read and written.
//!
//! Holds every access to the packet's memory. Headers always lie in the linear part, also in frames of several buffers.

use core::hint::black_box;

use aya_ebpf::programs::XdpContext;
use screener_ebpf::parse::{FURTHEST, Packet};
use screener_ebpf::reject::PacketMut;

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

    /// Where `length` bytes at `offset` lie; `None` if the frame ends before them.
    #[inline(always)]
    fn at(&self, offset: usize, length: usize) -> Option<usize> {
        // The verifier wants to see a bound of every offset.
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

/// The linear part of a frame for those who are not in a hurry, and for whom the verifier has forgotten what the parser
/// knew, because it has lain on the stack meanwhile. The compiler has not, and would leave out the questions that the
/// verifier waits for, or turn several that are alike into arithmetic with the end of the packet, which is forbidden. So
/// it is kept from knowing what it asks: each access shows all of its bounds, whatever stands before and behind.
pub(crate) struct Careful(Frame);

impl Careful {
    /// The frame as it is now. Only good until its size is changed.
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext) -> Self {
        Self(Frame::of(ctx))
    }

    /// How many bytes there are.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.0.end - self.0.start
    }

    /// Where `length` bytes at `offset` lie; `None` if the frame ends before them.
    #[inline(always)]
    fn at(&self, offset: usize, length: usize) -> Option<usize> {
        let at = self.0.start + (black_box(offset) & FURTHEST);
        if at + length > black_box(self.0.end) { None } else { Some(at) }
    }
}

impl Packet for Careful {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.at(offset, N)?;
        // SAFETY: the bytes lie in the packet, checked just now; any bytes make an array, which begins anywhere.
        Some(unsafe { *(at as *const [u8; N]) })
    }
}

impl PacketMut for Careful {
    #[inline(always)]
    fn part<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let at = self.at(offset, N)?;
        // SAFETY: as for reading; and nobody else has the frame now but who holds `self`.
        Some(unsafe { &mut *(at as *mut [u8; N]) })
    }
}
