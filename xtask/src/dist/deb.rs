//! The Debian package: the tree, and what dpkg has to know of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::version::Version;

use super::elf;
use super::tree::{CONFIGURATION, EXECUTABLE, INSTALLER, Tree};

/// What dpkg runs: before it removes, after it has unpacked, after it has removed.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes a package out of a tree, which is the package's from then on.
///
/// # Errors
/// When dpkg-deb finds fault with it.
pub(super) fn build(tree: &Tree, version: &Version, out: &Path) -> Result<PathBuf> {
    tree.remove(INSTALLER)?;
    let files = tree.files()?;
    let sums = process::ask(Command::new("md5sum").args(&files).current_dir(tree.root()))?;
    let architecture = process::ask(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let template = process::root().join("packaging/debian");
    let read = |name: &str| {
        let file = template.join(name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    };
    let control = read("control")?
        .replace("@VERSION@", &version.name)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@DEPENDS@", &elf::dependencies(&tree.path(EXECUTABLE))?)
        .replace("@KIB@", &kib(tree, &files)?.to_string());
    tree.put("DEBIAN/control", control.as_bytes(), 0o644)?;
    tree.put("DEBIAN/conffiles", format!("/{CONFIGURATION}\n").as_bytes(), 0o644)?;
    // What is the operator's is not compared.
    let sums: String =
        sums.lines().filter(|line| !line.ends_with(CONFIGURATION)).map(|line| format!("{line}\n")).collect();
    tree.put("DEBIAN/md5sums", sums.as_bytes(), 0o644)?;
    for script in SCRIPTS {
        tree.put(&format!("DEBIAN/{script}"), read(script)?.as_bytes(), 0o755)?;
    }
    let package = out.join(format!("screener_{}_{architecture}.deb", version.name));
    let mut deb = Command::new("dpkg-deb");
    // With one thread: how many there are would show in the bytes. The highest level takes eight times as long, for a sixth less.
    let compression = ["-Zxz", "-z1", "--threads-max=1"];
    deb.env("SOURCE_DATE_EPOCH", &version.epoch).arg("--root-owner-group").args(compression).arg("--build");
    process::run(deb.arg(tree.root()).arg(&package))?;
    Ok(package)
}

/// What the files take, as Debian's policy counts it: each in whole KiB.
fn kib(tree: &Tree, files: &[String]) -> Result<u64> {
    let size = |file: &String| Ok(fs::metadata(tree.path(file))?.len().div_ceil(1024));
    files.iter().map(size).sum::<std::io::Result<u64>>().context("cannot look at a file of the tree")
}
