//! `screen`: the XDP program. Drops SYNs of denied sources before the stack spends anything on them, or answers them with
//! a RST.
//!
//! Never aborts, and never touches anything but a SYN (or a first fragment) to a screened port. It asks about denies and
//! offenders alone: that a permit is stronger than a deny is `steer`'s to know, and that of who fills the tables.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use screener_ebpf::parse::{Request, Unjudged, other_port, read_syn};
use screener_ebpf::{Address, Counter, Finding, Hook, Settings, action};

use crate::frame::Frame;
use crate::limit::is_over;
use crate::lists::{Denial, Static, denied};
use crate::offenders::keeps_out;
use crate::report::{conclude, count};
use crate::send_back::send_back;
use crate::settings::settings;

// Within the function that the macro makes: a call would cost all traffic 5 ns.
#[xdp]
#[inline(always)]
#[allow(clippy::needless_pass_by_value, reason = "what the macro calls it with")]
fn screen(ctx: XdpContext) -> u32 {
    look_at(&ctx, false)
}

/// The same for interfaces whose frames may have several buffers (jumbo frames): a kernel before 5.18 does not load it.
#[xdp(frags)]
#[inline(always)]
#[allow(clippy::needless_pass_by_value, reason = "what the macro calls it with")]
fn screen_frags(ctx: XdpContext) -> u32 {
    look_at(&ctx, true)
}

#[inline(always)]
fn look_at(ctx: &XdpContext, frags: bool) -> u32 {
    let frame = Frame::of(ctx);
    let mut request = MaybeUninit::uninit();
    if let Err(unjudged) = read_syn(&frame, &mut request) {
        return pass(ctx, unjudged);
    }
    // SAFETY: filled, since there is no reason against it.
    let request = unsafe { request.assume_init() };
    let Some(settings) = settings() else { return XDP_PASS };
    if !settings.screens(request.port) {
        return pass(ctx, other_port(&request));
    }
    // The family is known for good from here on: a copy of the rest for each.
    let [a, b, c, d, ..] = request.address;
    if request.v6 {
        judge(ctx, &request, &Address::V6(request.address), settings, frags)
    } else {
        judge(ctx, &request, &Address::V4([a, b, c, d]), settings, frags)
    }
}

/// Lets through what is not judged, and counts why.
#[inline(always)]
fn pass(ctx: &XdpContext, unjudged: Unjudged) -> u32 {
    count(Hook::Screen, unjudged.family, unjudged.counter);
    if matches!(unjudged.counter, Counter::Truncated | Counter::Malformed | Counter::VlanDepth | Counter::HeaderDepth) {
        // Off unless the daemon asked for it when it loaded the program; then not even a branch is left.
        debug!(ctx, "not understood, so passed: outcome {}", unjudged.counter as u8);
    }
    XDP_PASS
}

/// The verdict on a SYN, or on a first fragment: that is dropped, or nothing has happened.
///
/// `tag` passes: the tag is the listener that `steer` chooses. So does a `reject` that cannot be answered here: `steer`
/// refuses the SYN, and the stack answers as for a closed port.
#[inline(always)]
fn judge(ctx: &XdpContext, request: &Request, source: &Address, settings: &Settings, frags: bool) -> u32 {
    let listed = denied(source);
    let denial = match listed.verdict {
        Static::Denied(denial) => Some(denial),
        Static::Unlisted | Static::Permitted => None,
    };
    let (counter, verdict) = match denial {
        Some(Denial::Drop) if request.fragment => (Counter::DroppedFragment, XDP_DROP),
        Some(Denial::Drop) => (Counter::Dropped, XDP_DROP),
        None | Some(Denial::Tag) if keeps_out(source, settings) => (Counter::DroppedOffender, XDP_DROP),
        _ if request.fragment => {
            count(Hook::Screen, source.family(), Counter::FirstFragment);
            return XDP_PASS;
        }
        _ if is_over(source, settings) => (Counter::OverRate, XDP_DROP),
        Some(Denial::Reject) if settings.has(Settings::REJECT_EARLY) => match send_back(ctx, request, frags) {
            Some(verdict) => (Counter::Rejected, verdict),
            None => (Counter::RejectLater, XDP_PASS),
        },
        Some(Denial::Reject) => (Counter::RejectLater, XDP_PASS),
        Some(Denial::Tag) => (Counter::TagLater, XDP_PASS),
        None => (Counter::Unlisted, XDP_PASS),
    };
    let action = match denial {
        None => action::NONE,
        Some(Denial::Drop) => action::DROP,
        Some(Denial::Reject) => action::REJECT,
        Some(Denial::Tag) => action::TAG,
    };
    // What is let through comes by `steer`, which tells about it; only without `steer` is this the last one to see it.
    let last = verdict != XDP_PASS || !settings.has(Settings::STEERED);
    let finding = Finding { hook: Hook::Screen, counter, action, counted: listed.counted };
    conclude(settings, source, request.port, &finding, last);
    verdict
}
