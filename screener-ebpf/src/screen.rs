//! `screen`: the XDP program. Drops SYNs of denied sources before the stack spends anything on them.
//!
//! Never aborts, never drops anything but a SYN (or a first fragment) whose source is under a `drop` entry.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use screener_ebpf::parse::{Packet, Request, request};
use screener_ebpf::{Counter, Finding, Hook, Settings, action};

use crate::lists::{Denial, Static, denied};
use crate::report::{conclude, count};
use crate::settings::settings;

/// The furthest that two tags and six extension headers of the greatest length can reach, rounded up: the verifier
/// wants to see a bound of every offset.
const FURTHEST: usize = 0x3fff;

#[xdp]
#[allow(clippy::needless_pass_by_value, reason = "what the macro calls it with")]
fn screen(ctx: XdpContext) -> u32 {
    let Some(settings) = settings() else { return XDP_PASS };
    match request(&Frame::of(&ctx), settings) {
        Ok(request) => judge(&request, settings),
        Err(unjudged) => {
            count(Hook::Screen, unjudged.family, unjudged.counter);
            if matches!(
                unjudged.counter,
                Counter::Truncated | Counter::Malformed | Counter::VlanDepth | Counter::HeaderDepth
            ) {
                // Off unless the daemon asked for it when it loaded the program; then not even a branch is left.
                debug!(&ctx, "not understood, so passed: outcome {}", unjudged.counter as u8);
            }
            XDP_PASS
        }
    }
}

/// The verdict on a request.
///
/// `reject` passes here: `steer` refuses the SYN, and the kernel answers with the RST that it would send for a closed
/// port, which is the right one. `tag` passes: the tag is the listener that `steer` chooses.
#[inline(always)]
fn judge(request: &Request, settings: &Settings) -> u32 {
    let listed = denied(&request.source);
    let (counter, action) = match listed.verdict {
        Static::Denied(Denial::Drop) if request.fragment => (Counter::DroppedFragment, action::DROP),
        Static::Denied(Denial::Drop) => (Counter::Dropped, action::DROP),
        _ if request.fragment => (Counter::FirstFragment, action::NONE),
        Static::Unlisted | Static::Permitted => (Counter::Unlisted, action::NONE),
        Static::Denied(Denial::Tag) => (Counter::TagLater, action::TAG),
        Static::Denied(Denial::Reject) => (Counter::RejectLater, action::REJECT),
    };
    let dropped = action == action::DROP;
    // What is let through comes by `steer`, which tells about it; only without `steer` is this the last one to see it.
    let last = dropped || (settings.flags & Settings::STEERED == 0 && !request.fragment);
    let finding = Finding { hook: Hook::Screen, counter, action, counted: listed.counted };
    conclude(settings, &request.source, request.port, &finding, last);
    if dropped { XDP_DROP } else { XDP_PASS }
}

/// The linear part of a frame.
struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        if offset > FURTHEST {
            return None;
        }
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: `at..at + N` lies in the packet, checked just now in the form in which the verifier checks it again;
        // any bytes make an array, and `read_unaligned` asks for no alignment.
        Some(unsafe { (at as *const [u8; N]).read_unaligned() })
    }
}
