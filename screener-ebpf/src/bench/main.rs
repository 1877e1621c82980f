//! The programs of `cargo xtask bench kernel`: a source of live frames, the two empty programs that are the limit of what
//! XDP can do, and loops around the lookups that are compared.
//!
//! Never part of the daemon's object: a binary of its own, built by the lab. What it measures as ours is the daemon's own
//! module (`lists.rs`), working on the maps of a screener that is attached.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod empty;
#[cfg(target_arch = "bpf")]
mod generate;
#[cfg(target_arch = "bpf")]
mod hashes;
#[cfg(target_arch = "bpf")]
mod loops;
#[cfg(target_arch = "bpf")]
mod ours;
#[cfg(target_arch = "bpf")]
mod ranked;
#[cfg(target_arch = "bpf")]
#[allow(dead_code, unreachable_pub, reason = "the user-space half uses the rest of it")]
mod shared;
#[cfg(target_arch = "bpf")]
mod work;

// The daemon's own modules, as they are. What they use of `crate::` must be named here too.
#[cfg(target_arch = "bpf")]
#[allow(dead_code, reason = "only the lookup is measured")]
#[path = "../lists.rs"]
mod lists;
#[cfg(target_arch = "bpf")]
#[path = "../settings.rs"]
mod settings;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// The verifier refuses an endless loop: a program in which a panic can be reached does not load.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// What the kernel wants to hear before it lets a program use its GPL helpers.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
