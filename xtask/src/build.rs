//! `cargo xtask build`: every binary, after installing what the build needs.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::version::Version;
use crate::{process, setup};

/// Build every binary, optimised unless told otherwise
#[derive(Args)]
pub(crate) struct Build {
    /// Build for debugging
    #[arg(long)]
    debug: bool,
}

impl Build {
    pub(crate) fn run(&self) -> Result<()> {
        setup::for_build()?;
        binaries(if self.debug { Profile::Debug } else { Profile::Release })
    }
}

/// How to compile.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// Fast to build, with assertions.
    Debug,
    /// What is installed.
    Release,
}

/// Has the executable know its commit (`screener --version`). Where the sources are no checkout it goes by the release alone.
///
/// Not when debugging: every commit would make it be linked again.
pub(crate) fn name_by_commit(cargo: &mut Command) {
    if let Ok(version) = Version::of_checkout() {
        cargo.env("SCREENER_VERSION", version.name);
    }
}

/// Builds the workspace's binaries; what that needs is there.
///
/// The BPF linker is not passed on: the build script looks for it where setup does, and a variable that differs between
/// `cargo xtask build` and `cargo build` would make each rebuild after the other.
pub(crate) fn binaries(profile: Profile) -> Result<()> {
    let mut cargo = process::cargo("build");
    if let Profile::Release = profile {
        name_by_commit(cargo.arg("--release"));
    }
    process::run(cargo.args(["--workspace", "--bins"]))
}
