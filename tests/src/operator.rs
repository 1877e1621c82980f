//! Whoever installs Screener on a host: packages and tarballs of the executable under test, and the daemon as it is installed.
//!
//! The packages are what `cargo xtask dist` makes. Another build is the same executable with other bytes at its end, or a script that
//! stands for one that is no good.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cell;
use crate::cli::finish;
use crate::host::Host;
use crate::proc::{Proc, run};
use crate::screener::executable;
use crate::wait::until_or_show;

/// How long packing and installing may take.
const LIMIT: Duration = Duration::from_secs(100);
const SOON: Duration = Duration::from_secs(20);

/// xtask, as cargo built it beside the daemon.
///
/// # Errors
/// When it is not built.
pub fn xtask() -> Result<PathBuf> {
    let xtask = executable()?.with_file_name("xtask");
    ensure!(xtask.exists(), "{} is not built: run `cargo build -p xtask`, or `cargo xtask test`", xtask.display());
    Ok(xtask)
}

/// What `cargo xtask dist` makes of an executable, in a directory of its own.
///
/// # Errors
/// When it fails.
pub fn dist(name: &str, binary: &Path) -> Result<Built> {
    let place = cell::directory(name)?;
    let mut dist = Command::new(xtask()?);
    tell(dist.arg("dist").arg("--binary").arg(binary).arg("--out").arg(&place))?;
    let with = |end: &str| -> Result<PathBuf> {
        let mut files = fs::read_dir(&place)?.filter_map(|file| Some(file.ok()?.path()));
        files.find(|file| file.display().to_string().ends_with(end)).with_context(|| format!("no {end}"))
    };
    Ok(Built { package: with(".deb")?, tarball: with(".tar.gz")? })
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Built {
    /// For dpkg.
    pub package: PathBuf,
    /// For everybody else.
    pub tarball: PathBuf,
}

impl Built {
    /// The package with another executable and a higher version.
    ///
    /// # Errors
    /// When it cannot be packed.
    pub fn package_with(&self, number: u32, executable: &[u8]) -> Result<PathBuf> {
        let tree = cell::directory(&format!("package-{number}"))?;
        tell(Command::new("dpkg-deb").arg("-R").arg(&self.package).arg(&tree))?;
        fs::write(tree.join("usr/sbin/screener"), executable)?;
        let control = tree.join("DEBIAN/control");
        let text = fs::read_to_string(&control)?;
        let version = text.lines().find(|line| line.starts_with("Version: ")).context("a version")?;
        fs::write(&control, text.replace(version, &format!("{version}.{number}")))?;
        let package = tree.with_extension("deb");
        tell(Command::new("dpkg-deb").args(["-Znone", "--root-owner-group", "-b"]).arg(&tree).arg(&package))?;
        Ok(package)
    }

    /// The tarball with another executable.
    ///
    /// # Errors
    /// When it cannot be packed.
    pub fn tarball_with(&self, number: u32, executable: &[u8]) -> Result<PathBuf> {
        let tree = cell::directory(&format!("tarball-{number}"))?;
        tell(Command::new("tar").arg("-C").arg(&tree).args(["--strip-components=1", "-xzf"]).arg(&self.tarball))?;
        fs::write(tree.join("usr/sbin/screener"), executable)?;
        let tarball = tree.with_extension("tar.gz");
        let mut tar = Command::new("tar");
        tell(
            tar.args(["-I", "gzip -1", "-cf"]).arg(&tarball).arg("-C").arg(cell::ROOM).arg(format!("tarball-{number}")),
        )?;
        Ok(tarball)
    }
}

/// Another build that is as good as the first.
///
/// # Errors
/// When the executable cannot be read.
pub fn as_good(number: u32) -> Result<Vec<u8>> {
    let mut bytes = fs::read(executable()?)?;
    // Behind the end of what is loaded.
    bytes.extend_from_slice(format!("another build, {number}").as_bytes());
    Ok(bytes)
}

/// Another build that answers every question and does not stand.
///
/// # Errors
/// When there is no executable that could answer.
pub fn cannot_stand() -> Result<Vec<u8>> {
    let script = "#!/bin/sh\n[ \"$1\" != run ] || { echo 'no, not here' >&2; exit 3; }\n";
    Ok(format!("{script}exec {} \"$@\"\n", executable()?.display()).into_bytes())
}

/// Another build that stands, and is then sent a signal: it dies, or hangs.
///
/// # Errors
/// When there is no executable that could stand.
pub fn stands_until(signal: &str) -> Result<Vec<u8>> {
    let real = executable()?.display().to_string();
    let answers = format!("{real} status --json 2>/dev/null | grep -q \"\\\"pid\\\": $$,\"");
    let wait = format!("until {answers}; do sleep 0.1; done; kill -{signal} $$");
    Ok(format!("#!/bin/sh\n[ \"$1\" != run ] || {{ {wait}; }} &\nexec {real} \"$@\"\n").into_bytes())
}

/// The database of packages of a host, empty but for what Screener depends on, of this system's versions.
///
/// # Errors
/// When this is no system of dpkg's.
pub fn package_database(host: &Host) -> Result<()> {
    let known = run(Command::new("dpkg-query").args(["-s", "libc6", "libgcc-s1", "passwd"]), LIMIT)?;
    ensure!(known.status.success(), "dpkg-query: {}", String::from_utf8_lossy(&known.stderr));
    host.write("/var/lib/dpkg/status", &(String::from_utf8_lossy(&known.stdout).into_owned() + "\n"))?;
    for directory in ["info", "updates", "triggers"] {
        fs::create_dir_all(host.path(&format!("/var/lib/dpkg/{directory}")))?;
    }
    // Directories that others have too: dpkg leaves them.
    host.write("/var/lib/dpkg/info/passwd.list", "/.\n/etc\n/usr\n/usr/lib\n/usr/sbin\n/usr/share\n/usr/share/doc\n")
}

/// Runs dpkg on a host: its exit code, and what it and the package's scripts said.
///
/// # Errors
/// When it cannot be run.
pub fn dpkg(host: &Host, arguments: &[&str]) -> Result<(i32, String)> {
    finish(host, host.command("dpkg").env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
}

/// A stand-in for systemd, which would be process 1: it starts and stops the daemon, and writes down what it was told.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "$*" >>/run/systemctl.log
pid() { /usr/sbin/screener status --json 2>/dev/null | sed -n 's/^  "pid": \([0-9]*\),*$/\1/p'; }
case $1 in
    is-active) [ -n "$(pid)" ] ;;
    start | restart)
        [ -z "$(pid)" ] || exit 0
        setsid -f /usr/sbin/screener run </dev/null >>/var/log/screener.log 2>&1 9>&-
        for _ in 1 2 3 4 5 6 7 8; do
            [ -z "$(pid)" ] || exit 0
            sleep 1
        done
        exit 1
        ;;
    stop)
        was=$(pid)
        [ -n "$was" ] || exit 0
        kill "$was"
        while [ -d "/proc/$was" ]; do sleep 0.2; done
        ;;
