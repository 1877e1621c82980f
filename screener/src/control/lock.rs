//! One daemon a control socket: a lock on a file beside it, which the kernel releases when the daemon dies, however.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// The lock, for as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// A copy: the lock is held as long as one lives.
    pub(super) fn copy(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// `None`: another process holds it.
    pub(super) fn take(socket: &Path) -> io::Result<Option<Self>> {
        let path = socket.with_added_extension("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Of a lock that another process gave.
impl From<OwnedFd> for Lock {
    fn from(copy: OwnedFd) -> Self {
        Self { file: copy.into() }
    }
}
