//! What sessions still have to say after the file has gone to another daemon: told on, in the order in which it came.
//!
//! Holds the form of it. Never waits: where the one who listens is too slow, what does not fit is lost and counted.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

use super::{Ledger, Origin, SessionNote, What};
use crate::client::ClientKey;
use crate::clock::UnixTime;
use crate::pass::{Stamps, Test};

/// One thing that the ledger was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// A pass was given or extended.
    Granted {
        /// Who.
        client: IpAddr,
        /// Until when, test by test; a test that is not there was not passed.
        until: Vec<(Test, UnixTime)>,
        /// By what.
        origin: Origin,
        /// When.
        at: UnixTime,
    },
    /// One test of a pass was taken back.
    Withdrawn {
        /// Whose.
        client: IpAddr,
        /// Which.
        test: Test,
    },
    /// A client did something.
    Noted {
        /// Who.
        client: IpAddr,
        /// What.
        what: What,
        /// The particulars.
        detail: String,
        /// When.
        at: UnixTime,
    },
    /// A session ended.
    Session {
        /// Whose.
        client: IpAddr,
        /// What it left behind.
        note: Box<SessionNote>,
    },
}

/// Who listens, if anybody does.
#[derive(Debug, Default)]
pub(super) struct Heirs {
    to: ArcSwapOption<SyncSender<Said>>,
    lost: AtomicU64,
}

impl Heirs {
    pub(super) fn tell(&self, said: impl FnOnce() -> Said) {
        let to = self.to.load();
        if let Some(to) = &*to
            && to.try_send(said()).is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn granted(&self, client: ClientKey, stamps: &Stamps, origin: Origin, at: UnixTime) {
        self.tell(|| {
            let until = Test::ALL.into_iter().filter_map(|test| Some((test, stamps.get(test)?))).collect();
            Said::Granted { client: client.address(), until, origin, at }
        });
    }
}

impl Ledger {
    /// Tells somebody else too what the ledger is told from now on; `None`: nobody any more. Returns how much was lost since.
    pub fn tell_on(&self, to: Option<SyncSender<Said>>) -> u64 {
        self.shared.heirs.to.store(to.map(Into::into));
        self.shared.heirs.lost.swap(0, Ordering::Relaxed)
    }

    /// Takes in what another ledger was told.
    pub fn hear(&self, said: Said) {
        let key = |client| ClientKey::of(client, self.shared.options.ipv6_key);
        match said {
            Said::Granted { client, until, origin, at } => {
                let mut stamps = Stamps::default();
                until.into_iter().for_each(|(test, until)| stamps.set(test, Some(until)));
                self.grant(key(client), &stamps, origin, None, at);
            }
            Said::Withdrawn { client, test } => {
                self.withdraw(key(client), test);
            }
            Said::Noted { client, what, detail, at } => self.note(key(client), what, detail, at),
            Said::Session { client, note } => self.note_session(key(client), *note),
        }
    }
}
