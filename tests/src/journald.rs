//! A real journal on a host: systemd-journald, without systemd before it.
//!
//! Its files are the host's own. Reads as journalctl does.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};
use serde_json::Value;

use crate::host::Host;
use crate::proc::Proc;
use crate::wait::until_or_show;

const START: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(10);
/// Where it takes entries.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// Where it takes standard outputs.
const STREAM: &str = "/run/systemd/journal/stdout";

/// Does what systemd does for a service: standard output and error are the journal's, and `JOURNAL_STREAM` says so. To be put
/// before the service's command line.
pub const UNDER_THE_JOURNAL: [&str; 3] = [
    "/usr/bin/python3",
    "-c",
    r#"
import os, socket, sys
stream = socket.socket(socket.AF_UNIX)
stream.connect("/run/systemd/journal/stdout")
stream.sendall(b"unit\nscreener.service\n6\n1\n0\n0\n0\n")
for descriptor in (1, 2):
    os.dup2(stream.fileno(), descriptor)
shown = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{shown.st_dev}:{shown.st_ino}"
os.execvp(sys.argv[1], sys.argv[1:])
"#,
];

/// The journal; it ends when this is dropped.
#[derive(Debug)]
pub struct Journald {
    host: Host,
    server: Proc,
}

impl Journald {
    /// Starts on a host; it takes entries when this returns.
    ///
    /// # Errors
    /// When systemd is not installed, or the journal does not start.
    pub fn start(host: &Host) -> Result<Self> {
        // Without one it does not know where to write.
        host.write("/etc/machine-id", "5c4ee4e24a4f4a5c8a3f6d2a48adfda4\n")?;
        host.write("/run/systemd/journal/.here", "")?;
        host.write("/run/log/journal/.here", "")?;
        // It wants to know to which unit a process belongs.
        host.inside(|| {
            mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MountFlags::RDONLY, None)
                .context("mounting the control groups")
        })?;
        let mut journal = Self { host: host.clone(), server: launch(host)? };
        journal.until_it_takes_entries()?;
        Ok(journal)
    }

    /// Ends it as a crash does, and starts it again.
    ///
    /// # Errors
    /// As [`Journald::start`].
    pub fn crash(&mut self) -> Result<()> {
        self.server.kill()?;
        for socket in [SOCKET, STREAM] {
            std::fs::remove_file(self.host.path(socket)).context("removing a socket of the journal that is gone")?;
        }
        self.server = launch(&self.host)?;
        self.until_it_takes_entries()
    }

    fn until_it_takes_entries(&mut self) -> Result<()> {
        let (host, server) = (&self.host, &mut self.server);
        let log = server.log_file().to_owned();
        let shown = || std::fs::read_to_string(&log).unwrap_or_default();
        until_or_show("the journal to take entries", START, shown, || {
            ensure!(server.ended()?.is_none(), "systemd-journald ended at its start:\n{}", shown());
            let taken = host.path(SOCKET).exists() && UnixStream::connect(host.path(STREAM)).is_ok();
            Ok(taken.then_some(()))
        })
    }

    /// Waits for an entry, and gives it.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let shown = || self.entries().map_or_else(|error| format!("{error:#}"), |all| format!("{all:#?}"));
        until_or_show(what, SOON, shown, || Ok(self.entries()?.into_iter().find(&wanted)))
    }

    fn entries(&self) -> Result<Vec<Value>> {
        let all = ["--directory", "/run/log/journal", "--output", "json", "--all", "--no-pager", "--quiet"];
        let text = self.host.ask("journalctl", &all)?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }
}

fn launch(host: &Host) -> Result<Proc> {
    let mut journald = host.command("/usr/lib/systemd/systemd-journald");
    // What it has to say of itself goes to the kernel's log otherwise.
    host.spawn(journald.env("SYSTEMD_LOG_TARGET", "console"))
}
