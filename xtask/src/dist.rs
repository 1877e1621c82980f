//! `cargo xtask dist`: what an operator installs: a Debian package, and a tarball of the same tree.
//!
//! Two builds of a commit with the same compiler give the same bytes: every time in them is the commit's, every owner root. The
//! package is made by `dpkg-deb` and not by cargo-deb: the tree is needed for the tarball anyway, a tool more would have to be
//! built on every machine, and what it would add, scripts that restart the service, is what this package must not do.

mod deb;
mod elf;
mod licences;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::build::Profile;
use crate::version::Version;
use crate::{build, process, setup};

use self::tree::Tree;

/// Make what an operator installs, under target/dist: a Debian package and a tarball
#[derive(Args)]
pub(crate) struct Dist {
    /// Take this executable, instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,

    /// Put it there, instead of target/dist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Dist {
    pub(crate) fn run(&self) -> Result<()> {
        let made = Made::new(self.binary.as_deref(), self.out.as_deref())?;
        let mut files = vec![made.tarball()?];
        if process::is_installed("dpkg-deb") {
            files.push(deb::build(&made.tree, &made.version, &made.out)?);
        } else {
            eprintln!(
                "dist: no package, for there is no dpkg-deb here (it is in the package dpkg, of Fedora and others too)"
            );
        }
        write_sums(&made.out, &files)?;
        for file in files {
            println!("{}", file.display());
        }
        Ok(())
    }
}

/// What was put together.
pub(crate) struct Made {
    version: Version,
    tree: Tree,
    out: PathBuf,
}

impl Made {
    /// Builds, or takes an executable, and puts beside it what belongs to it.
    ///
    /// # Errors
    /// When the build fails, or something that belongs to it is not there.
    pub(crate) fn new(binary: Option<&Path>, out: Option<&Path>) -> Result<Self> {
        let version = Version::of_checkout()?;
        let binary = match binary {
            Some(binary) => binary.to_owned(),
            None => {
                setup::for_build()?;
                build::binaries(Profile::Release)?;
                process::binaries("release")?.join("screener")
            }
        };
        let out = out.map_or_else(|| process::binaries("dist"), |out| Ok(out.to_owned()))?;
        let name = format!("screener-{}-{}", version.name, std::env::consts::ARCH);
        let tree = Tree::lay(&out.join("tree"), &name, &binary)?;
        Ok(Self { version, tree, out })
    }

    /// Everything in one file, below one directory, with the script that installs it.
    ///
    /// # Errors
    /// When there is no room.
    pub(crate) fn tarball(&self) -> Result<PathBuf> {
        let name = self.tree.name();
        let tarball = self.out.join(format!("{name}.tar.gz"));
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"])
            .arg(format!("--mtime=@{}", self.version.epoch))
            .args(["-I", "gzip -n", "-cf"])
            .arg(&tarball)
            .arg("-C")
            .arg(self.tree.above())
            .arg(name);
        process::run(&mut tar)?;
        Ok(tarball)
    }
}

/// What tells whether the files have arrived whole.
fn write_sums(out: &Path, files: &[PathBuf]) -> Result<()> {
    let names = files.iter().filter_map(|file| file.file_name());
    let sums = process::ask(Command::new("sha256sum").args(names).current_dir(out))?;
    let file = out.join("SHA256SUMS");
    fs::write(&file, sums).with_context(|| format!("cannot write {}", file.display()))
}
