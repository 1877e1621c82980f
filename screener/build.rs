//! Builds the kernel half and puts it at `OUT_DIR/screener.bpf.o`, for the daemon to carry within itself.
//!
//! A cargo inside cargo: the BPF target needs another compiler (see `bpf_toolchain`), other flags and another linker.
//! `SCREENER_BPF_OBJECT` names an object that was built elsewhere, and then nothing is compiled here.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[path = "../xtask/src/bpf_toolchain.rs"]
#[allow(dead_code, unreachable_pub, reason = "xtask uses the rest of it")]
mod bpf_toolchain;

/// Names an object to take instead of building one.
const OBJECT: &str = "SCREENER_BPF_OBJECT";

fn main() {
    if let Err(message) = run() {
        // Cargo fails the build for these lines and prints them; with an exit status of failure it would print them
        // twice, among everything else said here. Each line on its own, or only the first one counts.
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn run() -> Result<(), String> {
    let object = PathBuf::from(variable("OUT_DIR")?).join("screener.bpf.o");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let source = match env::var_os(OBJECT).filter(|path| !path.is_empty()) {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", PathBuf::from(&path).display());
            PathBuf::from(path)
        }
        None => build()?,
    };
    fs::copy(&source, &object)
        .map(drop)
        .map_err(|error| format!("cannot copy {} to {}: {error}", source.display(), object.display()))
}

/// Compiles the kernel half and tells where the object is.
fn build() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the daemon's crate has no workspace around it")?;
    watch(root);

    let target = bpf_toolchain::target(variable("CARGO_CFG_TARGET_ENDIAN")? == "big");
    let toolchain =
        bpf_toolchain::find(root, target, env!("CARGO_PKG_RUST_VERSION")).map_err(|missing| missing.to_string())?;
    for tool in [&toolchain.compiler.rustc, &toolchain.linker] {
        println!("cargo::rerun-if-changed={}", tool.display());
    }

    let target_dir = PathBuf::from(variable("OUT_DIR")?).join("bpf");
    let arch = variable("CARGO_CFG_TARGET_ARCH")?.to_string_lossy().into_owned();
    let mut cargo = toolchain.cargo("build", &arch, &target_dir);
    cargo.arg("--jobs").arg(variable("NUM_JOBS")?).current_dir(root);
    execute(&mut cargo).map_err(|why| format!("the kernel half does not build ({toolchain}): {why}"))?;
    Ok(target_dir.join(target).join("release/screener-ebpf"))
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
