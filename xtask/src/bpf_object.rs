//! Builds one program of the kernel half inside a build script, and puts it into that script's `OUT_DIR`.
//!
//! A cargo inside cargo: the BPF target needs another compiler (see `bpf_toolchain`), other flags and another linker.
//! Two build scripts take this file in with `#[path]`: the daemon's, and the lab's, whose bench has programs of its own.
//! So it depends on `std` alone. No part of xtask itself.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[path = "bpf_toolchain.rs"]
#[allow(dead_code, unreachable_pub, reason = "xtask uses the rest of it")]
mod bpf_toolchain;

/// What to build.
pub(crate) struct Object<'a> {
    /// The binary of `screener-ebpf`.
    pub(crate) binary: &'a str,
    /// The feature it needs; empty for none.
    pub(crate) features: &'a str,
    /// The name of the object in `OUT_DIR`.
    pub(crate) file: &'a str,
    /// Names an object that was built elsewhere; then nothing is compiled.
    pub(crate) variable: &'a str,
}

impl Object<'_> {
    /// Builds the object, or copies the one that was built elsewhere.
    ///
    /// Cargo fails the build for the lines that this prints about an error, and prints them; with an exit status of
    /// failure it would print them twice, among everything else said here. Each line on its own, or only the first
    /// one counts.
    pub(crate) fn make(&self) {
        if let Err(message) = self.put() {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
        }
    }

    fn put(&self) -> Result<(), String> {
        let object = PathBuf::from(variable("OUT_DIR")?).join(self.file);
        println!("cargo::rerun-if-env-changed={}", self.variable);
        let source = match env::var_os(self.variable).filter(|path| !path.is_empty()) {
            Some(path) => {
                println!("cargo::rerun-if-changed={}", PathBuf::from(&path).display());
                PathBuf::from(path)
            }
            None => self.build()?,
        };
        fs::copy(&source, &object)
            .map(drop)
            .map_err(|error| format!("cannot copy {} to {}: {error}", source.display(), object.display()))
    }

    /// Compiles, and tells where the object is.
    fn build(&self) -> Result<PathBuf, String> {
        let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
        let root = package.parent().ok_or("the crate has no workspace around it")?;
        watch(root);

        let target = bpf_toolchain::target(variable("CARGO_CFG_TARGET_ENDIAN")? == "big");
        let oldest = variable("CARGO_PKG_RUST_VERSION")?;
        let toolchain = bpf_toolchain::find(root, target, &oldest.to_string_lossy())
            .map_err(|missing| format!("{missing}\n(or {}=/path/to/{})", self.variable, self.file))?;
        for tool in [&toolchain.compiler.rustc, &toolchain.linker] {
            println!("cargo::rerun-if-changed={}", tool.display());
        }

        let target_dir = PathBuf::from(variable("OUT_DIR")?).join("bpf");
        let arch = variable("CARGO_CFG_TARGET_ARCH")?.to_string_lossy().into_owned();
        let mut cargo = toolchain.cargo("build", &arch, &target_dir);
        cargo.args(["--bin", self.binary, "--features", self.features]);
        cargo.arg("--jobs").arg(variable("NUM_JOBS")?).current_dir(root);
        execute(&mut cargo).map_err(|why| format!("the kernel half does not build ({toolchain}): {why}"))?;
        Ok(target_dir.join(target).join("release").join(self.binary))
    }
}

/// Names to cargo everything that the object depends on.
fn watch(root: &Path) {
    for path in ["screener-ebpf/src", "screener-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    for name in bpf_toolchain::ENVIRONMENT {
        println!("cargo::rerun-if-env-changed={name}");
    }
}

/// Runs a command; what it prints comes before our own message.
fn execute(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}
