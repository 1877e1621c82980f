//! Starting a cell from outside, and process 1 inside it.
//!
//! The life line is the kernel's: process 1 asks to be killed when the thread that forked it dies, and that thread does
//! nothing but wait for process 1. Process 1 is a fork of that thread which never runs another program and only makes
//! calls that are safe after a fork of a threaded process.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde::{Deserialize, Serialize};

use super::root;
use crate::cell::ROOM;
use crate::wait;

/// A program to run inside a new cell.
pub(super) struct Launch {
    /// The inner program; it becomes process 2 of the cell.
    pub(super) command: Command,
    /// After this time of the wall clock everything inside is killed.
    pub(super) limit: Duration,
    /// Whether the inner program may outlive the outer one.
    pub(super) may_keep: bool,
}

/// How a cell ended.
pub(super) enum Ending {
    /// The inner program's exit code, or 128 plus the signal that ended it.
    Code(i32),
    /// The cell lives on.
    Kept(Kept),
    /// The limit passed.
    Late,
}

/// A cell that lives on in the background.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    /// What the inner program would have exited with.
    pub code: i32,
    /// The cell's process 1, by its number outside: killing it ends everything.
    pub pid: i32,
    /// The hosts inside.
    pub hosts: Vec<KeptHost>,
}

/// A host of a cell that lives on.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeptHost {
    /// The host's name.
    pub name: String,
    /// The host's holder: inside the cell its number there, outside its number outside.
    pub pid: i32,
}

impl Launch {
    /// Runs the cell to its end.
    pub(super) fn run(self) -> Result<Ending> {
        // A thread of its own: creating a PID namespace binds all later children of the thread to it, and the death
        // signal of process 1 is tied to this thread's life.
        thread::spawn(move || self.run_here()).join().map_err(|_| anyhow!("the thread that holds the cell panicked"))?
    }

    fn run_here(mut self) -> Result<Ending> {
        let outer = pidfd_open(getpid(), PidfdFlags::empty()).context("a descriptor of this process")?;
        let life_line = outer.as_raw_fd();
        // SAFETY: a new PID namespace for children changes nothing for this thread's memory or descriptors; this
        // thread starts no other thread afterwards, which the kernel would refuse.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.context("a new PID namespace (needs CAP_SYS_ADMIN)")?;
        // SAFETY: `become_init` makes only system calls, allocates nothing and takes no lock, as the fork of a
        // threaded process must.
        unsafe { self.command.pre_exec(move || become_init(life_line)) };
        let mut child = self.command.spawn().context("the cell's namespaces")?;
        let deadline = Instant::now() + self.limit;
        loop {
            if let Some(status) = child.try_wait().context("waiting for the cell")? {
                return Ok(Ending::Code(code_of(status)));
            }
            if self.may_keep
                && let Some(kept) = kept(&child)?
            {
                return Ok(Ending::Kept(kept));
            }
            if Instant::now() >= deadline {
                child.kill().context("killing the cell")?;
                child.wait().context("waiting for the killed cell")?;
                return Ok(Ending::Late);
            }
            sleep(Duration::from_millis(10));
        }
    }
}

/// See [`super::keep`].
pub(super) fn keep(code: i32, hosts: Vec<KeptHost>) -> Result<Infallible> {
    kill_process(Pid::INIT, Signal::USR1).context("process 1 of the cell")?;
    wait::until("process 1 to let go", Duration::from_secs(5), || {
        let name = fs::read_to_string("/proc/1/comm").ok()?;
        (name.trim_end() == KEPT_NAME).then_some(())
    })?;
    let kept = Kept { code, pid: 1, hosts };
    let draft = format!("{ROOM}/.kept");
    fs::write(&draft, serde_json::to_vec(&kept)?).with_context(|| draft.clone())?;
    fs::rename(&draft, format!("{ROOM}/{KEPT_FILE}")).context("publishing that the cell is kept")?;
    quiet();
    loop {
        thread::park();
    }
}

/// Where a kept cell describes itself, below [`ROOM`].
const KEPT_FILE: &str = "kept.json";

/// The name that process 1 takes when it has let go of the outer process.
const KEPT_NAME: &str = "screener-cell";

/// The inner program, for process 1's signal handlers.
static INNER: AtomicI32 = AtomicI32::new(0);

/// How long the inner program has to answer a signal that was passed on to it, in seconds.
const GRACE: u32 = 3;

