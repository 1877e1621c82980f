//! `cargo xtask test kernels`: the tests that depend on the kernel, on the kernels that Debian ships.
//!
//! Each kernel is booted by qemu in software emulation, so that it needs no hardware, no root and no other machine. (A
//! `/dev/kvm` is not used: where this machine is a virtual one itself, it is there and guests die of it.) The guest has no
//! disk and no network: its memory holds the test executables that cargo built here and the little they need.
//!
//! Never installs a kernel and never touches this host's package sources.

mod guest;
mod initramfs;
mod package;

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use self::guest::Report;
use super::Tally;
use crate::{process, setup};

/// Run the tests that depend on the kernel on Debian's own kernels, in virtual machines
///
/// Boots 5.10 (bullseye), 6.1 (bookworm) and 6.12 (trixie) under qemu. The packages are fetched into target/kernels and
/// nothing of them is installed. In each guest run: the packet vectors and everything else under `kernel::`, the steering
/// tests, native XDP and refusals on a veth, and takeovers by a second daemon.
#[derive(Args)]
pub(super) struct Kernels {
    /// Only the kernels of these releases
    #[arg(value_enum)]
    releases: Vec<Release>,

    /// Look for newer packages, instead of being content with those fetched before
    #[arg(long)]
    fetch: bool,
}

/// A release of Debian, for its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Release {
    /// Linux 5.10, the oldest that Screener runs on
    Bullseye,
    /// Linux 6.1
    Bookworm,
    /// Linux 6.12
    Trixie,
}

impl Release {
    fn name(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// What runs in a guest: test executables of the crate `screener`, by target, and their arguments.
///
/// One that runs no test fails the run, so a name that changes is noticed. The comparisons with a model in user space ask
/// nothing of a kernel, and an emulated processor needs many minutes for them.
const TESTS: [(&str, &[&str]); 5] = [
    ("screener", &["kernel::", "--skip", "kernel::statics::oracle::"]),
    ("steering", &[]),
    ("veth", &[]),
    ("packets", &[]),
    ("takeover", &[]),
];

/// How many guests run at once; each has one processor.
const AT_ONCE: usize = 2;

/// How many lines of a console say what went wrong.
const CONSOLE_LINES: usize = 60;

/// A test executable and what it is called with.
struct Executable {
    name: &'static str,
    path: PathBuf,
    arguments: &'static [&'static str],
}

impl Kernels {
    pub(super) fn run(&self) -> Result<()> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "these kernels are for x86_64, and so must be the tests that run on them"
        );
        setup::for_build()?;
        setup::for_kernels()?;
        let executables = executables()?;
        let releases = if self.releases.is_empty() { Release::value_variants() } else { &self.releases };
        let kernels = releases.iter().map(|release| package::get(release.name(), self.fetch));
        let kernels = kernels.collect::<Result<Vec<_>>>()?;
        let userland = initramfs::userland(&executables)?;
        let reports = on_each(&kernels, |kernel| {
            let initramfs = kernel.directory.join("initramfs");
            fs::write(&initramfs, userland.with_modules(kernel)?)
                .with_context(|| format!("cannot write {}", initramfs.display()))?;
            guest::run(kernel, &initramfs, &executables)
        })?;
        let mut sum = Tally::default();
        for report in &reports {
            if !report.succeeded() {
                explain(report);
            }
            sum.add(&report.tally());
        }
        print!("\n{}", table(&reports));
        sum.verdict()
    }
}

/// Builds the test executables, as `cargo xtask test` does, and finds them.
fn executables() -> Result<Vec<Executable>> {
    let mut cargo = super::cargo_test();
    cargo.args(["--no-run", "--message-format=json-render-diagnostics"]).stdout(Stdio::piped());
    process::echo(&cargo);
    let output = cargo.spawn().and_then(std::process::Child::wait_with_output).context("cannot start cargo test")?;
    ensure!(output.status.success(), "the tests do not build");
    let messages = String::from_utf8(output.stdout).context("cargo's messages")?;
    TESTS
        .iter()
        .map(|&(name, arguments)| {
            let path = messages.lines().find_map(|line| executable(line, name));
            let path =
                path.with_context(|| format!("cargo has built no test executable {name} of the crate screener"))?;
            Ok(Executable { name, path, arguments })
        })
        .collect()
}

