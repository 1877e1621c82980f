//! The way of log lines to standard error or the journal: a buffer of bounded size, and a thread that writes it.
//!
//! Whoever logs never waits for the log's reader: a pipe that nobody empties, a journal that is restarted, a terminal that is
//! stopped must not hold up a session. Lines for which there is no room are lost and counted, and told of as soon as
//! lines are taken again. Lines keep their order; a few milliseconds of them are written in one call.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// How much waits to be written: some 40,000 lines, the tests of 10,000 clients.
const ROOM: usize = 4 << 20;
/// How long lines gather before they are written together. A person does not notice; a flood makes one call of hundreds.
const GATHER: Duration = Duration::from_millis(5);
/// How long after the last line the writer still looks for the next by itself. Waking it would be the session's work, and on
/// a small machine the writer would take the place of whoever woke it.
const STAY_AWAKE: Duration = Duration::from_millis(250);
/// How soon a log that takes nothing for the moment (a descriptor that does not block) is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// A buffer that has grown beyond this is given back.
const USUAL: usize = 64 << 10;
/// How long the last lines may take at the end: a log that is stuck does not keep the daemon from going.
const LAST_LINES: Duration = Duration::from_secs(2);
/// How long lost lines show in `status`.
const A_WHILE: Duration = Duration::from_secs(60);

/// The log of this process, for [`trouble`] and [`lost`].
static LOG: OnceLock<Arc<Shared>> = OnceLock::new();

/// Lines of the log that were lost since the start.
pub fn lost() -> u64 {
    LOG.get().map_or(0, |log| log.state().lost)
}

/// A sentence about lines that were lost just now.
pub fn trouble() -> Option<String> {
    let log = LOG.get()?;
    let state = log.state();
    state.lost_at.filter(|at| at.elapsed() < A_WHILE)?;
    let lost = state.lost;
    Some(format!("the log does not take lines as fast as they come: {lost} were lost; see what reads standard error"))
}

/// Where lines are put.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Shared>);

/// Writes what is left when it is dropped.
#[derive(Debug)]
pub struct Flush(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    room: usize,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// How many these are.
    waiting: u64,
    lost: u64,
    lost_at: Option<Instant>,
    /// The writer waits for the first line.
    idle: bool,
    closing: bool,
    /// The writer has ended.
    done: bool,
}

impl Sink {
    /// Begins to write to `out`.
    pub(super) fn new(out: impl Write + Send + 'static) -> io::Result<(Self, Flush)> {
        Self::with_room(ROOM, out)
    }

    fn with_room(room: usize, out: impl Write + Send + 'static) -> io::Result<(Self, Flush)> {
        let log = Arc::new(Shared { state: Mutex::default(), wake: Condvar::new(), room });
        let own = Arc::clone(&log);
        thread::Builder::new().name("log".to_owned()).spawn(move || own.run(out))?;
        Ok((Self(Arc::clone(&log)), Flush(log)))
    }

    /// Makes this the log of the process.
    pub(super) fn announce(&self) {
        // A second one is refused by tracing already.
        let _ = LOG.set(Arc::clone(&self.0));
    }
}

impl Write for &Shared {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.lines.len() + line.len() > self.room {
            state.lost += 1;
            state.lost_at = Some(Instant::now());
        } else {
            state.lines.extend_from_slice(line);
            state.waiting += 1;
            if std::mem::take(&mut state.idle) {
                self.wake.notify_one();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = &'a Shared;

    fn make_writer(&'a self) -> Self::Writer {
        &self.0
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A line goes in as a whole: a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's life.
    fn run(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        let mut told = 0;
        while let Some(count) = self.take(&mut lines) {
            if let Err(error) = write_all(&mut out, &lines) {
                let mut state = self.state();
                state.lost += count;
                state.lost_at = Some(Instant::now());
                drop(state);
                if matches!(error.kind(), io::ErrorKind::BrokenPipe) {
                    // Nobody will read it any more; what comes is counted as lost, and no session notices.
                    thread::sleep(TRY_AGAIN);
                }
            } else {
                let lost = self.state().lost;
                if lost > told {
                    tracing::warn!("{} log lines were lost: the log did not take them in time", lost - told);
                    told = lost;
                }
            }
            lines.clear();
            lines.shrink_to(USUAL);
        }
        self.state().done = true;
        self.wake.notify_all();
    }

    /// Waits for lines, takes them, and says how many they are. `None`: there are none left, and none will come.
    fn take(&self, lines: &mut Vec<u8>) -> Option<u64> {
        let doze = Instant::now() + STAY_AWAKE;
        let mut state = self.state();
        // In any case for a while: what comes alone is often followed.
        state = self.wait_at_most(state, GATHER);
        while state.lines.is_empty() && !state.closing {
            if Instant::now() < doze {
                state = self.wait_at_most(state, GATHER);
                continue;
            }
            state.idle = true;
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
            state = self.wait_at_most(state, GATHER);
        }
        std::mem::swap(&mut state.lines, lines);
        let count = std::mem::take(&mut state.waiting);
        (!lines.is_empty()).then_some(count)
    }

    fn wait_at_most<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.wake.wait_timeout_while(state, time, |state| !state.closing).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Like `Write::write_all`, but for a descriptor that does not block it waits too.
fn write_all(out: &mut impl Write, mut lines: &[u8]) -> io::Result<()> {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => lines = &lines[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(TRY_AGAIN),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Drop for Flush {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closing = true;
        self.0.wake.notify_all();
        // Late or not: there is nothing else to be done.
        drop(self.0.wake.wait_timeout_while(state, LAST_LINES, |state| !state.done));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// A log whose reader takes a write when the test says so.
    struct Gate {
        taken: Arc<Mutex<Vec<u8>>>,
        open: Receiver<()>,
    }

    impl Write for Gate {
        fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
            // The test has let go of its end: everything may pass.
            let _ = self.open.recv();
            self.taken.lock().unwrap().extend_from_slice(lines);
            Ok(lines.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated(room: usize) -> (Sink, Flush, SyncSender<()>, Arc<Mutex<Vec<u8>>>) {
        let (open, gate) = sync_channel(16);
        let taken = Arc::default();
        let (sink, flush) = Sink::with_room(room, Gate { taken: Arc::clone(&taken), open: gate }).unwrap();
        (sink, flush, open, taken)
    }

    #[test]
    fn lines_come_out_in_order_and_the_last_at_the_end() {
        let (sink, flush, open, taken) = gated(ROOM);
        drop(open);
        for number in 0..1000 {
            writeln!(&*sink.0, "line {number}").unwrap();
        }
        drop(flush);
        let expected: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        // `writeln!` makes several writes of a line; the subscriber makes one.
        assert_eq!(String::from_utf8(taken.lock().unwrap().clone()).unwrap(), expected);
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_what_is_lost_is_counted() {
        let (sink, flush, open, taken) = gated(100);
        // Until the buffer stays full: then the writer holds one buffer, and the next is full, too.
        while sink.0.state().lost == 0 {
            (&*sink.0).write_all(b"a line of the log\n").unwrap();
        }
        let lost = sink.0.state().lost;
        (&*sink.0).write_all(&[b'x'; 100]).unwrap();
        assert_eq!(sink.0.state().lost, lost + 1);
        drop(open);
        drop(flush);
        let taken = taken.lock().unwrap();
        assert!(taken.len() <= 200 && taken.ends_with(b"a line of the log\n"), "{}", taken.escape_ascii());
    }
}
