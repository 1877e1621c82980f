//! Debian's packages: installed without a question, without starting a service and without removing a package.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Once;

use anyhow::{Context, Result, bail, ensure};

use crate::process;

/// Answers to questions that a package would ask: Postfix is configured by each test, never for this host.
const ANSWERS: [(&str, &str); 1] = [("postfix", "postfix postfix/main_mailer_type select No configuration")];

/// Units that a package switches on for the next boot and that would then serve strangers: rbldnsd's socket binds port
/// 53 of every address, haproxy listens wherever somebody's configuration says, Redis and its Sentinel on loopback. (Postfix without a configuration stays
/// down by itself.)
const UNITS: [(&str, &str); 4] = [
    ("rbldnsd", "rbldnsd.socket"),
    ("haproxy", "haproxy.service"),
    ("redis-server", "redis-server.service"),
    ("redis-sentinel", "redis-sentinel.service"),
];

/// Set in the environment of our installs; the policy below holds for these alone.
const MARK: &str = "SCREENER_SETUP";

/// Debian's hook that says which services may start; nothing else keeps systemd's and the init scripts' from it.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// It holds only within our installs, so another one at the same time starts its services, and a file left behind
/// by a power failure does nothing.
const POLICY_TEXT: &str = "\
#!/bin/sh
# Written by Screener's `cargo xtask setup`, which removes it when it is done.
[ -z \"$SCREENER_SETUP\" ] || exit 101
exit 0
";

/// Whether this is a system of apt's.
pub(super) fn is_here() -> bool {
    process::is_installed("apt-get") && process::is_installed("dpkg")
}

/// The version of a package that would be installed, or none where the release does not have it; by the lists of packages
/// as they are.
pub(super) fn candidate(package: &str) -> Result<Option<String>> {
    let policy = process::ask(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))?;
    Ok(parse_candidate(&policy))
}

/// The packages that installing these would remove.
pub(super) fn would_remove(packages: &[&str]) -> Result<Vec<String>> {
    let simulation = process::ask(get().args(["-s", "install"]).args(packages).env("LC_ALL", "C"))?;
    Ok(parse_removed(&simulation))
}

/// The packages that installing these would bring, each as `name=version`: they and what they need.
pub(super) fn would_install(packages: &[&str]) -> Result<Vec<String>> {
    let simulation = process::ask(get().args(["-s", "install"]).args(packages).env("LC_ALL", "C"))?;
    Ok(parse_installed(&simulation))
}

/// Installs packages.
///
/// # Errors
/// When this is not root, when another package would have to go, or when apt fails.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if !process::is_root() {
        let xtask = env::current_exe().context("cannot tell where xtask itself is")?;
        bail!(
            "missing packages: {names}. Installing them needs root. Run\n    sudo {} setup --packages\nand then this again",
            xtask.display()
        );
    }
    refresh()?;
    let removed = would_remove(packages)?;
    ensure!(
        removed.is_empty(),
        "installing {names} would remove {removed}, and setup never removes a package. If this machine can do without, run\n    \
         apt-get remove {removed_words}\nand then this again; else work in a container or on another machine",
        removed = removed.join(", "),
        removed_words = removed.join(" ")
    );
    for (_, answer) in ANSWERS.iter().filter(|(package, _)| packages.contains(package)) {
        preseed(answer)?;
    }
    let policy = Policy::put()?;
    let installed = process::run(
        get()
            .args(["-y", "install"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env(MARK, "1")
            // Ubuntu restarts the services that use an upgraded library, unless told not to.
            .env("NEEDRESTART_SUSPEND", "1")
            .stdin(Stdio::null()),
    );
    drop(policy);
    installed.with_context(|| format!("apt cannot install {names}"))?;
    for (_, unit) in UNITS.iter().filter(|(package, _)| packages.contains(package)) {
        switch_off(unit)?;
    }
    Ok(())
}

/// Where this system gets Debian from: the archives as its administrator has named them, or mirrors of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Archives {
    pub(crate) main: String,
    pub(crate) security: Option<String>,
}

/// The archives of Debian that this system has among its sources, of whatever release.
///
/// # Errors
/// When this is not a Debian.
pub(crate) fn debian_archives() -> Result<Archives> {
    let ask = || {
        let format = ["--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"];
        process::ask(Command::new("apt-get").arg("indextargets").args(format).env("LC_ALL", "C"))
    };
    // Before its lists are fetched a source has no label.
    let found = parse_archives(&ask()?);
    if let Some(archives) = found {
        return Ok(archives);
    }
    refresh()?;
    parse_archives(&ask()?).context("among this system's sources of packages there is no archive of Debian's")
}

/// apt-get as it is used here: it waits for another apt's lock and keeps the administrator's configuration files.
fn get() -> Command {
    let mut get = Command::new("apt-get");
    get.args(["--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]).args([
        "-o",
        "Dpkg::Options::=--force-confdef",
        "-o",
        "Dpkg::Options::=--force-confold",
    ]);
    get
}

/// Fetches the lists of packages, once, if this is root. A new machine may have none, or the ones of its installation
/// medium, in which the security archive's newer compiler is missing.
pub(super) fn refresh() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    if !process::is_root() {
        return result;
    }
    ONCE.call_once(|| result = process::run(Command::new("apt-get").arg("update")));
    result.context("apt cannot fetch its lists of packages")
}