/// The executable in a message of cargo's, if it is the one of this test target: the library's own tests have its name.
fn executable(message: &str, target: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_test = message["profile"]["test"] == true && message["target"]["name"] == target;
    let kind = message["target"]["kind"].get(0)?.as_str()?;
    let manifest = message["manifest_path"].as_str()?;
    let is_ours = manifest.ends_with("/screener/Cargo.toml") && matches!(kind, "lib" | "test");
    (is_test && is_ours).then(|| message["executable"].as_str().map(PathBuf::from))?
}

/// Does something with each kernel, two at a time; the answers keep their order.
fn on_each<T: Send>(
    kernels: &[package::Kernel],
    work: impl Fn(&package::Kernel) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let queue = Mutex::new(kernels.iter().enumerate());
    let next = || queue.lock().ok()?.next();
    let worker = || {
        let mut done = Vec::new();
        while let Some((number, kernel)) = next() {
            done.push((number, work(kernel)));
        }
        done
    };
    let mut done = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let joined = workers.into_iter().map(|worker| worker.join().map_err(|_| anyhow!("a guest's thread panicked")));
        joined.collect::<Result<Vec<_>>>().map(|each| each.into_iter().flatten().collect::<Vec<_>>())
    })?;
    done.sort_by_key(|&(number, _)| number);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Shows what a guest that failed said.
fn explain(report: &Report) {
    let name = report.name();
    println!("\n---- {name}: what the tests printed ----\n{}", report.output.trim_end());
    let lines: Vec<&str> = report.console.lines().collect();
    let tail = &lines[lines.len().saturating_sub(CONSOLE_LINES)..];
    println!(
        "\n---- {name}: the last lines of the console ({}) ----\n{}",
        report.console_file.display(),
        tail.join("\n")
    );
    println!("\n---- {name}: what went wrong ----");
    for fault in &report.faults {
        println!("{fault}");
    }
}

/// One line a kernel.
fn table(reports: &[Report]) -> String {
    let mut rows = vec![["release", "kernel", "passed", "failed", "seconds", ""].map(str::to_owned)];
    rows.extend(reports.iter().map(|report| {
        let Tally { passed, failed, .. } = report.tally();
        let verdict = if report.succeeded() { "ok" } else { "FAILED" };
        [
            report.release.to_owned(),
            report.version.clone(),
            passed.to_string(),
            failed.to_string(),
            format!("{:.0}", report.took.as_secs_f64()),
            verdict.to_owned(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (release, kernel) = (width(0), width(1));
    let line = |[r, k, p, f, s, v]: &[String; 6]| format!("{r:release$}  {k:kernel$}  {p:>6}  {f:>6}  {s:>7}  {v}");
    rows.iter().map(|row| line(row).trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, kind: &str, test: bool, krate: &str) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","manifest_path":"/w/{krate}/Cargo.toml","target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}},"executable":"/t/{name}-1"}}"#
        )
    }

    #[test]
    fn a_test_executable_is_told_from_everything_else_that_cargo_built() {
        let found = Some(PathBuf::from("/t/screener-1"));
        assert_eq!(executable(&message("screener", "lib", true, "screener"), "screener"), found);
        for (name, kind, test, krate) in [
            ("screener", "bin", true, "screener"),
            ("screener", "lib", false, "screener"),
            ("screener", "test", true, "tests"),
            ("steering", "test", true, "screener"),
        ] {
            assert_eq!(executable(&message(name, kind, test, krate), "screener"), None, "{name} {kind} {test} {krate}");
        }
        assert_eq!(executable("   Compiling screener", "screener"), None);
    }
}
