//! A process that this one has not started, or not as its child: whether it is there, by a handle that never means another one.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The process.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    handle: OwnedFd,
}

impl Process {
    /// # Errors
    /// When there is none.
    pub(super) fn open(pid: Pid) -> io::Result<Self> {
        Ok(Self { pid, handle: pidfd_open(pid, PidfdFlags::empty())? })
    }

    pub(super) fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Waits for its end, for so long.
    pub(super) fn ends_within(&self, time: Duration) -> bool {
        let mut ends = [PollFd::new(&self.handle, PollFlags::IN)];
        // A signal of this process's own makes the wait shorter; whoever needs it whole asks again.
        Timespec::try_from(time).is_ok_and(|time| poll(&mut ends, Some(&time)).is_ok_and(|ended| ended > 0))
    }

    /// Ends it.
    ///
    /// # Errors
    /// When that is not allowed, or it has ended.
    pub(super) fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.handle, Signal::KILL)?)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_there_until_it_is_killed() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(Pid::from_child(&child)).unwrap();
        assert_eq!(process.id(), child.id());
        assert!(!process.ends_within(Duration::from_millis(1)));
        process.kill().unwrap();
        assert!(process.ends_within(Duration::from_secs(10)), "though nobody has waited for it");
        child.wait().unwrap();
        assert!(Process::open(process.pid).is_err());
    }
}
