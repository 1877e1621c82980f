//! How many tests did what: read from what libtest prints, added up, and judged.
//!
//! Never runs anything.

use anyhow::{Result, bail, ensure};

/// How many tests did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
}

impl Tally {
    /// Reads libtest's closing line: `test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; ...`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.trim().strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            let of_what = |part: &str| part.trim().strip_suffix(what)?.trim().parse().ok();
            counts.split(';').find_map(of_what)
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")? })
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// Counts a run that failed as one failure at least: a test program that does not build, dies or hangs prints no
    /// summary, and it failed all the same.
    pub(super) fn of_run(mut self, succeeded: bool) -> Self {
        if !succeeded {
            self.failed = self.failed.max(1);
        }
        self
    }

    /// Prints the closing line, which machines read too, and decides.
    pub(super) fn verdict(self) -> Result<()> {
        let Self { passed, failed, ignored } = self;
        println!("\n{passed} passed, {failed} failed, {ignored} skipped");
        ensure!(failed == 0, "tests failed");
        ensure!(ignored == 0, "{ignored} tests were skipped; a test here runs or goes");
        if passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64, ignored: u64) -> Tally {
        Tally { passed, failed, ignored }
    }

    #[test]
    fn a_summary_is_read_whether_ok_or_failed() {
        let ok = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s\n";
        assert_eq!(Tally::parse(ok), Some(tally(3, 0, 1)));
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
    fn only_a_run_with_tests_and_none_failed_or_skipped_is_good() {
        assert!(tally(3, 0, 0).of_run(true).verdict().is_ok());
        assert!(tally(3, 0, 0).of_run(false).verdict().is_err());
        assert!(tally(3, 1, 0).of_run(true).verdict().is_err());
        assert!(tally(3, 0, 1).of_run(true).verdict().is_err());
        assert!(tally(0, 0, 0).of_run(true).verdict().is_err());
    }
}
