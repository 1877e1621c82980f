//! A wire that takes back frames: what a network card does by nature, and a veth end on an old kernel only with help.
//!
//! When an XDP program sends a frame back where it came from, the veth end over there must be ready for it. Since Linux 5.13
//! it is when it polls ([`crate::net`] sees to that); before, only when it runs an XDP program itself. So this module has one,
//! the smallest there is. Never looks into a frame.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

/// `r0 = XDP_PASS; exit`, as <linux/bpf.h> lays out instructions.
const PASS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

// <linux/bpf.h>, <linux/if_link.h>
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// A veth end that is ready for what the other end's XDP program sends back, as long as this lives.
#[derive(Debug)]
pub struct Ready {
    _link: OwnedFd,
}

/// Makes a veth end of the calling thread's network namespace ready for what the other end's XDP program sends back.
///
/// # Errors
/// When there is no such interface, or it has an XDP program.
pub fn take_back(interface: &str) -> Result<Ready> {
    let link = program().and_then(|program| attach(&program, index(interface)?));
    let link = link.with_context(|| format!("an XDP program that passes everything, at {interface}"))?;
    Ok(Ready { _link: link })
}

/// The number of an interface; `/sys` may show those of another namespace.
fn index(interface: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(interface)?;
    // SAFETY: a C string that lives.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn program() -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
    }
    let instructions = PASS.as_ptr() as u64;
    let load = Load {
        kind: BPF_PROG_TYPE_XDP,
        instruction_count: PASS.len() as u32,
        instructions,
        license: c"MIT".as_ptr() as u64,
    };
    // SAFETY: the command reads the attributes, and in them the instructions and the license, constants all.
    unsafe { bpf(BPF_PROG_LOAD, &load) }
}

fn attach(program: &OwnedFd, interface: u32) -> io::Result<OwnedFd> {
    let link = [program.as_raw_fd().cast_unsigned(), interface, BPF_XDP, XDP_FLAGS_DRV_MODE];
    // SAFETY: the command reads the attributes: four numbers.
    unsafe { bpf(BPF_LINK_CREATE, &link) }
}

/// `bpf(2)` for a command that answers with a descriptor.
///
/// # Safety
/// `attributes` must be what the command expects, and the pointers in it valid.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` has the size that is given; the rest is the caller's to promise.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = i32::try_from(answer).map_err(io::Error::other)?;
    // SAFETY: a descriptor that the call has just made, and that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
