//! `cargo xtask lint`: format, clippy on both halves, documentation; every warning is an error.

use std::env::consts::ARCH;

use anyhow::{Context, Result};
use clap::Args;

use crate::{process, setup};

/// Check format, lints of both halves, and documentation; warnings are errors
#[derive(Args)]
pub(crate) struct Lint {}

impl Lint {
    pub(crate) fn run(&self) -> Result<()> {
        setup::for_build()?;
        setup::for_lint()?;
        format().context("run `cargo fmt --all`")?;
        clippy()?;
        kernel_half()?;
        documentation()
    }
}

fn format() -> Result<()> {
    process::run(process::cargo("fmt").args(["--all", "--check"]))
}

fn clippy() -> Result<()> {
    let arguments = ["--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    process::run(process::cargo("clippy").args(arguments))
}

/// The kernel half as its own compiler sees it, which is not the one that clippy above belongs to.
fn kernel_half() -> Result<()> {
    let toolchain = setup::bpf_toolchain()?;
    let target_dir = process::binaries("bpf-lint")?;
    let mut cargo = toolchain.cargo("check", ARCH, &target_dir);
    cargo.args(["--bins", "--features", "bench"]).current_dir(process::root());
    match setup::clippy_of(&toolchain.compiler) {
        Some(clippy) => {
            // As cargo-clippy itself does it; the one on PATH would take another compiler's clippy.
            let arguments = ["-D", "warnings", ""].join("__CLIPPY_HACKERY__");
            cargo.env("RUSTC_WORKSPACE_WRAPPER", clippy).env("CLIPPY_ARGS", arguments);
        }
        None => {
            eprintln!("lint: {} has no clippy; checking with the compiler alone", toolchain.compiler.rustc.display());
        }
    }
    eprintln!("lint: the kernel half, with {toolchain}");
    process::run(&mut cargo)
}

fn documentation() -> Result<()> {
    let arguments = ["--workspace", "--no-deps", "--document-private-items", "--locked"];
    process::run(process::cargo("doc").args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
}
