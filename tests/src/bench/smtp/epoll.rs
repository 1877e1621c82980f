//! epoll(7), as far as one thread needs it to watch over thousands of sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

/// How many events one look brings.
const EVENTS: usize = 512;

/// A set of watched descriptors, each with a number.
#[derive(Debug)]
pub(super) struct Epoll(OwnedFd);

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Watches a descriptor for input, until it is closed.
    pub(super) fn add(&self, watched: impl AsFd, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: number };
        let (own, watched) = (self.0.as_raw_fd(), watched.as_fd().as_raw_fd());
        // SAFETY: both descriptors are open, and the event lives until after the call.
        let done = unsafe { libc::epoll_ctl(own, libc::EPOLL_CTL_ADD, watched, &raw mut event) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits until something is ready, and gives the numbers; none when the time is over.
    pub(super) fn wait(&self, limit: Duration) -> io::Result<Vec<u64>> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the array has room for as many events as are asked for.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, limit) };
        match usize::try_from(count) {
            Ok(count) => Ok(events.iter().take(count).map(|event| event.u64).collect()),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}
