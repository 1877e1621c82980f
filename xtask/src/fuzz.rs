//! `cargo xtask fuzz`: the parsers and the session engine against inputs that libFuzzer makes up, for a bounded time.
//!
//! The targets are a package of their own (`screener/fuzz`), built with counters in every crate of the daemon; this needs no
//! nightly compiler, only a C++ compiler for libFuzzer itself. What was found to be interesting stays in
//! `target/fuzz/corpus` for the next run.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{process, setup};

/// Fuzz the parsers and the session engine for a bounded time
///
/// An input that fails is kept, and the command that repeats it is printed.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Only these targets
    #[arg(value_enum)]
    targets: Vec<Target>,

    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,

    /// Run this one input again instead
    #[arg(long, value_name = "FILE", requires = "targets")]
    repeat: Option<PathBuf>,
}

/// What can be fuzzed: a binary of `screener/fuzz` each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Dumps of passes: ours, postscreen's, spamd's
    Dump,
    /// Command lines out of a client's bytes
    Line,
    /// Lists of prefixes in every form
    List,
    /// PROXY headers, versions 1 and 2
    Proxy,
    /// Whole sessions in a simulated world, watched by a shadow model
    Session,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Dump => "dump",
            Self::Line => "line",
            Self::List => "list",
            Self::Proxy => "proxy",
            Self::Session => "session",
        }
    }
}

/// The counters that libFuzzer steers by: at every branch, and what is compared with what.
const COUNTERS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing";

/// No input is longer: a session's worth of commands fits.
const LONGEST_INPUT: u32 = 8192;

impl Fuzz {
    pub(crate) fn run(&self) -> Result<()> {
        setup::for_build()?;
        setup::for_fuzz()?;
        let work = process::binaries("fuzz")?;
        let programs = build(&work)?;
        let targets = if self.targets.is_empty() { Target::value_variants() } else { &self.targets };
        for target in targets {
            let mut program = Command::new(programs.join(target.name()));
            match &self.repeat {
                Some(input) => program.arg(input),
                None => program.args(self.arguments(*target, &work)?),
            };
            process::run(&mut program).with_context(|| match &self.repeat {
                Some(_) => format!("the target {} fails with this input", target.name()),
                None => format!(
                    "the target {name} fails; repeat it with\n    cargo xtask fuzz {name} --repeat FILE\n\
                     with the file that is named above",
                    name = target.name()
                ),
            })?;
        }
        Ok(())
    }

    fn arguments(&self, target: Target, work: &Path) -> Result<Vec<String>> {
        let corpus = work.join("corpus").join(target.name());
        let artifacts = work.join("artifacts").join(target.name());
        for directory in [&corpus, &artifacts] {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let mut arguments = vec![
            format!("-max_total_time={}", self.seconds),
            format!("-max_len={LONGEST_INPUT}"),
            "-timeout=10".to_owned(),
            "-print_final_stats=1".to_owned(),
            "-verbosity=0".to_owned(),
            format!("-artifact_prefix={}/", artifacts.display()),
            corpus.display().to_string(),
        ];
        let seeds = package().join("seeds").join(target.name());
        if seeds.is_dir() {
            arguments.push(seeds.display().to_string());
        }
        Ok(arguments)
    }
}

/// Builds the targets; gives the directory that they are in.
fn build(work: &Path) -> Result<PathBuf> {
    // Named, so that build scripts and procedural macros are built without counters.
    let platform = format!("{ARCH}-unknown-linux-gnu");
    // The same versions of everything as in the daemon; cargo adds what only the targets need.
    let (ours, theirs) = (process::root().join("Cargo.lock"), package().join("Cargo.lock"));
    fs::copy(&ours, &theirs).with_context(|| format!("cannot copy {} to {}", ours.display(), theirs.display()))?;
    let mut cargo = process::cargo("build");
    cargo
        .current_dir(package())
        .args(["--release", "--target", &platform, "--target-dir"])
        .arg(work)
        .env("RUSTFLAGS", COUNTERS);
    process::run(&mut cargo).context("the fuzz targets cannot be built")?;
    Ok(work.join(platform).join("release"))
}

fn package() -> PathBuf {
    process::root().join("screener/fuzz")
}
