//! The running daemon starts the executable that lies in its own's place now, which then takes over.
//!
//! Holds the start and the wait for the outcome. How a place is taken is `take`'s and `give`'s.

use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tracing::info;

use super::super::daemon::Daemon;
use super::STAND;
use super::process::Process;
use crate::control::{Refusal, api};

/// How often the new process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Starts it, and waits until it stands in this one's place or has ended. Blocks: not for an async task.
pub(in super::super) fn upgrade(daemon: &Arc<Daemon>) -> Result<api::Upgraded, Refusal> {
    let begun = Instant::now();
    let program =
        daemon.program.as_ref().map_err(|error| Refusal::Failed(format!("where this executable lies: {error}")))?;
    let pid = start(daemon, program)
        .map_err(|error| Refusal::Failed(format!("{} cannot be started: {error}", program.display())))?;
    info!("{} was started as process {pid} to take over", program.display());
    let process = match Process::open(pid) {
        Ok(process) => Some(process),
        // It has ended already.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => None,
        Err(error) => return Err(Refusal::Failed(format!("process {pid} cannot be looked at: {error}"))),
    };
    while !daemon.retired.is_cancelled() {
        if process.as_ref().is_none_or(|process| process.ends_within(LOOK)) && !daemon.retired.is_cancelled() {
            return Err(Refusal::Failed(format!(
                "process {pid} ended and did not take over, this one goes on; what was wrong stands in the log"
            )));
        }
        if begun.elapsed() > STAND {
            // It may stand yet; then it says so itself.
            return Err(Refusal::Failed(format!(
                "process {pid} does not stand after {} s: see the log",
                STAND.as_secs()
            )));
        }
    }
    Ok(api::Upgraded { pid: pid.as_raw_nonzero().get().cast_unsigned(), seconds: begun.elapsed().as_secs_f64() })
}

/// Starts it as an orphan, so as the service manager's child: should it break while the old daemon still has sessions, the manager
/// hears of that at once. A child of the old daemon's is the manager's business only after that has ended.
fn start(daemon: &Daemon, program: &Path) -> io::Result<Pid> {
    let mut command = Command::new(program);
    command.args(["run", "--take-over"]);
    if let Some(file) = &daemon.origin.file {
        command.arg("--config").arg(file);
    }
    for interface in &daemon.origin.overrides.interfaces {
        command.arg("--interface").arg(interface.to_string());
    }
    // These name the process that systemd started; the new one is the service soon, and is given its sockets by this one.
    for name in ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        command.env_remove(name);
    }
    let (mut told, tell) = io::pipe()?;
    // SAFETY: `leave_behind` only makes system calls, as has to be between fork and exec.
    unsafe { command.pre_exec(move || leave_behind(&tell)) };
    // When this returns the program is executed.
    let mut forked = command.spawn()?;
    // It holds an end of the pipe: with that open, one that dies without a word would be waited for for ever.
    drop(command);
    forked.wait()?;
    let mut pid = [0; 4];
    told.read_exact(&mut pid)?;
    Pid::from_raw(i32::from_ne_bytes(pid)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Goes on as a child of its own, which says who it is; the parent ends.
fn leave_behind(mut tell: &PipeWriter) -> io::Result<()> {
    // SAFETY: this process has just been forked, and its one thread holds nothing.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => tell.write_all(&std::process::id().to_ne_bytes()),
        // SAFETY: ends the process without running anything of it.
        _ => unsafe { libc::_exit(0) },
    }
}