/// Tells debconf an answer in advance.
fn preseed(answer: &str) -> Result<()> {
    eprintln!("+ echo '{answer}' | debconf-set-selections");
    let mut debconf = Command::new("debconf-set-selections")
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start debconf-set-selections")?;
    let mut stdin = debconf.stdin.take().context("debconf-set-selections has no input")?;
    writeln!(stdin, "{answer}").context("debconf-set-selections does not listen")?;
    drop(stdin);
    let status = debconf.wait().context("cannot wait for debconf-set-selections")?;
    ensure!(status.success(), "debconf-set-selections: {status}");
    Ok(())
}

/// Keeps a unit that was just installed from starting at the next boot.
fn switch_off(unit: &str) -> Result<()> {
    let exists = ["/lib/systemd/system", "/usr/lib/systemd/system"]
        .iter()
        .any(|directory| Path::new(directory).join(unit).exists());
    if exists && process::is_installed("systemctl") {
        process::run(Command::new("systemctl").args(["disable", unit]))?;
    }
    Ok(())
}

/// The policy that no service starts, while it lives. A policy of the administrator's is left as it is.
struct Policy {
    is_ours: bool,
}

impl Policy {
    fn put() -> Result<Self> {
        let is_ours = fs::read_to_string(POLICY).map_or(!Path::new(POLICY).exists(), |text| text == POLICY_TEXT);
        if is_ours {
            eprintln!("+ install -m 755 /dev/stdin {POLICY}    # no service starts while this installs");
            fs::write(POLICY, POLICY_TEXT)
                .and_then(|()| fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)))
                .with_context(|| format!("cannot write {POLICY}"))?;
        }
        Ok(Self { is_ours })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.is_ours {
            eprintln!("+ rm {POLICY}");
            if let Err(error) = fs::remove_file(POLICY) {
                eprintln!("setup: cannot remove {POLICY}: {error}; it does nothing any more, remove it when you like");
            }
        }
    }
}

/// Reads labels and addresses.
fn parse_archives(targets: &str) -> Option<Archives> {
    let labelled = |label: &str| {
        let uri = |line: &str| Some(line.strip_prefix(label)?.strip_prefix(' ')?.to_owned());
        targets.lines().find_map(uri)
    };
    Some(Archives { main: labelled("Debian")?, security: labelled("Debian-Security") })
}

/// Reads `apt-cache policy`.
fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Reads `apt-get -s install`.
fn parse_removed(simulation: &str) -> Vec<String> {
    let removals = simulation.lines().filter_map(|line| line.strip_prefix("Remv "));
    removals.filter_map(|rest| Some(rest.split_whitespace().next()?.to_owned())).collect()
}

/// Reads `apt-get -s install`: `Inst name [version that is there] (version to come archive [architecture])`.
fn parse_installed(simulation: &str) -> Vec<String> {
    let installed = |line: &str| {
        let rest = line.strip_prefix("Inst ")?;
        let (name, rest) = rest.split_once(' ')?;
        let version = rest.split_once('(')?.1.split_whitespace().next()?;
        Some(format!("{name}={version}"))
    };
    simulation.lines().filter_map(installed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_a_candidate_is_not_there() {
        let known = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(parse_candidate(known).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn a_simulation_names_what_would_be_removed() {
        let simulation = "The following packages will be REMOVED:\n  exim4-base exim4-daemon-light\n\
                          Remv exim4-daemon-light [4.96-15+deb12u10] [exim4-base:amd64 ]\n\
                          Remv exim4-base [4.96-15+deb12u10]\n\
                          Inst postfix (3.7.11-0+deb12u1 Debian:12.15/oldstable [amd64])\n\
                          Conf postfix (3.7.11-0+deb12u1 Debian:12.15/oldstable [amd64])\n";
        assert_eq!(parse_removed(simulation), ["exim4-daemon-light", "exim4-base"]);
    }

    #[test]
    fn a_simulation_names_what_would_be_installed_with_its_version() {
        let simulation = "Remv qemu-utils [1:10.0.2+ds-2]\n\
                          Inst libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n\
                          Inst qemu-system-common [1:10.0.2] (1:7.2+dfsg-7+deb12u18+b3 Debian:12.15/oldstable [amd64])\n\
                          Conf libfdt1 (1.6.1-4+b1 Debian:12.15/oldstable [amd64])\n";
        assert_eq!(parse_installed(simulation), ["libfdt1=1.6.1-4+b1", "qemu-system-common=1:7.2+dfsg-7+deb12u18+b3"]);
    }

    #[test]
    fn a_simulation_that_only_installs_removes_nothing() {
        let simulation = "Inst rbldnsd (1.0~20210120-2 Debian:12.15/oldstable [amd64])\n";
        assert!(parse_removed(simulation).is_empty());
    }

    #[test]
    fn an_archive_is_known_by_its_label_and_not_by_its_address() {
        let targets = "Node Source https://one.example/node\nDebian http://two.example/d/\n\
                       Debian http://two.example/d/\nDebian-Security http://three.example/s/\n";
        let archives = parse_archives(targets).unwrap();
        assert_eq!(archives.main, "http://two.example/d/");
        assert_eq!(archives.security.as_deref(), Some("http://three.example/s/"));
        assert_eq!(parse_archives("Ubuntu http://four.example/ubuntu/\n http://five.example/\n"), None);
    }

    #[test]
    fn the_policy_holds_within_our_installs_only() {
        assert!(POLICY_TEXT.contains(MARK));
    }
}
