//! A guest: booted, watched, and what it said understood.
//!
//! It has no disk, no network card and no clock of ours: two serial ports are all that comes out of it, the kernel's console
//! and the tests' output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Executable, package::Kernel};
use crate::test::Tally;
use crate::{process, setup};

/// After this time a guest is killed. It needs about a minute on a machine that does nothing else.
const LIMIT: Duration = Duration::from_secs(900);

/// What `timeout` answers when it had to end the program, and when it had to kill it.
const LATE: [i32; 2] = [124, 137];

/// What the kernel is told: where its console is; to reboot at once, which qemu takes for the end, after a panic or an
/// oops; and a clock that does not depend on how busy this host was while the guest calibrated its own.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 panic=-1 oops=panic clocksource=hpet tsc=unstable";

/// How process 1 begins a line of its own.
const MARK: &str = "guest: ";

/// What came of a guest.
pub(super) struct Report {
    pub(super) release: &'static str,
    /// The kernel's own word for its version; the package's until it has spoken.
    pub(super) version: String,
    /// What the tests printed.
    pub(super) output: String,
    /// What the kernel printed.
    pub(super) console: String,
    pub(super) console_file: PathBuf,
    pub(super) took: Duration,
    /// Why the run is no good; empty if it is.
    pub(super) faults: Vec<String>,
    counted: Tally,
}

impl Report {
    pub(super) fn name(&self) -> String {
        format!("{} ({})", self.version, self.release)
    }

    pub(super) fn succeeded(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn tally(&self) -> Tally {
        self.counted.of_run(self.succeeded())
    }
}

/// Boots a kernel with the tests, and waits until it is off.
pub(super) fn run(kernel: &Kernel, initramfs: &Path, executables: &[Executable]) -> Result<Report> {
    let console_file = kernel.directory.join("console.log");
    let output_file = kernel.directory.join("tests.log");
    for file in [&console_file, &output_file] {
        fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
    }
    let begin = Instant::now();
    let mut qemu = qemu(kernel, initramfs, [&console_file, &output_file]);
    process::echo(&qemu);
    let status = qemu.status().context("cannot start qemu")?;
    let took = begin.elapsed();
    let read = |file: &Path| {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        // A terminal's line ends.
        anyhow::Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
    };
    let (console, output) = (read(&console_file)?, read(&output_file)?);
    let heard = Heard::of(&output);
    let mut faults = Vec::new();
    if status.code().is_some_and(|code| LATE.contains(&code)) {
        faults.push(format!("not done after {} s: killed", LIMIT.as_secs()));
    } else if !status.success() {
        faults.push(format!("qemu: {status}"));
    }
    if let Some(panic) = console.lines().find(|line| line.contains("Kernel panic")) {
        faults.push(format!("the kernel panicked: {panic}"));
    }
    faults.extend(executables.iter().filter_map(|executable| heard.fault_of(executable.name)));
    let package = kernel.directory.file_name().unwrap_or_default().to_string_lossy();
    let version = heard.kernel.map_or_else(|| package.into_owned(), str::to_owned);
    let counted = heard.sum();
    eprintln!("kernels: {version} is done after {:.0} s", took.as_secs_f64());
    Ok(Report { release: kernel.release, version, output, console, console_file, took, faults, counted })
}

/// qemu, under a program that ends it when it runs late, even if xtask itself is not there any more.
fn qemu(kernel: &Kernel, initramfs: &Path, serial_ports: [&Path; 2]) -> Command {
    let (program, tree) = setup::qemu();
    let mut command = Command::new("timeout");
    command.args(["--foreground", "--kill-after=5", &LIMIT.as_secs().to_string()]).arg(program);
    if let Some(tree) = tree {
        command.env("LD_LIBRARY_PATH", tree.libraries());
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(tree.join(data));
        }
    }
    command.args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]);
    // A plain processor: with the emulator's richest one the guest trusts a time stamp counter that a busy host upsets.
    command.args(["-machine", "pc", "-accel", "tcg", "-cpu", "qemu64", "-smp", "1", "-m", "1024"]);
    command.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(initramfs);
    command.args(["-append", KERNEL_COMMAND_LINE]);
    for port in serial_ports {
        command.arg("-serial").arg(format!("file:{}", port.display()));
    }
    command.stdin(Stdio::null());
    command
}

/// What process 1 and the tests said.
#[derive(Default)]
struct Heard<'a> {
    kernel: Option<&'a str>,
    runs: Vec<Run<'a>>,
}

/// One test executable in the guest.
struct Run<'a> {
    name: &'a str,
    tally: Tally,
    /// The exit code, when it has ended.
    code: Option<&'a str>,
}

impl<'a> Heard<'a> {
    fn of(output: &'a str) -> Self {
        let mut heard = Self::default();
        for line in output.lines() {
            let words: Vec<&str> = line.strip_prefix(MARK).unwrap_or_default().split(' ').collect();
            match (&words[..], heard.runs.last_mut()) {
                (["kernel", version], _) => heard.kernel = Some(version),
                (["begin", name], _) => heard.runs.push(Run { name, tally: Tally::default(), code: None }),
                (["end", name, code], Some(run)) if run.name == *name => run.code = Some(code),
                (_, Some(run)) => run.tally.add(&Tally::parse(line).unwrap_or_default()),
                _ => {}
            }
        }
        heard
    }

    fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        self.runs.iter().for_each(|run| sum.add(&run.tally));
        sum
    }

    /// Why one of the executables was not run to a good end.
    fn fault_of(&self, name: &str) -> Option<String> {
        let Some(run) = self.runs.iter().find(|run| run.name == name) else {
            return Some(format!("{name} was not started"));
        };
        match run.code {
            None => Some(format!("{name} did not end")),
            Some("0") if run.tally.passed == 0 => Some(format!("{name} ran no test")),
            Some("0") => None,
            Some(code) => Some(format!("{name} failed with exit code {code}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "guest: kernel 5.10.0-46-amd64\nguest: begin steering\nrunning 2 tests\n\
                        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
                        guest: end steering 0\n";

    #[test]
    fn a_good_run_names_its_kernel_and_is_counted() {
        let heard = Heard::of(GOOD);
        assert_eq!(heard.kernel, Some("5.10.0-46-amd64"));
        assert_eq!(heard.sum(), Tally { passed: 2, failed: 0, ignored: 0 });
        assert_eq!(heard.fault_of("steering"), None);
    }

    #[test]
    fn what_did_not_start_end_succeed_or_test_anything_is_a_fault() {
        let fault = |output: &str| Heard::of(output).fault_of("steering").unwrap_or_default();
        assert_eq!(fault(""), "steering was not started");
        assert_eq!(fault(&GOOD.replace("guest: end steering 0\n", "")), "steering did not end");
        assert_eq!(fault(&GOOD.replace("guest: end steering 0\n", "guest: end veth 0\n")), "steering did not end");
        assert_eq!(fault(&GOOD.replace("steering 0", "steering 139")), "steering failed with exit code 139");
        assert_eq!(fault(&GOOD.replace("2 passed", "0 passed")), "steering ran no test");
    }
}
