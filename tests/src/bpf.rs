//! bpf(2) itself, for what aya has no safe form of, and for what must not be made by the code under test.
//!
//! Holds the one system call. Never knows what a command is for.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::ptr;

/// One command. `T` is the part of `union bpf_attr` that the command reads, and may write its answer to; the kernel takes
/// what is missing as zeros.
///
/// # Safety
/// `T` must be laid out as the command's part of the union, without padding, and pointers in it must be good for what
/// the command does with them until it returns.
pub(crate) unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the caller's promise; the kernel keeps within `size_of::<T>()` bytes.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { libc::c_int::try_from(answer).map_err(io::Error::other) }
}

/// A command whose answer is a new descriptor.
///
/// # Safety
/// As for [`bpf`], and the command must be one that makes a descriptor.
pub(crate) unsafe fn bpf_fd<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: a descriptor that the call has just made, and that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
