//! What an executable needs of the system it runs on, as packages of Debian's.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// The dependencies, as a package's `Depends` has them.
///
/// # Errors
/// When it needs a library of which nobody has said here which package brings it: that is a dependency to be decided on.
pub(super) fn dependencies(executable: &Path) -> Result<String> {
    let headers = process::ask(Command::new("objdump").arg("-p").arg(executable).env("LC_ALL", "C"))?;
    parse(&headers)
}

fn parse(headers: &str) -> Result<String> {
    let mut others = Vec::new();
    for library in headers.lines().filter_map(|line| line.trim().strip_prefix("NEEDED")) {
        match library.trim() {
            "libc.so.6" | "libm.so.6" | "ld-linux-x86-64.so.2" | "ld-linux-aarch64.so.1" => {}
            "libgcc_s.so.1" => others.push("libgcc-s1"),
            library => bail!("it needs {library}: say in xtask/src/dist/elf.rs which package that is in"),
        }
    }
    // The oldest C library that has every function it calls.
    let versions = headers.split_whitespace().filter_map(|word| word.strip_prefix("GLIBC_"));
    let number = |version: &str| version.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<_>>>();
    let newest = versions.filter_map(|version| Some((number(version)?, version))).max();
    let (_, newest) = newest.context("it needs no C library: is it an executable?")?;
    Ok([format!("libc6 (>= {newest})")]
        .into_iter()
        .chain(others.into_iter().map(str::to_owned))
        .collect::<Vec<_>>()
        .join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_is_linked_to_becomes_packages_and_a_stranger_is_named() {
        let headers = "Dynamic Section:\n  NEEDED               libgcc_s.so.1\n  NEEDED               libc.so.6\n\
                       Version References:\n  required from libc.so.6:\n    0x09691974 0x00 04 GLIBC_2.3.4\n\
                       \x20   0x069691b4 0x00 03 GLIBC_2.34\n    0x09691a75 0x00 02 GLIBC_2.2.5\n    0x0 0x00 05 GLIBC_PRIVATE\n";
        assert_eq!(parse(headers).unwrap(), "libc6 (>= 2.34), libgcc-s1");
        let refused = parse("  NEEDED               libssl.so.3\n").unwrap_err().to_string();
        assert!(refused.contains("libssl.so.3"), "{refused}");
        assert!(parse("").is_err());
    }
}