/// Runs in the fork, which is process 1 of the new PID namespace: makes the other namespaces, forks once more, and
/// returns only in that second fork, to run the inner program. Process 1 itself stays here until it exits.
fn become_init(life_line: RawFd) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if outer_is_dead(life_line) {
        exit(1);
    }
    // SAFETY: this process has one thread, shares no descriptors or memory, and passes on only what it inherited.
    unsafe {
        unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC)?;
    }
    root::privatise()?;
    // SAFETY: one thread, see above; both sides go on with system calls only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        inner => hold(inner),
    }
}

/// Process 1's whole life: pass signals on, collect the dead, leave when the inner program has ended.
fn hold(inner: i32) -> ! {
    INNER.store(inner, Ordering::SeqCst);
    for (signal, handler) in [
        (libc::SIGINT, pass_on as extern "C" fn(i32)),
        (libc::SIGTERM, pass_on),
        (libc::SIGHUP, pass_on),
        (libc::SIGALRM, give_up),
        (libc::SIGUSR1, let_go),
    ] {
        // SAFETY: the handlers make only calls that are safe in a handler.
        unsafe { libc::signal(signal, handler as *const () as libc::sighandler_t) };
    }
    // The descriptors of the outer process are not ours to hold open: above all not the pipe on which the outer
    // `spawn` waits for the inner program to start.
    // SAFETY: nothing in this process uses a descriptor from 3 on.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the answer.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if pid == inner {
            exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) });
        }
        if pid == -1 && errno() == libc::ECHILD {
            exit(1);
        }
    }
}

extern "C" fn pass_on(signal: i32) {
    // SAFETY: both calls are safe in a handler; the inner program is a child that this process has not collected.
    unsafe {
        libc::kill(INNER.load(Ordering::SeqCst), signal);
        libc::alarm(GRACE);
    }
}

extern "C" fn give_up(_signal: i32) {
    exit(128 + libc::SIGTERM);
}

extern "C" fn let_go(_signal: i32) {
    // SAFETY: system calls only; the name is a constant C string.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, 0);
        // A kept cell must not hold the terminal or pipe of the command that made it.
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for standard in 0..=2 {
            libc::dup2(null, standard);
        }
        libc::prctl(libc::PR_SET_NAME, KEPT_NAME_C.as_ptr());
    }
}

/// [`KEPT_NAME`] for a handler, which may not convert it.
const KEPT_NAME_C: &std::ffi::CStr = c"screener-cell";

fn outer_is_dead(life_line: RawFd) -> bool {
    let mut poll = libc::pollfd { fd: life_line, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry, and a timeout of 0 does not wait.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

/// Ends this process without any of the outer program's exit handlers.
fn exit(code: i32) -> ! {
    // SAFETY: has no precondition and does not return.
    unsafe { libc::_exit(code) }
}

fn errno() -> i32 {
    // SAFETY: the location of this thread's errno is always valid.
    unsafe { *libc::__errno_location() }
}

/// Leaves the terminal: a process that stays in the background must hold neither it nor the caller's pipe.
fn quiet() {
    // SAFETY: system calls on descriptors that stay valid throughout; a failure leaves things as they were.
    unsafe {
        libc::setsid();
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if null >= 0 {
            for standard in 0..=2 {
                libc::dup2(null, standard);
            }
        }
        // The inner program ignores the end of its terminal from here on.
        libc::sigaction(libc::SIGHUP, &ignore(), ptr::null_mut());
    }
}

fn ignore() -> libc::sigaction {
    // SAFETY: all zeroes is a valid sigaction: no flags, an empty mask; the handler follows.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = libc::SIG_IGN;
    action
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// What the cell says about itself once it is kept, with process numbers as they are out here.
fn kept(child: &Child) -> Result<Option<Kept>> {
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let file = process.join("root").join(ROOM.trim_start_matches('/')).join(KEPT_FILE);
    let Ok(text) = fs::read(file) else {
        return Ok(None);
    };
    let mut kept: Kept = serde_json::from_slice(&text).context("the kept cell's description")?;
    kept.pid = i32::try_from(child.id()).context("the cell's process number")?;
    let namespace = fs::read_link(process.join("ns/pid")).context("the cell's PID namespace")?;
    for host in &mut kept.hosts {
        host.pid = pid_outside(&namespace, host.pid)
            .with_context(|| format!("no process {} in the cell for host {}", host.pid, host.name))?;
    }
    Ok(Some(kept))
}

fn pid_outside(namespace: &Path, inner: i32) -> Option<i32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let outer: i32 = entry.file_name().to_str()?.parse().ok()?;
        let same = fs::read_link(entry.path().join("ns/pid")).ok()? == namespace;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let last: i32 = numbers.split_whitespace().last()?.parse().ok()?;
        (same && last == inner).then_some(outer)
    })
}
