//! Mail software whose packages exclude each other, as every MTA's do: `cargo xtask setup` unpacks it in `target/tools`
//! instead of installing it, and a host gets it laid over its `/usr`.
//!
//! On that host everything is where its package has it, so a program finds its helpers, its libraries and itself. No
//! other host sees it. Never runs what a package does when it is installed: users and directories are the caller's.
//!
//! Or a host gets a `/usr` that it can write to, to have something installed for once.

use std::env;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};

use crate::cell;
use crate::host::Host;

/// Lays the software of a tree in `target/tools` over the `/usr` of a host; once a host, for one mount hides another.
///
/// # Errors
/// When it has not been unpacked, or when the kernel has no overlayfs.
pub fn lay(host: &Host, name: &str) -> Result<()> {
    overlay(host, &unpacked(name)?, "", MountFlags::RDONLY)
}

/// Gives a host a `/usr` of its own to write to, which begins as everybody's with, perhaps, the software of a tree; once a host.
///
/// # Errors
/// As [`lay`].
pub fn lay_writable(host: &Host, name: Option<&str>) -> Result<()> {
    let places = cell::directory(&format!("hosts/{}/usr", host.name()))?;
    let (upper, work) = (places.join("upper"), places.join("work"));
    for directory in [&upper, &work] {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let options = format!(",upperdir={},workdir={}", upper.display(), work.display());
    let lower = name.map(unpacked).transpose()?.unwrap_or_default();
    overlay(host, &lower, &options, MountFlags::empty())
}

/// The `/usr` of a tree.
fn unpacked(name: &str) -> Result<PathBuf> {
    let usr = tree(name)?.join("usr");
    ensure!(
        usr.is_dir(),
        "{} is not there: run `cargo xtask setup`, which unpacks what cannot be installed beside Postfix",
        usr.display()
    );
    Ok(usr)
}

/// Mounts a directory, if it is one, over the `/usr` of a host.
fn overlay(host: &Host, over: &Path, options: &str, flags: MountFlags) -> Result<()> {
    let shown = over.display().to_string();
    ensure!(!shown.contains([':', ',', '\\']), "{shown}: overlayfs takes no path with a colon, comma or backslash");
    let lower = if shown.is_empty() { "/usr".to_owned() } else { format!("{shown}:/usr") };
    let options = CString::new(format!("lowerdir={lower}{options}"))?;
    host.inside(|| {
        mount("overlay", "/usr", "overlay", flags, options.as_c_str())
            .with_context(|| format!("laying {shown} over /usr of host {}: has this kernel overlayfs?", host.name()))
    })
}

/// Where the tree of a name is, or would be: below the directory that cargo builds in.
pub(crate) fn tree(name: &str) -> Result<PathBuf> {
    let this = env::current_exe().context("the path of this executable")?;
    let tools = this.ancestors().map(|place| place.join("tools")).find(|place| place.is_dir());
    let tools = tools.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools"));
    Ok(tools.join(name))
}
