//! Commands of the CLI run on a host, and what they must answer.
//!
//! Never needs a daemon: what a command says without one is part of what is tested.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::host::Host;
use crate::screener::{command, executable};

/// Runs a command: its exit code, and everything it printed.
///
/// # Errors
/// When it cannot be run.
pub fn run(host: &Host, arguments: &[&str]) -> Result<(i32, String)> {
    finish(host, &mut command(host, &[], arguments)?)
}

/// Like [`run`], with a command that was made before.
///
/// # Errors
/// When it cannot be run.
pub fn finish(host: &Host, command: &mut Command) -> Result<(i32, String)> {
    let output = host.run(command)?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code().context("ended by a signal")?, String::from_utf8_lossy(&said).into_owned()))
}

/// Runs a command that must end with `code` and print `part`.
///
/// # Errors
/// When it does not.
pub fn expect(host: &Host, arguments: &[&str], code: i32, part: &str) -> Result<()> {
    expect_all(host, arguments, code, &[part])
}

/// Runs a command that must end with `code` and print every part.
///
/// # Errors
/// When it does not.
pub fn expect_all(host: &Host, arguments: &[&str], code: i32, parts: &[&str]) -> Result<()> {
    let (met, said) = run(host, arguments)?;
    let line = arguments.join(" ");
    ensure!(met == code, "screener {line}: exit code {met} instead of {code}: {said}");
    for part in parts {
        ensure!(said.contains(part), "screener {line}: {part:?} is not in: {said}");
    }
    ensure!(!said.contains("panicked"), "screener {line}: {said}");
    Ok(())
}

/// Runs a shell line in which `screener` is the executable under test, and gives what it printed.
///
/// # Errors
/// When its exit code is not 0.
pub fn shell(host: &Host, line: &str) -> Result<String> {
    let line = format!("screener() {{ {} \"$@\"; }}; {line}", executable()?.display());
    host.ask("sh", &["-c", &line])
}
