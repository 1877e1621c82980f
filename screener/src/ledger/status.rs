//! How the ledger is doing, for `status` and the metrics.
//!
//! Holds what went wrong, as sentences for the operator. Never a client's address.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;

/// The state of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// Passes, expired ones within the retention included.
    pub passes: usize,
    /// Clients with a history.
    pub histories: usize,
    /// About how much memory the histories take, in bytes.
    pub history_bytes: usize,
    /// Histories that had to make room since the start.
    pub evicted: u64,
    /// Static entries made by command.
    pub statics: usize,
    /// Records changed and not yet written.
    pub queued: usize,
    /// Changes that were not kept singly because too many waited; the file was or will be written anew as a whole.
    pub dropped: u64,
    /// Batches written since the start.
    pub batches: u64,
    /// Batches that failed since the start.
    pub failures: u64,
    /// When the last batch was written.
    pub last_written: Option<UnixTime>,
    /// What is not as it should be, one sentence each; empty when all is well.
    pub degraded: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct StoreStatus {
    /// What happened to the file and stays true until the next start.
    lasting: Vec<String>,
    /// Why the disk takes nothing now.
    current: Option<String>,
    evicted: u64,
    batches: u64,
    failures: u64,
    last_written: Option<UnixTime>,
}

impl StoreStatus {
    /// True: it had failed before.
    pub(super) fn succeeded(&mut self, now: UnixTime) -> bool {
        self.batches += 1;
        self.last_written = Some(now);
        self.current.take().is_some()
    }

    /// What is to be said; `None`: a failure was said before, and nothing was written since.
    pub(super) fn failed(&mut self, reason: &str) -> Option<String> {
        self.failures += 1;
        let sentence = format!("{reason}; passes are kept in memory only and lost at a restart");
        self.current.replace(sentence.clone()).is_none().then_some(sentence)
    }

    pub(super) fn memory_only(&mut self, path: &Path, reason: &str) {
        self.failed(&format!("{} cannot be used: {reason}", path.display()));
    }

    pub(super) fn set_aside(&mut self, path: &Path, aside: &Path, reason: &str) -> String {
        self.lasting(format!(
            "{} was damaged ({reason}); it is kept as {} and a new one was begun",
            path.display(),
            aside.display()
        ))
    }

    pub(super) fn gone(&mut self, path: &Path) -> String {
        self.lasting(format!(
            "{} was removed while it was in use; a new one is written from what is in memory",
            path.display()
        ))
    }

    pub(super) fn replaced(&mut self, path: &Path, aside: &Path) -> String {
        self.lasting(format!(
            "another file was put in the place of {} while it was in use; that one is kept as {} and was not read: to put a \
             backup back, stop the daemon first",
            path.display(),
            aside.display()
        ))
    }

    /// Once, however often it happens.
    fn lasting(&mut self, sentence: String) -> String {
        if !self.lasting.contains(&sentence) {
            self.lasting.push(sentence.clone());
        }
        sentence
    }

    pub(super) fn unreadable(&mut self, path: &Path, records: u64) {
        if records > 0 {
            self.lasting
                .push(format!("{records} records of {} could not be understood and are ignored", path.display()));
        }
    }

    pub(super) fn evicted(&mut self, clients: usize) {
        self.evicted += clients as u64;
    }

    pub(super) fn sentences(&self) -> Vec<String> {
        self.lasting.iter().chain(&self.current).cloned().collect()
    }

    /// Adds what is known here.
    pub(super) fn fill(&self, status: &mut LedgerStatus) {
        status.evicted = self.evicted;
        status.batches = self.batches;
        status.failures = self.failures;
        status.last_written = self.last_written;
        status.degraded = self.sentences();
    }
}
