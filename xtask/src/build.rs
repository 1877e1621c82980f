//! `cargo xtask build`: every binary, after installing what the build needs.

use anyhow::Result;
use clap::Args;

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

/// Builds the workspace's binaries; what that needs is there.
///
/// The BPF linker is not passed on: the build script looks for it where setup does, and a variable that differs between
/// `cargo xtask build` and `cargo build` would make each rebuild after the other.
pub(crate) fn binaries(profile: Profile) -> Result<()> {
    let mut cargo = process::cargo("build");
    if let Profile::Release = profile {
        cargo.arg("--release");
    }
    process::run(cargo.args(["--workspace", "--bins"]))
}
