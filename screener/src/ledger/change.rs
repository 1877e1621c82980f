//! Following the passes: how a mirror (the kernel's map, a shared store) learns of each change.
//!
//! A [`Changes`] holds the *keys* that changed and reads the pass when it hands the change out. That cannot lose a
//! change: there is no queue to run over, a client that changed often is one key, and the last thing said about a client
//! is always its present state. It begins with every pass there is, so a mirror needs no other way to start.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Shared;
use super::pass::Pass;
use crate::client::ClientKey;

/// A client whose pass changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who.
    pub client: ClientKey,
    /// The pass as it is now; `None`: revoked or expired long ago.
    pub pass: Option<Pass>,
}

#[derive(Debug, Default)]
pub(super) struct Watcher {
    keys: Mutex<BTreeSet<ClientKey>>,
    notify: Notify,
}

impl Watcher {
    fn keys(&self) -> MutexGuard<'_, BTreeSet<ClientKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, client: ClientKey) {
        self.keys().insert(client);
        self.notify.notify_one();
    }
}

/// A stream of changes, from `Ledger::changes`.
#[derive(Debug)]
pub struct Changes {
    shared: Arc<Shared>,
    pub(super) watcher: Arc<Watcher>,
    /// Behind which client the next page of the beginning starts; `None`: all were handed out.
    beginning: Option<Bound<ClientKey>>,
}

impl Changes {
    pub(super) fn new(shared: Arc<Shared>, watcher: Arc<Watcher>) -> Self {
        Self { shared, watcher, beginning: Some(Bound::Unbounded) }
    }

    /// Whether every pass that was there at the beginning has been handed out: what a mirror holds beside what it was
    /// told by now is not in the ledger.
    pub fn caught_up(&self) -> bool {
        self.beginning.is_none()
    }

    /// Only what changes from now on is handed out.
    pub(super) fn skip_the_beginning(&mut self) {
        self.beginning = None;
    }

    /// At most `most` changes, without waiting.
    pub fn take(&mut self, most: usize) -> Vec<Change> {
        let most = most.max(1);
        if let Some(after) = self.beginning {
            let page = self.shared.page(after, most);
            self.beginning = page.last().filter(|_| page.len() == most).map(|(last, _)| Bound::Excluded(*last));
            if !page.is_empty() {
                return page.into_iter().map(|(client, pass)| Change { client, pass: Some(pass) }).collect();
            }
        }
        let keys: Vec<_> = {
            let mut keys = self.watcher.keys();
            let taken: Vec<_> = keys.iter().copied().take(most).collect();
            for key in &taken {
                keys.remove(key);
            }
            taken
        };
        // Read after the key was taken: a change from now on puts the key back.
        let passes = self.shared.passes();
        keys.into_iter()
            .map(|client| Change { client, pass: passes.by_client.get(&client).map(super::pass::Packed::unpack) })
            .collect()
    }

    /// At most `most` changes, at least one; waits for it. Dropping the future loses nothing.
    pub async fn next(&mut self, most: usize) -> Vec<Change> {
        loop {
            let changes = self.take(most);
            if !changes.is_empty() {
                return changes;
            }
            self.watcher.notify.notified().await;
        }
    }
}
