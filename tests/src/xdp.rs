//! Somebody else's XDP program, and a process that may not use BPF: what an operator's machine can hold against us; and
//! the program that makes a veth end as good as a network card.
//!
//! Holds raw system calls on purpose: what is tested here must not be made by the code under test.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::bpf::{bpf, bpf_fd};
use crate::net::index_of;

// <linux/bpf.h>
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
// <linux/if_link.h>
const XDP_FLAGS_DRV_MODE: u32 = 4;
/// `return XDP_PASS`: two instructions.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// An XDP program that lets everything pass; at most 15 letters.
///
/// # Errors
/// When the kernel does not load it.
pub fn program(name: &str) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log: [u64; 2],
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
    }
    let mut prog_name = [0; 16];
    for (to, from) in prog_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    let mut attributes = Attributes {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: 2,
        insns: PASS.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log: [0; 2],
        kern_version: 0,
        prog_flags: 0,
        prog_name,
    };
    // SAFETY: laid out as <linux/bpf.h> has it; instructions and licence live until after the call.
    unsafe { bpf_fd(BPF_PROG_LOAD, &mut attributes) }.context("loading an XDP program")
}

/// Attaches a program by a link to an interface of the calling thread's network namespace.
///
/// # Errors
/// When the kernel refuses.
pub fn link(program: &impl AsFd, interface: &str) -> Result<OwnedFd> {
    link_with(program, interface, 0)
}

/// Makes a veth end of the calling thread's network namespace take what an XDP program at the other end sends back, as
/// every network card does: puts an XDP program there that lets everything through. It stays until what is returned goes.
///
/// # Errors
/// When the kernel refuses the program, or the interface has one.
pub fn take_frames_back(interface: &str) -> Result<OwnedFd> {
    link_with(&program("take_back")?, interface, XDP_FLAGS_DRV_MODE)
}

fn link_with(program: &impl AsFd, interface: &str, flags: u32) -> Result<OwnedFd> {
    let program = program.as_fd().as_raw_fd().cast_unsigned();
    let mut attributes: [u32; 4] = [program, index_of(interface)?, BPF_XDP, flags];
    // SAFETY: four numbers: program, interface, kind of attachment, flags.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attributes) }.with_context(|| format!("linking to {interface}"))
}

/// Pins a program or a link, on the cell's own bpffs.
///
/// # Errors
/// When the kernel refuses.
pub fn pin(object: &impl AsFd, path: &str) -> Result<()> {
    let name = CString::new(path)?;
    let mut attributes: [u64; 2] = [name.as_ptr() as u64, object.as_fd().as_raw_fd().cast_unsigned().into()];
    // SAFETY: the path, a C string that lives until after the call; the descriptor in the lower half of a word, and flags,
    // none, in the upper one.
    unsafe { bpf(BPF_OBJ_PIN, &mut attributes) }
        .with_context(|| format!("pinning to {}", Path::new(path).display()))?;
    Ok(())
}

/// Puts a command under a seccomp filter that answers bpf(2) with an error, as container engines do.
pub fn deny_bpf(command: &mut Command, errno: i32) {
    // <linux/bpf_common.h>: load the number of the system call; is it bpf's? Then the error, else go on.
    let refuse = libc::SECCOMP_RET_ERRNO | (errno.cast_unsigned() & libc::SECCOMP_RET_DATA);
    let step = |code: u16, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = u32::try_from(libc::SYS_bpf).unwrap_or(u32::MAX);
    let filter = [
        step(0x20, 0, 0, 0),
        step(0x15, 0, 1, number),
        step(0x06, 0, 0, refuse),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: a filter of four steps, which the kernel copies.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: one system call; nothing is allocated.
    unsafe { command.pre_exec(install) };
}
