//! Mail software whose packages exclude each other, as every MTA's do: `cargo xtask setup` unpacks it in `target/tools`
//! instead of installing it, and a host gets it laid over its `/usr`.
//!
//! On that host everything is where its package has it, so a program finds its helpers, its libraries and itself. No
//! other host sees it. Never runs what a package does when it is installed: users and directories are the caller's.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};

use crate::host::Host;

/// Lays the software of a tree in `target/tools` over the `/usr` of a host; once a host, for one mount hides another.
///
/// # Errors
/// When it has not been unpacked, or when the kernel has no overlayfs.
pub fn lay(host: &Host, name: &str) -> Result<()> {
    let usr = tree(name)?.join("usr");
    ensure!(
        usr.is_dir(),
        "{} is not there: run `cargo xtask setup`, which unpacks what cannot be installed beside Postfix",
        usr.display()
    );
    let shown = usr.display().to_string();
    ensure!(!shown.contains([':', ',', '\\']), "{shown}: overlayfs takes no path with a colon, comma or backslash");
    let options = std::ffi::CString::new(format!("lowerdir={shown}:/usr"))?;
    host.inside(|| {
        mount("overlay", "/usr", "overlay", MountFlags::RDONLY, options.as_c_str())
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
