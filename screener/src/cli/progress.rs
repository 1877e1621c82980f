//! How far a long piece of work is: a line on standard error, redrawn in place, and only on a terminal.
//!
//! Holds the drawing. Never tells whether the work succeeded.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Work that is done sooner shows nothing.
const FIRST: Duration = Duration::from_millis(200);
const REDRAW: Duration = Duration::from_millis(100);
/// Characters of the bar.
const WIDTH: u64 = 30;
/// To the beginning of the line, and clear it.
const CLEAR: &str = "\r\x1b[2K";

#[derive(Default)]
struct Shared {
    done: AtomicU64,
    ended: Mutex<bool>,
    end: Condvar,
}

/// A piece of work; the line goes away when this is dropped.
pub(super) struct Progress {
    shared: Arc<Shared>,
    drawer: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins. `total` is in the unit of [`Progress::at`]; 0: it is not known, and only the time is shown.
    pub(super) fn begin(what: &'static str, total: u64) -> Self {
        let shared = Arc::new(Shared::default());
        let drawer = std::io::stderr().is_terminal().then(|| {
            let shared = Arc::clone(&shared);
            // Without a thread there is no bar, and the work goes on.
            std::thread::Builder::new().name("progress".to_owned()).spawn(move || draw(&shared, what, total)).ok()
        });
        Self { shared, drawer: drawer.flatten() }
    }

    /// So much is done.
    pub(super) fn at(&self, done: usize) {
        self.shared.done.store(done as u64, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.end.notify_all();
        if let Some(drawer) = self.drawer.take() {
            let _ = drawer.join();
        }
    }
}

fn draw(shared: &Shared, what: &str, total: u64) {
    let begun = Instant::now();
    let mut wait = FIRST;
    let mut ended = shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        ended = shared.end.wait_timeout(ended, wait).unwrap_or_else(PoisonError::into_inner).0;
        if *ended {
            break;
        }
        let line = line(what, shared.done.load(Ordering::Relaxed), total, begun.elapsed());
        let _ = write!(std::io::stderr(), "{CLEAR}{line}");
        wait = REDRAW;
    }
    if wait == REDRAW {
        let _ = write!(std::io::stderr(), "{CLEAR}");
    }
}

fn line(what: &str, done: u64, total: u64, since: Duration) -> String {
    let seconds = since.as_secs_f64();
    if total == 0 {
        return format!("{what} … {seconds:.1} s");
    }
    let done = done.min(total);
    let full = usize::try_from(done * WIDTH / total).unwrap_or(0);
    let bar = "#".repeat(full) + &"-".repeat(WIDTH as usize - full);
    format!("{what} [{bar}] {:3} % {seconds:.1} s", done * 100 / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_how_much_is_done_or_else_the_time() {
        let second = Duration::from_secs(1);
        assert_eq!(
            line("reading", 50, 100, second),
            format!("reading [{}{}]  50 % 1.0 s", "#".repeat(15), "-".repeat(15))
        );
        assert_eq!(line("reading", 200, 100, second), format!("reading [{}] 100 % 1.0 s", "#".repeat(30)));
        assert_eq!(line("building", 7, 0, second), "building … 1.0 s");
    }
}
