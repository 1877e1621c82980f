//! The cell: a process in namespaces of its own, out of which nothing can leak.
//!
//! Entering a cell runs this executable a second time inside new PID, mount, network, UTS and IPC namespaces. Process 1
//! of the PID namespace is ours and holds the cell together: when it dies, however it dies, the kernel kills every
//! process inside, and with the last of them go the mounts (a bpffs and its pins among them), the network namespaces
//! and their interfaces. It dies with the work it was started for, with the process that started it (also by
//! `SIGKILL`), and at the wall clock limit. So there is no clean-up code here, and none is needed: this module never
//! removes anything.
//!
//! Inside, `/` is read-only, `/proc`, `/sys`, `/sys/fs/bpf`, `/run` and `/dev/shm` are fresh, and [`ROOM`] is an empty
//! tmpfs.

mod launch;
mod rooms;
mod root;

use std::convert::Infallible;
use std::env;
use std::io::{PipeReader, Read as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::geteuid;

pub use launch::{Kept, KeptHost};

pub(crate) use rooms::{directory, system};

use launch::{Ending, Launch};

/// The cell's own directory: a tmpfs that is empty at the start and gone at the end.
pub const ROOM: &str = "/mnt";

/// The limit of a test that does not name one.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Says to the second run of the executable that it is the inner one; the value is the outer mount namespace.
const MARK: &str = "SCREENER_CELL";

/// What an inner test run answers when the body has run and returned `Ok`. Not 0, which is also what the test harness
/// answers when the name matched no test at all.
const DONE: i32 = 87;

/// Runs the body of an integration test inside a cell of its own, for at most [`LIMIT`].
///
/// `name` is the path of the calling test as `cargo test -- --list` shows it: the cell is this test executable again,
/// asked for that one test.
///
/// # Panics
/// When the body fails, panics or runs late, with everything it printed; when the caller is not root; when there is
/// no test of that name.
pub fn test(name: &str, body: impl FnOnce() -> Result<()>) {
    test_within(name, LIMIT, body);
}

/// Like [`test()`], with a limit of its own.
///
/// # Panics
/// As [`test()`] does.
pub fn test_within(name: &str, limit: Duration, body: impl FnOnce() -> Result<()>) {
    if inside() {
        run_inner_test(body);
    }
    if let Err(error) = run_outer_test(name, limit) {
        panic!("{error:#}");
    }
}

/// Runs this program again, with the same arguments, inside a cell, and answers with its exit code; `keep` lets the
/// inner run outlive this one by calling [`keep`].
///
/// # Errors
/// When the caller is not root, when the kernel refuses a namespace, when `limit` has passed.
pub fn enter(limit: Duration, may_keep: bool) -> Result<Entered> {
    let mut command = this_program()?;
    command.args(env::args_os().skip(1));
    let launch = Launch { command, limit, may_keep };
    match launch.run()? {
        Ending::Code(code) => Ok(Entered::Left(code)),
        Ending::Kept(kept) => Ok(Entered::Kept(kept)),
        Ending::Late => bail!("the cell did not end within {limit:?} and was killed"),
    }
}

/// How a cell ended for the process that entered it.
#[derive(Debug)]
pub enum Entered {
    /// Everything inside is gone; this was the exit code.
    Left(i32),
    /// The cell lives on in the background.
    Kept(Kept),
}

/// Whether this process is inside a cell.
///
/// The mark in the environment alone is not believed: it names the mount namespace outside, which must not be ours.
/// Otherwise a stray variable could mount over the machine's own directories.
#[must_use]
pub fn inside() -> bool {
    env::var(MARK).is_ok_and(|outer| mount_namespace().is_ok_and(|own| own != outer))
}

/// Makes the cell's mounts; the first thing an inner run calls.
///
/// # Errors
/// When called outside a cell, or when a mount is refused.
pub fn furnish() -> Result<()> {
    ensure!(inside(), "only a process inside a cell furnishes it");
    rooms::furnish()
}

/// Lets the cell live on without the process that started it, tells that process `code` and the `hosts`, and stays.
///
/// Process 1 lets go of the outer process first, so that there is no moment at which both believe the other holds on.
///
/// # Errors
/// When process 1 does not answer. On success it never returns: the caller's servers and hosts stay as they are until
/// somebody kills process 1.
pub fn keep(code: i32, hosts: Vec<KeptHost>) -> Result<Infallible> {
    launch::keep(code, hosts)
}

fn run_inner_test(body: impl FnOnce() -> Result<()>) -> ! {
    let outcome = catch_unwind(AssertUnwindSafe(|| furnish().and_then(|()| body())));
    let code = match outcome {
        Ok(Ok(())) => DONE,
        Ok(Err(error)) => {
            eprintln!("{error:#}");
            1
        }
        // The panic's own message is on stderr already.
        Err(_) => 101,
    };
    std::process::exit(code)
}

fn run_outer_test(name: &str, limit: Duration) -> Result<()> {
    let (output, writer) = std::io::pipe().context("a pipe for the output of the cell")?;
    let mut command = this_program()?;
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let launch = Launch { command, limit, may_keep: false };
    let reader = thread::spawn(move || read_all(output));
    let ending = launch.run();
    let output = reader.join().unwrap_or_default();
    match ending? {
        Ending::Code(DONE) => Ok(()),
        Ending::Code(0) => bail!("there is no test {name:?} in this executable:\n{output}"),
        Ending::Code(code) => bail!("failed in its cell with code {code}:\n{output}"),
        Ending::Late => bail!("not done within {limit:?}; its cell was killed:\n{output}"),
        Ending::Kept(_) => bail!("a test cannot keep its cell"),
    }
}

fn this_program() -> Result<Command> {
    ensure!(
        geteuid().is_root(),
        "needs root: run `cargo xtask test` as root (namespaces, veth and bpffs are for root only)"
    );
    let program = env::current_exe().context("the path of this executable")?;
    ensure!(
        !program.starts_with(ROOM),
        "{} lies in {ROOM}, which the cell covers: build to another directory",
        program.display()
    );
    let mut command = Command::new(program);
    command.env(MARK, mount_namespace()?);
    // Not /tmp: in a cell whose executable lies there, it is read-only like everything else.
    command.env("TMPDIR", ROOM);
    Ok(command)
}

fn mount_namespace() -> Result<String> {
    let link = Path::new("/proc/thread-self/ns/mnt");
    let name = link.read_link().with_context(|| format!("{}: is /proc mounted?", link.display()))?;
    Ok(name.display().to_string())
}

fn read_all(mut output: PipeReader) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is worth showing; an error here has no other consequence.
    let _ = output.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
