//! What still has to be written: the keys of what changed, never the values.
//!
//! The writer reads the values from memory when it writes, so a client that changes ten times between two commits is
//! written once, and what reaches the file is always the latest. Never blocks the one who notes a change.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::client::ClientKey;

/// One batch.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) passes: HashSet<ClientKey>,
    pub(super) histories: HashSet<ClientKey>,
    pub(super) statics: HashSet<IpNet>,
    pub(super) offenders: HashSet<IpNet>,
    /// A list came in: every static entry is written, in one commit.
    pub(super) all_statics: bool,
    /// More changed than was noted: the file must be made equal to memory as a whole.
    pub(super) everything: bool,
}

impl Work {
    pub(super) fn len(&self) -> usize {
        self.passes.len() + self.histories.len() + self.statics.len() + self.offenders.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && !self.all_statics && !self.everything
    }

    /// Lets go of the keys and asks for everything instead. Returns how many keys that were.
    fn overflow(&mut self) -> usize {
        let keys = self.len();
        *self = Self { everything: true, ..Self::default() };
        keys
    }
}

#[derive(Debug, Default)]
struct State {
    work: Work,
    /// When the first thing of this work was noted.
    since: Option<Instant>,
    dropped: u64,
    /// Flushes asked for, and how many of them are answered, and how the last answer went.
    asked: u64,
    answered: u64,
    failure: Option<String>,
    stop: bool,
    /// The writer has left.
    gone: bool,
    /// The file is to be closed, and stay so.
    let_go: bool,
    /// It is closed.
    closed: bool,
}

impl State {
    /// For the writer: the work, and the number of the last flush that it answers.
    fn taken(&mut self) -> (Work, u64) {
        self.since = None;
        (std::mem::take(&mut self.work), self.asked)
    }
}

/// The queue between those who change the ledger and the writer.
#[derive(Debug)]
pub(super) struct Pending {
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
    capacity: usize,
    batch: usize,
}

impl Pending {
    pub(super) fn new(capacity: usize, batch: usize) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), done: Condvar::new(), capacity, batch }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, put: impl FnOnce(&mut Work) -> bool) {
        let mut state = self.state();
        if state.work.everything {
            return;
        }
        let first = state.work.is_empty();
        if first {
            // Not when the writer comes to see it: it may have been at the batch before for a while.
            state.since = Some(Instant::now());
        }
        if put(&mut state.work) && state.work.len() > self.capacity {
            let keys = state.work.overflow();
            state.dropped += keys as u64;
        }
        if first || state.work.len() == self.batch || state.work.all_statics || state.work.everything {
            self.wake.notify_one();
        }
    }

    pub(super) fn pass(&self, client: ClientKey) {
        self.mark(|work| work.passes.insert(client));
    }

    pub(super) fn history(&self, client: ClientKey) {
        self.mark(|work| work.histories.insert(client));
    }

    pub(super) fn prefix(&self, prefix: IpNet) {
        self.mark(|work| work.statics.insert(prefix));
    }

    pub(super) fn offender(&self, network: IpNet) {
        self.mark(|work| work.offenders.insert(network));
    }

    /// The file is to be written as a whole.
    pub(super) fn everything(&self) {
        self.mark(|work| {
            work.overflow();
            false
        });
    }

    /// A list of prefixes, too long to be noted one by one.
    pub(super) fn all_statics(&self) {
        self.mark(|work| {
            work.all_statics = true;
            false
        });
    }

    /// Keys noted and not yet written, and the keys ever let go of because there were too many.
    pub(super) fn depth(&self) -> (usize, u64) {
        let state = self.state();
        (state.work.len(), state.dropped)
    }

    /// Waits until everything noted before the call is on the disk, or the reason why it is not.
    pub(super) fn flush(&self) -> Result<(), String> {
        let mut state = self.state();
        state.asked += 1;
        let ticket = state.asked;
        if state.let_go {
            state.asked -= 1;
            return Err("the file is in the hands of another daemon".to_owned());
        }
        self.wake.notify_one();
        while state.answered < ticket && !state.gone {
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match &state.failure {
            Some(reason) => Err(reason.clone()),
            None if state.answered < ticket => Err("the writer has stopped".to_owned()),
            None => Ok(()),
        }
    }

    /// Waits until everything is on the disk and the file is closed, or the reason why it is not.
    pub(super) fn let_go(&self) -> Result<(), String> {
        self.flush()?;
        let mut state = self.state();
        state.let_go = true;
        self.wake.notify_one();
        while !state.closed && !state.gone && state.let_go {
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match &state.failure {
            Some(reason) if !state.let_go => Err(reason.clone()),
            _ => Ok(()),
        }
    }

    pub(super) fn take_back(&self) {
        let mut state = self.state();
        (state.let_go, state.closed) = (false, false);
        self.wake.notify_one();
    }

    /// For the writer: the file is closed.
    pub(super) fn closed(&self) {
        self.state().closed = true;
        self.done.notify_all();
    }

    /// For the writer: whether it is to close the file when a batch is written.
    pub(super) fn is_let_go(&self) -> bool {
        self.state().let_go
    }

    pub(super) fn stop(&self) {
        self.state().stop = true;
        self.wake.notify_one();
    }

    /// For the writer: waits for a batch and takes it, with the number of the last flush it answers.
    ///
    /// A batch is due `interval` after its first change, or when it is full, and not before `not_before` unless
    /// somebody waits for it. `None`: nothing is left and the ledger closes.
    pub(super) fn take(&self, interval: Duration, not_before: Option<Instant>) -> Option<(Work, u64)> {
        let mut state = self.state();
        loop {
            if state.let_go && state.closed {
                // Nothing is written any more, not at the end either: the file is another daemon's.
                if state.stop {
                    return None;
                }
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if state.let_go {
                return Some(state.taken());
            }
            if state.asked > state.answered || state.stop {
                if state.stop && state.work.is_empty() && state.asked == state.answered {
                    return None;
                }
                return Some(state.taken());
            }
            if state.work.is_empty() {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let now = Instant::now();
            let end = state.since.unwrap_or(now) + interval;
            let full = state.work.everything || state.work.all_statics || state.work.len() >= self.batch;
            let wait = if full { now } else { end }.max(not_before.unwrap_or(now)).saturating_duration_since(now);
            if wait.is_zero() {
                return Some(state.taken());
            }
            state = self.wake.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// For the writer: what could not be written goes back behind what came meanwhile.
    pub(super) fn put_back(&self, work: Work) {
        let mut state = self.state();
        state.since = state.since.or_else(|| Some(Instant::now()));
        if state.work.everything || work.everything {
            state.work.overflow();
            return;
        }
        state.work.passes.extend(work.passes);
        state.work.histories.extend(work.histories);
        state.work.statics.extend(work.statics);
        state.work.offenders.extend(work.offenders);
        state.work.all_statics |= work.all_statics;
        if state.work.len() > self.capacity {
            let keys = state.work.overflow();
            state.dropped += keys as u64;
        }
    }

    /// For the writer: the flushes up to `ticket` are answered.
    pub(super) fn answer(&self, ticket: u64, failure: Option<String>) {
        let mut state = self.state();
        state.answered = ticket;
        // Where the last batch cannot be written the file stays.
        state.let_go &= failure.is_none();
        state.failure = failure;
        self.done.notify_all();
    }

    /// For the writer: it leaves.
    pub(super) fn leave(&self) {
        self.state().gone = true;
        self.done.notify_all();
    }

    /// Whether the ledger closes.
    pub(super) fn stopping(&self) -> bool {
        self.state().stop
    }
}
