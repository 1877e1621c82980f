//! The running daemon starts the executable that lies in its own's place now, which then takes over.
//!
//! Holds the start and the wait for the outcome. How a place is taken is `take`'s and `give`'s.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use super::super::daemon::Daemon;
use super::STAND;
use crate::control::{Refusal, api};

/// How often the new process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Starts it, and waits until it stands in this one's place or has ended. Blocks: not for an async task.
pub(in super::super) fn upgrade(daemon: &Arc<Daemon>) -> Result<api::Upgraded, Refusal> {
    let begun = Instant::now();
    let program =
        daemon.program.as_ref().map_err(|error| Refusal::Failed(format!("where this executable lies: {error}")))?;
    let mut child = start(daemon, program)
        .map_err(|error| Refusal::Failed(format!("{} cannot be started: {error}", program.display())))?;
    let pid = child.id();
    info!("{} was started as process {pid} to take over", program.display());
    while !daemon.retired.is_cancelled() {
        match child.try_wait() {
            Ok(Some(status)) => {
                return Err(Refusal::Failed(format!(
                    "process {pid} ended ({status}) and did not take over, this one goes on; what was wrong stands in the log"
                )));
            }
            Ok(None) if begun.elapsed() > STAND => {
                // It may stand yet; then it says so itself.
                return Err(Refusal::Failed(format!(
                    "process {pid} does not stand after {} s: see the log",
                    STAND.as_secs()
                )));
            }
            Ok(None) => std::thread::sleep(LOOK),
            Err(error) => return Err(Refusal::Failed(format!("process {pid} cannot be looked at: {error}"))),
        }
    }
    Ok(api::Upgraded { pid, seconds: begun.elapsed().as_secs_f64() })
}

fn start(daemon: &Daemon, program: &PathBuf) -> std::io::Result<Child> {
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
    command.spawn()
}
