//! The programs: `screen` (and `screen_frags`, the same for jumbo frames) at XDP, `steer` at socket lookup. `steer` is the authority, `screen` the accelerator: it may let
//! anything odd through, and both ask the same lists.
//!
//! Only code for the BPF target lives here; for the host this is an empty program, so that the workspace builds as one.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod limit;
#[cfg(target_arch = "bpf")]
mod lists;
#[cfg(target_arch = "bpf")]
mod offenders;
#[cfg(target_arch = "bpf")]
mod report;
#[cfg(target_arch = "bpf")]
mod screen;
#[cfg(target_arch = "bpf")]
mod send_back;
#[cfg(target_arch = "bpf")]
mod settings;
#[cfg(target_arch = "bpf")]
mod steer;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// The verifier refuses an endless loop: a program in which a panic can be reached does not load.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// What the kernel wants to hear before it lets a program use its GPL helpers. Ours are Apache-2.0 OR MIT.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
