//! `cargo xtask test`: every test, and none left out unnoticed.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::build::Profile;
use crate::{build, process, setup};

/// Run every test; one that fails, is ignored or is left out fails the run
#[derive(Args)]
pub(crate) struct Test {
    /// Only the tests with this in their name
    filter: Option<String>,
}

impl Test {
    pub(crate) fn run(&self) -> Result<()> {
        process::require_root("test", "tests load kernel programs and make hosts out of network namespaces")?;
        setup::for_build()?;
        setup::for_lab()?;
        setup::for_bench()?;
        // Tests start the daemon itself, and `cargo test` does not build it for those of another crate.
        build::binaries(Profile::Debug)?;
        let (status, tally) = self.stream()?;
        tally.verdict(status)
    }

    /// Runs cargo's tests, passes on what they print and counts.
    fn stream(&self) -> Result<(ExitStatus, Tally)> {
        let mut cargo = process::cargo("test");
        cargo
            .args(["--workspace", "--locked", "--no-fail-fast"])
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

/// How many tests did what.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Reads libtest's closing line: `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; ...`.
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            let of_what = |part: &str| part.trim().strip_suffix(what)?.trim().parse().ok();
            counts.split(';').find_map(of_what)
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
    }

    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// Prints the closing line, which machines read too, and decides.
    fn verdict(mut self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            // A test program that does not build or dies prints no summary, and it failed all the same.
            self.failed = self.failed.max(1);
        }
        let Self { passed, failed, ignored } = self;
        println!("\n{passed} passed, {failed} failed, {ignored} skipped");
        ensure!(status.success() && failed == 0, "tests failed");
        ensure!(ignored == 0, "{ignored} tests were skipped; a test here runs or goes");
        if passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const OK: &str = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s\n";

    fn tally(passed: u64, failed: u64, ignored: u64) -> Tally {
        Tally { passed, failed, ignored }
    }

    #[test]
    fn a_summary_is_read_whether_ok_or_failed() {
        assert_eq!(Tally::parse(OK), Some(tally(3, 0, 1)));
        let failed =
            "test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.2s";
        assert_eq!(Tally::parse(failed), Some(tally(10, 2, 0)));
    }

    #[test]
    fn other_lines_are_no_summary() {
        for line in ["test a::b ... ok", "running 3 tests", "test result: ok.", ""] {
            assert_eq!(Tally::parse(line), None, "{line}");
        }
    }

    #[test]
    fn output_passes_unchanged_and_summaries_add_up() {
        let input = format!("running 3 tests\n\u{e9}\n{OK}{OK}no newline at the end");
        let mut output = Vec::new();
        let sum = pass_on(input.as_bytes(), &mut output).unwrap();
        assert_eq!(sum, tally(6, 0, 2));
        assert_eq!(output, input.as_bytes());
    }

    #[test]
    fn only_a_run_with_tests_and_none_failed_or_skipped_is_good() {
        let (good, bad) = (ExitStatus::from_raw(0), ExitStatus::from_raw(101 << 8));
        assert!(tally(3, 0, 0).verdict(good).is_ok());
        assert!(tally(3, 0, 0).verdict(bad).is_err());
        assert!(tally(3, 1, 0).verdict(good).is_err());
        assert!(tally(3, 0, 1).verdict(good).is_err());
        assert!(tally(0, 0, 0).verdict(good).is_err());
    }
}
