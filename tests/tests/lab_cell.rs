//! Nothing leaves a cell, however it ends.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::panic::catch_unwind;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use screener_tests::cell;
use screener_tests::wait::{until, until_or_show};

const SOON: Duration = Duration::from_secs(30);

/// Limits that are to pass while something goes on inside. One that a busy machine needs for the beginning shows nothing: then
/// the next one has its turn.
const LIMITS: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(8), Duration::from_secs(32)];

#[test]
fn the_exit_code_comes_out() -> Result<()> {
    let status = lab(&["exec", "--", "sh", "-c", "exit 7"]).status()?;
    ensure!(status.code() == Some(7), "{status}");
    Ok(())
}

#[test]
fn a_signal_that_ends_the_inner_program_is_told() -> Result<()> {
    let status = lab(&["exec", "--", "sh", "-c", "kill -9 $$"]).status()?;
    ensure!(status.code() == Some(128 + 9), "{status}");
    Ok(())
}

#[test]
fn orphans_are_collected() -> Result<()> {
    let script = "for i in 1 2 3 4 5; do (sleep 0.01 &); done
        for i in $(seq 250); do
            sleep 0.02
            [ \"$(cat /proc/[0-9]*/comm | grep -c sleep)\" = 0 ] && exit 0
        done
        exit 1";
    let status = lab(&["exec", "--", "sh", "-c", script]).status()?;
    ensure!(status.success(), "dead processes stay: {status}");
    Ok(())
}

#[test]
fn killing_the_outer_process_leaves_nothing() -> Result<()> {
    let mut life = Life::start("4711001", &[])?;
    life.outer.kill()?;
    life.is_over()
}

#[test]
fn ctrl_c_leaves_nothing() -> Result<()> {
    let mut life = Life::start("4711002", &[])?;
    kill_process_group(pid(life.outer.id())?, Signal::INT)?;
    life.is_over()
}

#[test]
fn terminating_process_1_leaves_nothing() -> Result<()> {
    let mut life = Life::start("4711003", &[])?;
    let name = format!("/proc/{0}/task/{0}/children", life.outer.id());
    let threads = fs::read_dir(format!("/proc/{}/task", life.outer.id()))?;
    let mut children = fs::read_to_string(name)?;
    for thread in threads.flatten() {
        children += &fs::read_to_string(thread.path().join("children"))?;
    }
    let first = children.split_whitespace().next().context("no child")?;
    kill_process(pid(first.parse()?)?, Signal::TERM)?;
    life.is_over()
}

#[test]
fn the_limit_leaves_nothing_and_is_told() -> Result<()> {
    let begin = |limit: &Duration| Life::start("4711004", &["--limit", &limit.as_secs().to_string()]);
    let mut life = LIMITS.iter().find_map(|limit| begin(limit).ok()).context("nothing begins within any limit")?;
    life.is_over()?;
    let status = life.outer.wait()?;
    ensure!(status.code() == Some(2), "{status}");
    Ok(())
}

#[test]
fn a_body_that_fails_fails_its_test_and_shows_why() {
    let outcome = catch_unwind(|| {
        cell::test("a_body_that_fails_fails_its_test_and_shows_why", || {
            println!("a trace of it");
            bail!("the reason")
        });
    });
    assert_told(outcome, &["a trace of it", "the reason"]);
}

#[test]
fn a_body_that_panics_fails_its_test_and_shows_why() {
    let outcome = catch_unwind(|| {
        cell::test("a_body_that_panics_fails_its_test_and_shows_why", || panic!("the reason"));
    });
    assert_told(outcome, &["the reason", "101"]);
}

#[test]
fn a_body_that_hangs_is_ended_at_its_limit() {
    for limit in LIMITS {
        let outcome = catch_unwind(|| {
            cell::test_within("a_body_that_hangs_is_ended_at_its_limit", limit, || {
                println!("a trace of it");
                loop {
                    std::thread::park();
                }
            });
        });
        let told = told(outcome);
        assert!(told.contains(&format!("not done within {limit:?}")), "{told}");
        if told.contains("a trace of it") {
            return;
        }
    }
    panic!("nothing begins within {LIMITS:?}, or what it printed is lost");
}

#[test]
fn a_wrong_name_is_no_silent_success() {
    let outcome = catch_unwind(|| cell::test("there_is_no_such_test", || Ok(())));
    assert_told(outcome, &["no test \"there_is_no_such_test\""]);
}

/// A cell with a child, an orphan in a session of its own and an interface, each marked by a number.
struct Life {
    outer: Child,
    mark: &'static str,
    net: std::path::PathBuf,
}

impl Life {
    fn start(mark: &'static str, options: &[&str]) -> Result<Self> {
        let script = format!("ip link add lost type veth; setsid sleep {mark} & setsid sleep {mark} & sleep {mark}");
        let mut outer = lab(&["exec"]);
        outer.args(options).args(["--", "sh", "-c", &script]);
        let mut outer = outer.process_group(0).stdin(Stdio::null()).spawn()?;
        let net = until_or_show("the cell's processes", SOON, String::new, || {
            ensure!(outer.try_wait()?.is_none(), "the cell ended before its processes were there");
            let sleepers = marked(mark);
            Ok(if sleepers.len() < 4 { None } else { fs::read_link(format!("/proc/{}/ns/net", sleepers[0])).ok() })
        })?;
        ensure!(net != fs::read_link("/proc/self/ns/net")?);
        Ok(Self { outer, mark, net })
    }

    fn is_over(&mut self) -> Result<()> {
        until("the processes to be gone", SOON, || marked(self.mark).is_empty().then_some(()))?;
        until("the network namespace to be free", SOON, || (!processes().any(|id| self.holds(id))).then_some(()))?;
        self.outer.wait()?;
        Ok(())
    }

    fn holds(&self, id: u32) -> bool {
        fs::read_link(format!("/proc/{id}/ns/net")).is_ok_and(|net| net == self.net)
    }
}

/// Processes of cells, other than the outer one, that have the mark in their command line.
fn marked(mark: &str) -> Vec<u32> {
    let own = fs::read_link("/proc/self/ns/pid").ok();
    processes()
        .filter(|id| {
            let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let inside = fs::read_link(format!("/proc/{id}/ns/pid")).ok() != own;
            inside && String::from_utf8_lossy(&command).contains(mark)
        })
        .collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_screener-lab"));
    command.args(arguments);
    command
}

fn pid(id: u32) -> Result<Pid> {
    Pid::from_raw(id.cast_signed()).context("a process number")
}

/// What a test that failed says.
fn told(outcome: std::thread::Result<()>) -> String {
    *outcome.expect_err("the test passed").downcast().expect("a message")
}

fn assert_told(outcome: std::thread::Result<()>, parts: &[&str]) {
    let told = told(outcome);
    for part in parts {
        assert!(told.contains(part), "{part:?} is missing in: {told}");
    }
}
