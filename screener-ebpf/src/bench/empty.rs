//! The two programs that do nothing: the limit for dropping, and the limit for letting through.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

#[xdp]
#[allow(clippy::needless_pass_by_value, reason = "what the macro calls it with")]
fn empty_drop(_: XdpContext) -> u32 {
    XDP_DROP
}

#[xdp]
#[allow(clippy::needless_pass_by_value, reason = "what the macro calls it with")]
fn empty_pass(_: XdpContext) -> u32 {
    XDP_PASS
}
