//! Processes of the lab: started, watched through their logs, and ended with their owner.
//!
//! Never leaves a process behind its handle: dropping one kills its whole process group.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::cell;
use crate::wait::{until, until_or_show};

/// A program in the background.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

/// Numbers the logs of a cell, so that a program that is started twice has two.
static STARTED: AtomicU32 = AtomicU32::new(0);

impl Proc {
    /// Starts a program whose process group is its own; `place` becomes part of the log's name.
    pub(crate) fn spawn(place: &str, command: &mut Command) -> Result<Self> {
        let program = PathBuf::from(command.get_program());
        let short = program.file_name().unwrap_or(program.as_os_str());
        let name = format!("{place}-{}", short.display());
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = cell::directory("log")?.join(format!("{number:02}-{name}.log"));
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let child = command
            .stdout(file.try_clone().context("a second handle of the log")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {} for {place}", program.display()))?;
        Ok(Self { name, child, log, ended: None })
    }

    /// The process number in the cell.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// What it has printed until now.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for a printed line that holds `pattern`, and gives the first such line.
    ///
    /// # Errors
    /// When there is none in time, or when the program ends without one; the error shows the end of the log.
    pub fn wait_for_line(&mut self, pattern: &str, timeout: Duration) -> Result<String> {
        let what = format!("{} to print {pattern:?}", self.name);
        let log = self.log.clone();
        let shown = || fs::read_to_string(&log).unwrap_or_default();
        until_or_show(&what, timeout, shown, || {
            // First the end, then the log: the last words of a program must not be missed.
            let ended = self.ended()?;
            let text = self.log();
            let line = text.lines().find(|line| line.contains(pattern));
            ensure!(
                line.is_some() || ended.is_none(),
                "{} ended ({}) without printing {pattern:?}; its log:\n{text}",
                self.name,
                ended.unwrap_or_default()
            );
            Ok(line.map(str::to_owned))
        })
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("asking how {} is", self.name))?;
        }
        Ok(self.ended)
    }

    /// Sends a signal to the program alone.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.ended()?.is_none(), "{} has ended and cannot be signalled", self.name);
        kill_process(self.pid()?, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        let log = self.log.clone();
        let shown = || fs::read_to_string(&log).unwrap_or_default();
        until_or_show(&what, timeout, shown, || self.ended())
    }

    /// Kills the program and whatever it started in its process group, and waits for the end of the program.
    ///
    /// # Errors
    /// When the kernel does not say that it ended.
    pub fn kill(&mut self) -> Result<()> {
        if self.ended()?.is_none() {
            kill_process_group(self.pid()?, Signal::KILL).with_context(|| format!("killing {}", self.name))?;
            self.wait(Duration::from_secs(10))?;
        }
        Ok(())
    }

    fn pid(&self) -> Result<Pid> {
        Pid::from_raw(self.child.id().cast_signed()).context("a process number")
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        // The cell ends whatever resists.
        let _ = self.kill();
    }
}

/// What the kernel says of a process's memory, in bytes: `VmRSS` is what it holds, `VmHWM` the most that it ever held.
///
/// # Errors
/// When it has ended.
pub fn memory(process: u32, which: &str) -> Result<u64> {
    let path = format!("/proc/{process}/status");
    let status = fs::read_to_string(&path).with_context(|| path.clone())?;
    let mut values = status.lines().filter_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
    let value = values.next().with_context(|| format!("no {which} in {path}"))?;
    let kilobytes: u64 = value.trim().trim_end_matches(" kB").parse().with_context(|| value.to_owned())?;
    Ok(kilobytes * 1024)
}

/// Runs a program to its end with a limit.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let shown = format!("{command:?}");
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| format!("starting {shown}"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let ended = until(&format!("{shown} to end"), limit, || child.try_wait().transpose());
    let status = match ended {
        Ok(status) => status.with_context(|| format!("waiting for {shown}"))?,
        Err(late) => {
            if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
                // The group is the command's own: see `Host::command`. A program that just ended is no concern.
                let _ = kill_process_group(pid, Signal::KILL);
            }
            let _ = child.wait();
            let printed = String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned();
            return Err(late.context(printed));
        }
    };
    Ok(Output {
        status: ExitStatus::from_raw(status.into_raw()),
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is still worth having.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
