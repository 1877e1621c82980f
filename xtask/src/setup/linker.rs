//! Installs `bpf-linker` into `target/tools`, built against an LLVM that reads the compiler's bitcode.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::apt;
use crate::bpf_toolchain::{self, Compiler};
use crate::process;

/// The release of `bpf-linker` that is built here.
const VERSION: &str = "0.13.0";

/// The LLVM majors that this release can be built against, each by a feature.
const LLVMS: RangeInclusive<u32> = 21..=23;

/// An LLVM to build against.
#[derive(Debug)]
pub(super) struct Llvm {
    major: u32,
    prefix: PathBuf,
}

/// Whether the linker that was installed here is of another release than the one wanted.
pub(super) fn is_outdated() -> bool {
    let ours = ours();
    ours.is_file()
        && process::ask(Command::new(ours).arg("--version")).is_ok_and(|version| !version.trim().ends_with(VERSION))
}

/// Builds `bpf-linker` for a compiler, unless one that fits is there.
pub(super) fn install(compiler: &Compiler) -> Result<()> {
    if fits(compiler) {
        return Ok(());
    }
    let llvm = llvm(compiler)?;
    let mut cargo = process::cargo("install");
    cargo
        .args(["bpf-linker", "--version", VERSION, "--locked", "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{}", llvm.major), "--root"])
        .arg(bpf_toolchain::tools(process::root()))
        .env("LLVM_PREFIX", &llvm.prefix)
        // It builds in a temporary directory of its own then, and leaves nothing but the program.
        .env_remove("CARGO_TARGET_DIR");
    process::run(&mut cargo).context("cannot build bpf-linker")
}

/// An LLVM that reads the compiler's bitcode, installed if there is none: the same major, or else a newer one.
pub(super) fn llvm(compiler: &Compiler) -> Result<Llvm> {
    let usable = compiler.llvm.max(*LLVMS.start())..=*LLVMS.end();
    if usable.is_empty() {
        bail!(
            "{} has LLVM {}, and bpf-linker {VERSION} knows none newer than {}: an older compiler can be named with {}",
            compiler.rustc.display(),
            compiler.llvm,
            LLVMS.end(),
            bpf_toolchain::COMPILER
        );
    }
    if let Some(major) = usable.clone().find(|major| is_there(&debian_prefix(*major))) {
        return Ok(Llvm { major, prefix: debian_prefix(major) });
    }
    if let Some(llvm) = on_path().filter(|llvm| usable.contains(&llvm.major)) {
        return Ok(llvm);
    }
    if apt::is_here() {
        apt::refresh()?;
        for major in usable.clone() {
            let package = format!("llvm-{major}-dev");
            if apt::candidate(&package)?.is_some() {
                apt::install(&[&package])?;
                return Ok(Llvm { major, prefix: debian_prefix(major) });
            }
        }
    }
    bail!(
        "bpf-linker needs the libraries of LLVM {} to {} and there is no package of them here. Put a bpf-linker {VERSION} \
         on PATH (its project releases static ones) or name it with {}",
        usable.start(),
        usable.end(),
        bpf_toolchain::LINKER
    )
}

fn ours() -> PathBuf {
    bpf_toolchain::tools(process::root()).join("bin/bpf-linker")
}

fn fits(compiler: &Compiler) -> bool {
    let reads = |linker: &PathBuf| bpf_toolchain::linker_llvm(linker);
    !is_outdated()
        && bpf_toolchain::find_linker(process::root())
            .and_then(|linker| reads(&linker))
            .is_ok_and(|llvm| llvm.is_none_or(|llvm| llvm >= compiler.llvm))
}

/// Where Debian and Ubuntu put one major.
fn debian_prefix(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}

/// Whether the link library is there, which comes with the development package alone.
fn is_there(prefix: &Path) -> bool {
    prefix.join("lib/libLLVM.so").exists() && prefix.join("bin/llvm-config").exists()
}

/// The LLVM of the `llvm-config` on `PATH`.
fn on_path() -> Option<Llvm> {
    let ask = |what: &str| process::ask(Command::new("llvm-config").arg(what)).ok();
    let major = ask("--version")?.split('.').next()?.trim().parse().ok()?;
    let prefix = PathBuf::from(ask("--prefix")?.trim());
    is_there(&prefix).then_some(Llvm { major, prefix })
}
