//! `cargo xtask test`: every test, and none left out unnoticed; here, or on the kernels that Debian ships.

mod kernels;
mod tally;

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};

use self::tally::Tally;
use crate::build::Profile;
use crate::{build, process, setup};

/// Run every test here; one that fails, is ignored or is left out fails the run
///
/// `cargo xtask test kernels` runs those that depend on the kernel once more, on Debian's own kernels in virtual machines.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub(crate) struct Test {
    #[command(subcommand)]
    elsewhere: Option<Elsewhere>,

    /// Only the tests with this in their name
    filter: Option<String>,
}

#[derive(Subcommand)]
enum Elsewhere {
    Kernels(kernels::Kernels),
}

impl Test {
    pub(crate) fn run(&self) -> Result<()> {
        if let Some(Elsewhere::Kernels(kernels)) = &self.elsewhere {
            return kernels.run();
        }
        process::require_root("test", "tests load kernel programs and make hosts out of network namespaces")?;
        setup::for_build()?;
        setup::for_lab()?;
        setup::for_bench()?;
        // Tests start the daemon itself, and `cargo test` does not build it for those of another crate.
        build::binaries(Profile::Debug)?;
        let (status, tally) = self.stream()?;
        tally.of_run(status.success()).verdict()
    }

    /// Runs cargo's tests, passes on what they print and counts.
    fn stream(&self) -> Result<(ExitStatus, Tally)> {
        let mut cargo = cargo_test();
        cargo
            .arg("--no-fail-fast")
            .args(&self.filter)
            .env("SCREENER_BIN", process::binaries("debug")?.join("screener"))
            .stdout(Stdio::piped());
        process::echo(&cargo);
        let mut child = cargo.spawn().context("cannot start cargo test")?;
        let output = child.stdout.take().context("cargo test has no output")?;
        let tally =
            pass_on(BufReader::new(output), &mut io::stdout().lock()).context("cannot pass on what the tests print")?;
        let status = child.wait().context("cannot wait for cargo test")?;
        Ok((status, tally))
    }
}

/// Cargo's tests of the whole workspace: with one selection of crates, and so of features, nothing is built twice.
fn cargo_test() -> Command {
    let mut cargo = process::cargo("test");
    cargo.args(["--workspace", "--locked"]);
    cargo
}

/// Copies lines as they come and sums up the summaries among them.
fn pass_on(mut from: impl BufRead, to: &mut impl Write) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        if let Some(summary) = Tally::parse(&String::from_utf8_lossy(&line)) {
            tally.add(&summary);
        }
        line.clear();
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        test: Test,
    }

    #[test]
    fn output_passes_unchanged_and_summaries_add_up() {
        const OK: &str = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out\n";
        let input = format!("running 3 tests\n\u{e9}\n{OK}{OK}no newline at the end");
        let mut output = Vec::new();
        let sum = pass_on(input.as_bytes(), &mut output).unwrap();
        assert_eq!(sum, Tally { passed: 6, failed: 0, ignored: 2 });
        assert_eq!(output, input.as_bytes());
    }

    #[test]
    fn the_word_kernels_is_a_place_and_every_other_word_a_filter() {
        let parse = |words: &[&str]| Line::try_parse_from([&["test"], words].concat()).map(|line| line.test);
        assert!(parse(&[]).is_ok_and(|test| test.elsewhere.is_none() && test.filter.is_none()));
        for word in ["help", "steer", "kernels::"] {
            assert!(parse(&[word]).is_ok_and(|test| test.elsewhere.is_none() && test.filter.as_deref() == Some(word)));
        }
        assert!(parse(&["kernels"]).is_ok_and(|test| test.elsewhere.is_some() && test.filter.is_none()));
        assert!(parse(&["kernels", "trixie", "--fetch"]).is_ok_and(|test| test.elsewhere.is_some()));
        assert!(parse(&["steer", "kernels"]).is_err());
        assert!(parse(&["kernels", "potato"]).is_err());
    }
}
