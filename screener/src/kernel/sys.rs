//! The few commands of bpf(2) that aya does not have, or has with an effect that we cannot use: where its attaching meets
//! `EINVAL` it goes on over netlink, which can neither be pinned nor is careful with the program of somebody else.
//!
//! Holds system calls, nothing that knows what they are for.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Pod;

// <linux/bpf.h>
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_GET_FD_BY_ID: libc::c_int = 30;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_MAP_DELETE_BATCH: libc::c_int = 27;
const BPF_SK_LOOKUP: u32 = 36;
const BPF_XDP: u32 = 37;
// <linux/if_link.h>
/// In the stack.
pub(super) const XDP_FLAGS_SKB_MODE: u32 = 2;
/// In the driver.
pub(super) const XDP_FLAGS_DRV_MODE: u32 = 4;

/// One command. `T` is the part of `union bpf_attr` that the command reads; the kernel takes what is missing as zeros.
///
/// # Safety
/// `T` must be laid out as the command's part of the union, without padding, and pointers in it must be good for what
/// the command does with them until it returns.
pub(super) unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: the caller's promise; the kernel copies `size_of::<T>()` bytes in.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(answer).map_err(io::Error::other)
}

/// A command whose answer is a new descriptor.
///
/// # Safety
/// As for [`bpf`], and the command must be one that makes a descriptor.
pub(super) unsafe fn bpf_fd<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: a descriptor that the call has just made, and that nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct ObjectAttributes {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Takes what is in a place of an array of maps out of it; lookups that have begun go on in peace.
pub(super) fn map_delete(map: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    #[repr(C)]
    struct Element {
        map_fd: u32,
        _pad: u32,
        key: u64,
    }
    let attributes = Element { map_fd: descriptor(map), _pad: 0, key: std::ptr::from_ref(&index) as u64 };
    // SAFETY: laid out as <linux/bpf.h> has it; the key lives until after the call.
    unsafe { bpf(BPF_MAP_DELETE_ELEM, &attributes) }.map(drop)
}

/// The part of `union bpf_attr` for many entries at once (kernel 5.6).
#[repr(C)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    /// How many; the kernel puts here how many it did.
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A batch, and how many entries of it were done, also where it was broken off.
///
/// # Safety
/// The pointers in it must be good for `count` entries of the map, as the command reads or writes them.
unsafe fn batch(command: libc::c_int, attributes: &mut BatchAttributes) -> (usize, io::Result<()>) {
    let pointer = std::ptr::from_mut(attributes);
    // SAFETY: the caller's promise; the kernel reads `size_of` bytes and writes `count`.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<BatchAttributes>()) };
    let result = if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    (attributes.count as usize, result)
}

fn count_of<T>(entries: &[T]) -> io::Result<u32> {
    u32::try_from(entries.len()).map_err(io::Error::other)
}

/// Sets many entries of a hash. How many were set, and why not all; one that is refused ends it.
pub(super) fn hash_put_many<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> (usize, io::Result<()>) {
    let count = match count_of(keys) {
        Ok(count) if keys.len() == values.len() => count,
        _ => return (0, Err(io::ErrorKind::InvalidInput.into())),
    };
    let (keys, values) = (keys.as_ptr() as u64, values.as_ptr() as u64);
    let mut attributes = BatchAttributes {
        in_batch: 0,
        out_batch: 0,
        keys,
        values,
        count,
        map_fd: descriptor(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: as many keys as values, of plain data whose sizes were compared with the map's when it was opened.
    unsafe { batch(BPF_MAP_UPDATE_BATCH, &mut attributes) }
}

/// Removes many entries of a hash. How many were removed, and why not all; one that is not there ends it.
pub(super) fn hash_remove_many<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> (usize, io::Result<()>) {
    let count = match count_of(keys) {
        Ok(count) => count,
        Err(error) => return (0, Err(error)),
    };
    let keys = keys.as_ptr() as u64;
    let mut attributes = BatchAttributes {
        in_batch: 0,
        out_batch: 0,
        keys,
        values: 0,
        count,
        map_fd: descriptor(map),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: that many keys, of plain data whose size was compared with the map's when it was opened.
    unsafe { batch(BPF_MAP_DELETE_BATCH, &mut attributes) }
}

/// Every entry of a hash. The kernel gives whole buckets, so what is there throughout is seen once.
pub(super) fn hash_entries<K: Pod + Default, V: Pod + Default>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    /// More than any bucket holds.
    const MOST: u32 = 8192;
    let mut keys = vec![K::default(); MOST as usize];
    let mut values = vec![V::default(); MOST as usize];
    let mut entries = Vec::new();
    let (mut before, mut behind) = (None::<u32>, 0_u32);
    loop {
        let mut attributes = BatchAttributes {
            in_batch: before.as_ref().map_or(0, |at| std::ptr::from_ref(at) as u64),
            out_batch: std::ptr::from_mut(&mut behind) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: MOST,
            map_fd: descriptor(map),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: room for that many keys and values, of plain data whose sizes were compared with the map's when it was
        // opened; a hash's place in its walk is 32 bits.
        let (count, result) = unsafe { batch(BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        let end = match result {
            Ok(()) => false,
            // The last buckets, or none.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        entries.extend(keys.iter().copied().zip(values.iter().copied()).take(count));
        if end {
            return Ok(entries);
        }
        before = Some(behind);
    }
}

/// The object that is pinned at a path.
pub(super) fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjectAttributes { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: laid out as <linux/bpf.h> has it; the path is a C string that lives until after the call.
    unsafe { bpf_fd(BPF_OBJ_GET, &attributes) }
}

/// Pins an object; there must be nothing at the path yet.
pub(super) fn object_pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjectAttributes { pathname: name.as_ptr() as u64, bpf_fd: descriptor(object), file_flags: 0 };
    // SAFETY: laid out as <linux/bpf.h> has it; the path is a C string that lives until after the call.
    unsafe { bpf(BPF_OBJ_PIN, &attributes) }.map(drop)
}

/// Attaches an XDP program to an interface. The link is the attachment: it ends with the last descriptor and pin.
pub(super) fn link_xdp(program: BorrowedFd<'_>, interface: u32, flags: u32) -> io::Result<OwnedFd> {
    link_create(program, interface, BPF_XDP, flags)
}

/// Attaches an `sk_lookup` program to a network namespace.
pub(super) fn link_sk_lookup(program: BorrowedFd<'_>, namespace: impl AsFd) -> io::Result<OwnedFd> {
    link_create(program, descriptor(namespace.as_fd()), BPF_SK_LOOKUP, 0)
}

fn link_create(program: BorrowedFd<'_>, target: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        prog_fd: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let attributes = Attributes { prog_fd: descriptor(program), target, attach_type, flags };
    // SAFETY: laid out as <linux/bpf.h> has it; numbers only.
    unsafe { bpf_fd(BPF_LINK_CREATE, &attributes) }
}

/// Puts another program behind a link: every packet meets the old one or the new one.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let attributes =
        Attributes { link_fd: descriptor(link), new_prog_fd: descriptor(program), flags: 0, old_prog_fd: 0 };
    // SAFETY: laid out as <linux/bpf.h> has it; numbers only.
    unsafe { bpf(BPF_LINK_UPDATE, &attributes) }.map(drop)
}

/// Ends an attachment now. Where the last descriptor or pin of a link goes, its end comes a little later, from a queue of
/// the kernel's.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        link_fd: u32,
    }
    let attributes = Attributes { link_fd: descriptor(link) };
    // SAFETY: laid out as <linux/bpf.h> has it; a number only.
    unsafe { bpf(BPF_LINK_DETACH, &attributes) }.map(drop)
}

/// A link, by its number.
pub(super) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        link_id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let attributes = Attributes { link_id: id, next_id: 0, open_flags: 0 };
    // SAFETY: laid out as <linux/bpf.h> has it; numbers only.
    unsafe { bpf_fd(BPF_LINK_GET_FD_BY_ID, &attributes) }
}

/// What the kernel tells about a BPF object in `/proc/self/fdinfo`, which includes things that
/// `BPF_OBJ_GET_INFO_BY_FD` does not tell, or not through aya: a map's memory, a link's interface.
pub(super) fn fdinfo(object: BorrowedFd<'_>) -> io::Result<HashMap<String, u64>> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_raw_fd()))?;
    Ok(fields(&text))
}

/// The fields of an fdinfo that are numbers.
pub(super) fn fields(text: &str) -> HashMap<String, u64> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?))).collect()
}

pub(super) fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_an_fdinfo_are_read_and_words_left_out() {
        let fields = fields("pos:\t0\nlink_type:\txdp\nlink_id:\t7\nprog_tag:\t3b18\nifindex:\t12\nnonsense\n");
        assert_eq!(fields.get("ifindex"), Some(&12));
        assert_eq!(fields.get("link_id"), Some(&7));
        assert_eq!(fields.get("link_type"), None);
    }
}
