//! The root directory of a cell: a mount of its own, out of which no mount shows outside.
//!
//! Runs between fork and exec: system calls only, nothing is allocated. Never changes what the outer process sees.

use std::ffi::CStr;
use std::io;
use std::ptr;

/// Cuts mount propagation in a mount namespace that was just made.
///
/// In a chroot whose root is a plain directory, `/` is no mount point: it cannot be made private, and neither can it be
/// made read-only later. There the namespace's true root is entered for a moment, everything is made private from
/// there, and the directory is bound to itself and made the root of the namespace.
pub(super) fn privatise() -> io::Result<()> {
    match cut_propagation() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => bind_chroot(),
        done => done,
    }
}

fn cut_propagation() -> io::Result<()> {
    mount(ptr::null(), c"/", libc::MS_REC | libc::MS_PRIVATE)
}

fn bind_chroot() -> io::Result<()> {
    let mut path = [0; libc::PATH_MAX as usize];
    // SAFETY: constant C strings, descriptors that were just opened, and a buffer with its length; the process has one
    // thread, and all of this is about its own root and working directory.
    unsafe {
        let directory = check(libc::open(c"/".as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC))?;
        let namespace = check(libc::open(c"/proc/self/ns/mnt".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))?;
        // Entering the namespace that we are in already moves us to its root: setns(2).
        check(libc::setns(namespace, libc::CLONE_NEWNS))?;
        cut_propagation()?;
        check(libc::fchdir(directory))?;
        if libc::getcwd(path.as_mut_ptr(), path.len()).is_null() {
            return Err(io::Error::last_os_error());
        }
    }
    let path = CStr::from_bytes_until_nul(bytes(&path)).map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
    mount(path.as_ptr(), path, libc::MS_BIND | libc::MS_REC)?;
    // A chroot would not do: whoever enters a mount namespace starts at its root. So this becomes the root; the old one
    // goes under it and away (pivot_root(2), "pivot_root(".", ".")").
    // SAFETY: a C string that lives, and constant ones.
    unsafe {
        check(libc::chdir(path.as_ptr()))?;
        if libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        check(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(())
}

fn mount(source: *const libc::c_char, target: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    // SAFETY: C strings that live, or null where mount(2) takes none.
    let done = unsafe { libc::mount(source, target.as_ptr(), ptr::null(), flags, ptr::null()) };
    check(done).map(drop)
}

fn check(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn bytes(text: &[libc::c_char]) -> &[u8] {
    // SAFETY: `c_char` has the size and alignment of a byte, and every byte is a `u8`.
    unsafe { std::slice::from_raw_parts(text.as_ptr().cast(), text.len()) }
}
