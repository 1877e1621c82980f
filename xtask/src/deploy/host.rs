//! A host to deploy to, this one or one that the system's ssh reaches, and the two commands that it takes: bring, install.

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::process;

/// Where the installation on a host writes what it does, and whoever comes back reads it.
pub(super) const LOG: &str = "/var/log/screener-install.log";

/// Where tarballs are unpacked, each deployment's in a directory of its own: two that come at once never mix. Whoever lost the
/// connection leaves one behind; the next one removes it.
const ROOMS: &str = "/var/tmp/screener-install";

/// Whoever installs holds it (`packaging/install.sh`).
const LOCK: &str = "/run/screener-install.lock";

/// What ssh answers when it was not the command that failed.
const LOST: i32 = 255;

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// This one.
    Here,
    /// What ssh takes for one.
    There(String),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The new version is in place, and serves if it was to.
    Done,
    /// It is not, and what served before serves.
    AsBefore,
    /// It is not, and the old version is not known to serve.
    Down,
    /// ssh lost the host.
    Unknown,
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.starts_with('-') || text.contains(char::is_whitespace) {
            return Err("is not a host as ssh takes it: mx1.example.com, or admin@mx1.example.com".to_owned());
        }
        Ok(Self::There(text.to_owned()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("this host"),
            Self::There(name) => f.write_str(name),
        }
    }
}

impl Host {
    /// Prints what would be done.
    pub(super) fn show(&self, tarball: &Path, arguments: &str) {
        let room = room();
        process::echo_with_input(&self.command(&bring(&room)), tarball);
        process::echo(&self.command(&install(&room, arguments)));
    }

    /// Brings the tarball, and installs what is in it.
    ///
    /// # Errors
    /// When it cannot be brought; then nothing was changed.
    pub(super) fn install(&self, tarball: &Path, arguments: &str) -> Result<Outcome> {
        let input = File::open(tarball).with_context(|| format!("cannot read {}", tarball.display()))?;
        let room = room();
        let mut bring = self.command(&bring(&room));
        process::echo_with_input(&bring, tarball);
        let brought = bring.stdin(input).status().context("cannot start what brings it")?;
        anyhow::ensure!(brought.success(), "{}", self.not_brought(brought.code()));
        let mut install = self.command(&install(&room, arguments));
        process::echo(&install);
        let status = install.stdin(Stdio::null()).status().context("cannot start what installs it")?;
        Ok(match status.code() {
            Some(0) => Outcome::Done,
            Some(1) => Outcome::AsBefore,
            // A signal, as by Ctrl-C, ends who looks on and not the installation.
            Some(LOST) | None => Outcome::Unknown,
            Some(_) => Outcome::Down,
        })
    }

    fn not_brought(&self, code: Option<i32>) -> String {
        let why = match (self, code) {
            (Self::There(name), Some(LOST)) => {
                format!("ssh does not reach it, or asks something: try `ssh -o BatchMode=yes {name} true`")
            }
            (Self::There(_), _) => {
                "it could not be unpacked there: is the user root, or has a sudo that asks nothing; is there room; is another at work there?"
                    .to_owned()
            }
            (Self::Here, _) => "it could not be unpacked: is there room; is another at work here?".to_owned(),
        };
        format!("{why}. Nothing was changed")
    }

    /// A command for a shell of root's on the host.
    fn command(&self, script: &str) -> Command {
        let Self::There(name) = self else {
            let mut shell = Command::new("sh");
            shell.args(["-c", script]);
            return shell;
        };
        let mut ssh = Command::new("ssh");
        // It asks nothing, and does not wait for ever for a host that has gone.
        for option in ["BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=5", "ServerAliveCountMax=3"] {
            ssh.args(["-o", option]);
        }
        let script = process::quoted(script.as_ref());
        ssh.arg("--").arg(name).arg(format!("$([ $(id -u) = 0 ] || echo sudo -n) sh -c {script}"));
        ssh
    }
}

/// A name that no other deployment has.
fn room() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{ROOMS}.{:x}-{:x}", now.as_micros(), std::process::id())
}

fn bring(room: &str) -> String {
    let unpack = format!("tar -C {room} --strip-components=1 --no-same-owner -xzf -");
    // What is half unpacked would only be in the way, on a full disk above all.
    format!(
        "umask 022 && exec 9>{LOCK} && flock -n 9 && rm -rf {ROOMS}* && mkdir {room} && {{ {unpack} || {{ rm -rf {room}; exit 1; }}; }}"
    )
}

/// Runs the installer out of the reach of whoever looks on, so that it goes on to its end when they go.
fn install(room: &str, arguments: &str) -> String {
    let gone = "install: another installation has begun meanwhile, and taken these files away";
    let install = format!("sh {room}/install.sh {arguments}; code=$?; rm -rf {room}; exit $code");
    format!(
        "[ -d {room} ] || {{ echo \"{gone}\"; exit 1; }}; true >{LOG} || exit 1; nohup setsid --wait sh -c {} >>{LOG} 2>&1 </dev/null & \
         tail -n +1 -f --pid=$! {LOG}; wait $!",
        process::quoted(install.as_ref())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_no_option_of_sshs() {
        assert_eq!("admin@mx1.example.com".parse(), Ok(Host::There("admin@mx1.example.com".to_owned())));
        for text in ["", "-oProxyCommand=reboot", "mx1 reboot"] {
            assert!(text.parse::<Host>().is_err(), "{text:?}");
        }
    }
}
