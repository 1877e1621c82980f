//! What happens to passes, told as it happens: for those who watch.
//!
//! Holds a bounded line to each watcher. Never waits for one: who is too slow loses the oldest news and hears how many. A
//! mirror wants `change` instead, which loses nothing and keeps no order.

use tokio::sync::broadcast;

use super::Ledger;
use super::pass::Pass;
use crate::client::ClientKey;
use crate::pass::Test;

/// How many news wait for the slowest watcher.
const WAITING: usize = 4096;
/// How many may watch at a time.
const WATCHERS: usize = 16;

/// What happened to a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// The client had none that counted.
    Granted,
    /// It counts for longer, for more tests, or says something else.
    Extended,
    /// One test was taken back.
    Withdrawn(Test),
    /// It was taken away.
    Revoked,
}

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whose pass.
    pub client: ClientKey,
    /// What happened.
    pub happened: Happened,
    /// The pass as it is now; as it was, if it was revoked.
    pub pass: Option<Pass>,
}

/// Who watches. Without anybody nothing is built.
#[derive(Debug, Default)]
pub(super) struct Watched(Option<broadcast::Sender<News>>);

impl Watched {
    pub(super) fn tell(&mut self, client: ClientKey, what: impl FnOnce() -> (Happened, Option<Pass>)) {
        let Some(sender) = &self.0 else { return };
        let (happened, pass) = what();
        if sender.send(News { client, happened, pass }).is_err() {
            // The last watcher has left.
            self.0 = None;
        }
    }
}

impl Ledger {
    /// What happens to passes from now on; `None`: as many watch as may.
    pub fn watch(&self) -> Option<broadcast::Receiver<News>> {
        let mut table = self.shared.passes();
        let sender = table.news.0.get_or_insert_with(|| broadcast::Sender::new(WAITING));
        (sender.receiver_count() < WATCHERS).then(|| sender.subscribe())
    }
}
