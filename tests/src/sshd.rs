//! OpenSSH between two hosts of the lab: a server that takes one key, and a host that has it.
//!
//! The server is unpacked where it is not installed (see [`crate::software`]); its host has a `/usr` to install something in.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::host::{Host, User};
use crate::net::Family;
use crate::proc::Proc;
use crate::software;
use crate::wait::until_or_show;

const SOON: Duration = Duration::from_secs(15);
const PROGRAM: &str = "/usr/sbin/sshd";
/// Where the administrator's key is.
const KEY: &str = "/etc/ssh/lab_key";
/// The user that the server becomes before it knows who comes.
const SSHD: User = User { name: "sshd", id: 64, home: "/run/sshd" };

const SERVER: &str = "\
HostKey /etc/ssh/lab_host_key
AuthorizedKeysFile /etc/ssh/lab_keys
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
";

/// A server.
#[derive(Debug)]
pub struct Sshd(Proc);

impl Sshd {
    /// Starts one on a host, for root from another host; `ssh root@ADDRESS` works there when this returns.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(host: &Host, administrator: &Host) -> Result<Self> {
        // `cargo xtask setup` unpacks it where it is not installed.
        let is_installed = Path::new(PROGRAM).exists();
        software::lay_writable(host, (!is_installed).then_some("openssh"))?;
        host.add_user(&SSHD)?;
        fs::create_dir_all(host.path("/run/sshd"))?;
        let key = |on: &Host, file: &str| on.ask("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", file]);
        for place in [host, administrator] {
            fs::create_dir_all(place.path("/etc/ssh"))?;
        }
        key(host, "/etc/ssh/lab_host_key")?;
        key(administrator, KEY)?;
        host.write("/etc/ssh/lab_keys", &administrator.read(&format!("{KEY}.pub"))?)?;
        host.write("/etc/ssh/lab_config", SERVER)?;
        // A locked account would not do.
        let others = host.read("/etc/shadow")?;
        let others = others.lines().filter(|line| !line.starts_with("root:"));
        let shadow: String = others.map(|line| format!("{line}\n")).collect();
        host.write("/etc/shadow", &format!("root:*:19000:0:99999:7:::\n{shadow}"))?;
        fs::set_permissions(host.path("/etc/shadow"), fs::Permissions::from_mode(0o600))?;
        administrator.write(
            "/etc/ssh/ssh_config",
            &format!("IdentityFile {KEY}\nUserKnownHostsFile /dev/null\nStrictHostKeyChecking no\nLogLevel ERROR\n"),
        )?;
        let server = host.spawn(host.command(PROGRAM).args(["-D", "-e", "-f", "/etc/ssh/lab_config"]))?;
        let sshd = Self(server);
        let there = format!("root@{}", host.address(Family::V4)?);
        let reached = || {
            let tried =
                administrator.run(administrator.command("ssh").args(["-o", "BatchMode=yes", &there, "true"]))?;
            Ok(tried.status.success().then_some(()))
        };
        until_or_show("ssh to reach the host", SOON, || sshd.0.log(), reached)?;
        Ok(sshd)
    }

    /// Breaks every connection that there is, and takes new ones: the processes that serve one.
    ///
    /// # Errors
    /// When there is none.
    pub fn break_connections(&self) -> Result<()> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.0.id()))?;
        let mut broken = 0;
        for child in children.split_whitespace() {
            let child = rustix::process::Pid::from_raw(child.parse().context("a process")?).context("a process")?;
            match rustix::process::kill_process(child, rustix::process::Signal::KILL) {
                // That connection has ended meanwhile.
                Err(rustix::io::Errno::SRCH) => {}
                killed => {
                    killed?;
                    broken += 1;
                }
            }
        }
        anyhow::ensure!(broken > 0, "there was no connection to break");
        Ok(())
    }
}
