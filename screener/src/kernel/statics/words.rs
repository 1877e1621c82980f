//! A map of quads as memory: created, mapped, written, put in place.
//!
//! Holds the only `unsafe` of the static lists. Never knows what the words mean.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Array, IterableMap, MapData, MapError};
use screener_ebpf::DENY_FLAGS;
use screener_ebpf::deny::{Quad, Quads};

/// The kernel's name for it in the types of aya.
pub(super) type QuadMap = Array<MapData, Quad>;

const WORDS: usize = 4;

/// A map of quads and its memory.
///
/// Programs read the same memory, and so may another process; one process at a time writes, by the lock on the pin
/// directory.
pub(super) struct Words {
    map: QuadMap,
    start: NonNull<u64>,
    length: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread; `&self` gives out shared slices only.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Creates a map, filled with zeros.
    ///
    /// # Errors
    /// When the kernel has no memory for it, or no such maps.
    pub(super) fn create(quads: u32) -> Result<Self, MapError> {
        Self::over(QuadMap::create(quads, DENY_FLAGS)?, true)
    }

    /// Maps the memory of a map that exists.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub(super) fn over(map: QuadMap, writable: bool) -> Result<Self, MapError> {
        let length = map.len() as usize * WORDS;
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let fd = map.map().fd().as_fd().as_raw_fd();
        // SAFETY: a mapping of our own at an address that the kernel chooses; nothing existing is touched.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length * size_of::<u64>(), protection, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(MapError::IoError(io::Error::last_os_error()));
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| MapError::IoError(io::Error::other("mapped at zero")))?;
        Ok(Self { map, start, length, writable })
    }

    /// The map, to be put in place.
    pub(super) fn map(&self) -> &QuadMap {
        &self.map
    }

    /// How many bytes of memory the kernel holds for it.
    pub(super) fn bytes(&self) -> usize {
        self.length * size_of::<u64>()
    }

    /// All words.
    pub(super) fn get(&self) -> &[u64] {
        // SAFETY: `length` words are mapped as long as this lives. Another process may store to them: each word is stored
        // whole, and what such a race can give is one word or the other, which readers of a live set must bear anyway.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// All words, to write what nobody reads yet. Nothing at all where the memory may only be read.
    pub(super) fn get_mut(&mut self) -> &mut [u64] {
        let length = if self.writable { self.length } else { 0 };
        // SAFETY: as for `get`; `&mut self` makes it the only one in this process, and it is mapped for writing.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), length) }
    }

    /// Stores one word, after everything that was written before: whoever sees it sees that too.
    pub(super) fn publish(&mut self, index: usize, word: u64) {
        if let Some(place) = self.get_mut().get_mut(index) {
            // SAFETY: a live, aligned word.
            unsafe { AtomicU64::from_ptr(place) }.store(word, Ordering::Release);
        }
    }
}

impl Quads for Words {
    fn quad(&self, index: u32) -> Option<&Quad> {
        self.get().as_chunks().0.get(index as usize)
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this length; no slice of it outlives this value.
        let done = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length * size_of::<u64>()) };
        if done != 0 {
            log::warn!("cannot unmap a deny set: {}", io::Error::last_os_error());
        }
    }
}
