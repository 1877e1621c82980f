//! All histories, within their limits.
//!
//! Holds the table of them and their order by age. Never grows beyond its limits: who is known from forged or dropped SYNs
//! alone goes first, then the client not seen for the longest time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::history::{Dropped, History, SessionNote, What};
use crate::client::ClientKey;
use crate::clock::UnixTime;

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) events: usize,
    pub(super) clients: usize,
    pub(super) bytes: usize,
}

/// In which order clients go: whether it was really here, when it was last seen, who it is.
pub(super) type Age = (bool, UnixTime, ClientKey);

/// The table.
#[derive(Debug)]
pub(super) struct Histories {
    limits: Limits,
    /// Not hashed: a table that grows holds everybody up while it moves, and is half empty then.
    clients: BTreeMap<ClientKey, History>,
    /// The same clients in the order in which they go.
    by_age: BTreeSet<Age>,
    cost: usize,
}

fn age(client: ClientKey, history: &History) -> Age {
    (!history.is_hearsay(), history.last_seen, client)
}

impl Histories {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, clients: BTreeMap::new(), by_age: BTreeSet::new(), cost: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    /// About how much memory they take, in bytes.
    pub(super) fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn get(&self, client: ClientKey) -> Option<&History> {
        self.clients.get(&client)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = ClientKey> {
        self.clients.keys().copied()
    }

    /// Notes an event and returns the clients that had to make room.
    pub(super) fn note(&mut self, client: ClientKey, what: What, detail: String, now: UnixTime) -> Vec<ClientKey> {
        let keep = self.limits.events;
        self.change(client, now, |history| history.note(what, detail, now, keep))
    }

    /// Notes a session and returns the clients that had to make room.
    pub(super) fn note_session(&mut self, client: ClientKey, note: SessionNote) -> Vec<ClientKey> {
        let keep = self.limits.events;
        self.change(client, note.began, |history| history.note_session(note, keep))
    }

    /// Notes SYNs that the kernel kept out and returns the clients that had to make room.
    pub(super) fn note_drop(&mut self, client: ClientKey, dropped: Dropped) -> Vec<ClientKey> {
        self.change(client, dropped.since, |history| history.note_drop(dropped))
    }

    /// Notes when the kernel last let a client through and returns the clients that had to make room.
    pub(super) fn note_let_through(&mut self, client: ClientKey, at: UnixTime) -> Vec<ClientKey> {
        self.change(client, at, |history| history.note_let_through(at))
    }

    fn change(&mut self, client: ClientKey, now: UnixTime, change: impl FnOnce(&mut History)) -> Vec<ClientKey> {
        let Some(history) = self.clients.get_mut(&client) else {
            let mut history = History::new(now);
            change(&mut history);
            return self.put(client, history);
        };
        let (cost, before) = (history.cost(), age(client, history));
        change(history);
        self.cost = self.cost - cost + history.cost();
        let after = age(client, history);
        if after != before {
            self.by_age.remove(&before);
            self.by_age.insert(after);
        }
        self.make_room()
    }

    /// Puts a whole history in place and returns the clients that had to make room.
    pub(super) fn put(&mut self, client: ClientKey, mut history: History) -> Vec<ClientKey> {
        self.remove(client);
        history.bound(self.limits.events);
        self.cost += history.cost();
        self.by_age.insert(age(client, &history));
        self.clients.insert(client, history);
        self.make_room()
    }

    /// Lets go of clients until the limits are kept.
    fn make_room(&mut self) -> Vec<ClientKey> {
        let mut evicted = Vec::new();
        while self.clients.len() > self.limits.clients || self.cost > self.limits.bytes {
            let Some(&(_, _, oldest)) = self.by_age.first() else { break };
            self.remove(oldest);
            evicted.push(oldest);
        }
        evicted
    }

    pub(super) fn remove(&mut self, client: ClientKey) -> Option<History> {
        let history = self.clients.remove(&client)?;
        self.by_age.remove(&age(client, &history));
        self.cost -= history.cost();
        Some(history)
    }

    /// At most `most` clients behind `after` that were last seen before `limit`.
    pub(super) fn old(&self, after: Option<Age>, limit: UnixTime, most: usize) -> Vec<Age> {
        let mut old = Vec::new();
        for reached in [false, true] {
            let begin = (reached, UnixTime(0), ClientKey::V4(std::net::Ipv4Addr::UNSPECIFIED));
            let begin = match after {
                Some(after) if after >= begin => Bound::Excluded(after),
                _ => Bound::Included(begin),
            };
            let found = self.by_age.range((begin, Bound::Unbounded));
            let found = found.take_while(|(class, last_seen, _)| *class == reached && *last_seen < limit);
            old.extend(found.take(most - old.len()).copied());
        }
        old
    }

    /// Removes a client if nothing has been heard of it since. False: something has.
    pub(super) fn remove_unchanged(&mut self, aged: Age) -> bool {
        self.by_age.contains(&aged) && self.remove(aged.2).is_some()
    }
}
