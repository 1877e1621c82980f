//! Sending the RST of a `reject` entry: the SYN's own frame is made the answer, in place.
//!
//! Never decides whether there shall be one, and what stands in it: `reject` in the library does.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_TX};
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_tail, bpf_xdp_get_buff_len};
use aya_ebpf::programs::XdpContext;
use screener_ebpf::parse::Request;
use screener_ebpf::reject::Answer;

use crate::frame::Careful;

/// Makes the frame the answer. `None`: it cannot be made of this one, which is as it was.
///
/// `frags`: the frame may have more buffers than the linear part. Then it is no SYN worth an answer here.
#[inline(always)]
pub(crate) fn send_back(ctx: &XdpContext, request: &Request, frags: bool) -> Option<u32> {
    let frame = Careful::of(ctx);
    let length = frame.len();
    // SAFETY: the context that the program was called with. Kernels that load a program with `frags` have the helper.
    if frags && unsafe { bpf_xdp_get_buff_len(ctx.ctx) } != length as u64 {
        return None;
    }
    let answer = Answer::to(&frame, length, request)?;
    // SAFETY: the context that the program was called with. Nothing that is known of the frame is used after this.
    if unsafe { bpf_xdp_adjust_tail(ctx.ctx, answer.length as i32 - length as i32) } != 0 {
        return None;
    }
    // The verifier does not know that there is room. If there were none, half an answer must not leave.
    Some(if answer.write(&mut Careful::of(ctx)).is_some() { XDP_TX } else { XDP_DROP })
}
