//! Packages that this system cannot have beside what is installed (Debian's MTAs conflict with each other; another qemu may be
//! there): fetched and unpacked into `target/tools/NAME`, and run from there.
//!
//! What is unpacked is not installed: no script of a package runs, nothing outside `target/` changes. A tree holds the
//! packages that were asked for and those that they depend on and this system lacks.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::apt;
use crate::{bpf_toolchain, process};

/// Unpacked packages.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree of that name, whether it is there or not. The lab's tests find theirs by the same name.
    pub(crate) fn named(name: &str) -> Self {
        Self { root: bpf_toolchain::tools(process::root()).join(name) }
    }

    /// Whether all of these packages are in it.
    pub(crate) fn holds(&self, packages: &[&str]) -> bool {
        fs::read_to_string(self.marker()).is_ok_and(|done| done == packages.join(" "))
    }

    /// Fetches and unpacks packages, with what they need and this system lacks. Begins from nothing, so that what broke off
    /// is not taken for a whole.
    ///
    /// # Errors
    /// When this is no system of apt's, or a package cannot be fetched.
    pub(crate) fn fill(&self, packages: &[&str]) -> Result<()> {
        let names = packages.join(" ");
        ensure!(apt::is_here(), "{names}: only packages of Debian's can be unpacked; there is no apt here");
        apt::refresh()?;
        let wanted = apt::would_install(packages)?;
        ensure!(!wanted.is_empty(), "apt would install nothing for {names}, and {} lacks it", self.root.display());
        let part = self.root.with_extension("part");
        for old in [&part, &self.root] {
            if old.exists() {
                fs::remove_dir_all(old).with_context(|| format!("cannot remove {}", old.display()))?;
            }
        }
        let archives = part.join("archives");
        fs::create_dir_all(&archives).with_context(|| format!("cannot make {}", archives.display()))?;
        // apt fetches as a user of its own that may not be able to reach this directory.
        let mut download = Command::new("apt-get");
        download.args(["-o", "APT::Sandbox::User=root", "download"]).args(&wanted).current_dir(&archives);
        process::run(&mut download).with_context(|| format!("apt cannot fetch {names}"))?;
        for archive in fs::read_dir(&archives).context("cannot list what was fetched")? {
            let archive = archive?.path();
            process::ask(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&part))?;
        }
        fs::remove_dir_all(&archives).context("cannot remove what was fetched")?;
        merge_usr(&part)?;
        fs::rename(&part, &self.root).with_context(|| format!("cannot make {}", self.root.display()))?;
        let marker = self.marker();
        fs::write(&marker, &names).with_context(|| format!("cannot write {}", marker.display()))
    }

    /// A file in the tree.
    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Where its libraries are, as `LD_LIBRARY_PATH` takes it.
    pub(crate) fn libraries(&self) -> String {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let directories = [format!("usr/lib/{triplet}"), format!("lib/{triplet}")];
        directories.iter().map(|directory| self.join(directory).display().to_string()).collect::<Vec<_>>().join(":")
    }

    fn marker(&self) -> PathBuf {
        self.root.join(".packages")
    }
}

/// Moves what lies in `/lib` and the like below `/usr`, and leaves links, as on every Debian since 12: packages still have
/// files at the old places, and a tree is also laid over a `/usr`.
fn merge_usr(tree: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let old = tree.join(name);
        if !old.is_dir() {
            continue;
        }
        let new = tree.join("usr").join(name);
        fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
        process::ask(Command::new("cp").arg("-a").arg(old.join(".")).arg(&new))?;
        fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        symlink(Path::new("usr").join(name), &old).with_context(|| format!("cannot link {}", old.display()))?;
    }
    Ok(())
}

/// Fills a tree unless it is there.
///
/// # Errors
/// As [`Tree::fill`].
pub(super) fn ensure_tree(name: &str, packages: &[&str]) -> Result<super::Done> {
    let tree = Tree::named(name);
    if tree.holds(packages) {
        return Ok(super::Done::Nothing);
    }
    tree.fill(packages)?;
    Ok(super::Done::Installed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_places_become_links_and_lose_nothing() {
        let tree = std::env::temp_dir().join(format!("screener-merge-{}", std::process::id()));
        let write = |path: &str| {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        write("lib/x/a.so");
        write("usr/lib/x/b.so");
        merge_usr(&tree).unwrap();
        for path in ["usr/lib/x/a.so", "usr/lib/x/b.so", "lib/x/a.so"] {
            assert!(tree.join(path).is_file(), "{path}");
        }
        assert!(tree.join("lib").is_symlink() && !tree.join("sbin").exists());
        fs::remove_dir_all(tree).unwrap();
    }
}
