//! What the ledger is told of clients beside their passes, and what it tells of that.
//!
//! Holds the methods; the record is `history`'s, the table `histories`'. Never waits for the disk.

use super::heir::Said;
use super::histories::Histories;
use super::history::{Dropped, History, SessionNote, What};
use super::{Ledger, Shared};
use crate::client::ClientKey;
use crate::clock::UnixTime;

impl Ledger {
    /// Notes what a client did. Of `detail` 256 bytes are kept.
    pub fn note(&self, client: ClientKey, what: What, detail: String, now: UnixTime) {
        self.shared.heirs.tell(|| Said::Noted { client: client.address(), what, detail: detail.clone(), at: now });
        self.shared.changed(client, |histories| histories.note(client, what, detail, now));
    }

    /// Notes a session as a whole, when it is over or the mail server's: so a client that waits has no history yet, and each
    /// session costs the file one record.
    pub fn note_session(&self, client: ClientKey, note: SessionNote) {
        let said = || Said::Session { client: client.address(), note: Box::new(note.clone()) };
        self.shared.heirs.tell(said);
        self.shared.changed(client, |histories| histories.note_session(client, note));
    }

    /// Notes SYNs that the kernel kept out.
    pub fn note_drop(&self, client: ClientKey, dropped: Dropped) {
        self.shared.changed(client, |histories| histories.note_drop(client, dropped));
    }

    /// Notes when the kernel last let a client through by its pass.
    pub fn note_let_through(&self, client: ClientKey, at: UnixTime) {
        self.shared.changed(client, |histories| histories.note_let_through(client, at));
    }

    /// What is known about a client.
    pub fn history(&self, client: ClientKey) -> Option<History> {
        self.shared.histories().get(client).cloned()
    }

    /// Whether one of the last names that a client called itself is one of those asked for.
    pub fn is_called(&self, client: ClientKey, asked_for: impl Fn(&str) -> bool) -> bool {
        let histories = self.shared.histories();
        histories.get(client).is_some_and(|history| history.names.iter().any(|known| asked_for(&known.name)))
    }

    /// Erases what is known about a client; its pass stays. False: nothing was known.
    pub fn forget(&self, client: ClientKey) -> bool {
        let had = self.shared.histories().remove(client).is_some();
        if had {
            self.shared.histories_changed([client]);
        }
        had
    }
}

impl Shared {
    /// Changes what is known of a client, with what follows from it.
    fn changed(&self, client: ClientKey, change: impl FnOnce(&mut Histories) -> Vec<ClientKey>) {
        let evicted = change(&mut self.histories());
        self.store_status().evicted(evicted.len());
        self.histories_changed(evicted.into_iter().chain([client]));
    }
}
