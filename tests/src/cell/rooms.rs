//! The mounts of a cell, made from inside.
//!
//! Never touches a mount that anything outside can see: propagation was cut before this program began ([`super::root`]).

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount, mount_remount};

use crate::cell::ROOM;

/// Gives the cell its private places and makes the rest of the file system read-only.
pub(super) fn furnish() -> Result<()> {
    fresh("proc", "/proc", None)?;
    system("/sys")?;
    fresh("tmpfs", ROOM, Some("mode=0755"))?;
    fresh("tmpfs", "/run", Some("mode=0755"))?;
    if Path::new("/dev/shm").is_dir() {
        fresh("tmpfs", "/dev/shm", Some("mode=1777"))?;
    }
    // An executable that was built below /tmp must stay in reach.
    if !env::current_exe().is_ok_and(|program| program.starts_with("/tmp")) {
        fresh("tmpfs", "/tmp", Some("mode=1777"))?;
    }
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, "").context("making / read-only inside the cell")?;
    rustix::system::sethostname(b"cell").context("the cell's host name")?;
    run("ip", &["link", "set", "lo", "up"])
}

/// Mounts a fresh sysfs, which shows the interfaces of the caller's network namespace, and an empty bpffs in it.
pub(crate) fn system(target: &str) -> Result<()> {
    fresh("sysfs", target, None)?;
    fresh("bpf", &format!("{target}/fs/bpf"), Some("mode=0700"))
}

fn fresh(kind: &str, target: &str, options: Option<&str>) -> Result<()> {
    let options = options.map(std::ffi::CString::new).transpose().context("mount options")?;
    mount(kind, target, kind, MountFlags::empty(), options.as_deref())
        .with_context(|| format!("mounting a fresh {kind} on {target}"))
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Makes a directory of the cell's own, below [`ROOM`].
pub(crate) fn directory(name: &str) -> Result<std::path::PathBuf> {
    let path = Path::new(ROOM).join(name);
    fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}