esac
"#;

/// Has the scripts on a host find systemd, as far as they use it; its `/usr` is its own. [`told_systemd`] is what they said to it.
///
/// # Errors
/// When it cannot be written.
pub fn stand_in_for_systemd(host: &Host) -> Result<()> {
    fs::create_dir_all(host.path("/run/systemd/system"))?;
    host.write("/usr/bin/systemctl", SYSTEMCTL)?;
    Ok(fs::set_permissions(host.path("/usr/bin/systemctl"), fs::Permissions::from_mode(0o755))?)
}

/// What systemd was told, a line each.
#[must_use]
pub fn told_systemd(host: &Host) -> String {
    host.read("/run/systemctl.log").unwrap_or_default()
}

/// Starts the installed daemon, as a supervisor does; it answers when this returns.
///
/// # Errors
/// When it does not.
pub fn start(host: &Host) -> Result<Proc> {
    let daemon = host.spawn(host.command("/usr/sbin/screener").arg("run"))?;
    until_or_show("the daemon to answer", SOON, || daemon.log(), || Ok(status(host).ok().map(drop)))?;
    Ok(daemon)
}

/// What the installed command says of the daemon.
///
/// # Errors
/// When none answers.
pub fn status(host: &Host) -> Result<Value> {
    Ok(serde_json::from_str(&host.ask("/usr/sbin/screener", &["status", "--json"])?)?)
}

/// The daemon's process.
///
/// # Errors
/// When none answers.
pub fn pid(host: &Host) -> Result<u32> {
    let status = status(host)?;
    u32::try_from(status["pid"].as_u64().context("no pid")?).context("a pid")
}

/// Whether a process runs what is installed.
///
/// # Errors
/// When there is no such process.
pub fn runs_what_is_installed(host: &Host, pid: u32) -> Result<bool> {
    let same = host.run(host.command("test").args([&format!("/proc/{pid}/exe"), "-ef", "/usr/sbin/screener"]))?;
    Ok(same.status.success())
}

fn tell(command: &mut Command) -> Result<()> {
    let output = run(command, LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {said}", output.status);
    Ok(())
}
