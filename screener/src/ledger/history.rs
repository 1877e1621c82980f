//! What each client did: when first and last seen, how often, and its last events.
//!
//! Holds the bounded table of histories. Never decides anything, and never grows beyond its limits: the client not seen
//! for the longest time goes first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::client::ClientKey;
use crate::clock::UnixTime;

/// The longest detail that is kept of an event, in bytes.
const DETAIL_MAX: usize = 256;
/// Estimates of what a client and an event take in memory beside their texts.
const CLIENT_COST: usize = 240;
const EVENT_COST: usize = 72;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A connection reached the daemon. Counts as a session.
    Connected,
    /// Came in as tagged.
    Tagged,
    /// Dropped or reset in the kernel by a deny entry.
    Denied,
    /// Over its connection limit, answered 421.
    Limited,
    /// Spoke before its turn.
    Pregreet,
    /// Scored at or above the threshold of the DNS lists.
    Dnsbl,
    /// Sent a command before the reply to the one before.
    Pipelining,
    /// Sent what is no SMTP.
    NonSmtpCommand,
    /// Ended a line without CR.
    BareNewline,
    /// Began a TLS handshake that failed.
    TlsFailed,
    /// Sent more commands than allowed.
    CommandLimit,
    /// Was answered slowly.
    Tarpitted,
    /// Was told no: a 5xx to a connection or a recipient.
    Refused,
    /// Was told to come back: a 4xx.
    Deferred,
    /// Passed the tests.
    Passed,
    /// Was found to be one sender with an address of the other family: which one, and by what.
    Linked,
    /// Got a copy of its pool's pass.
    Pooled,
    /// Was given to the mail server. Counts as handed off.
    HandedOff,
    /// Hung up.
    Hangup,
    /// Kept us waiting too long.
    TimedOut,
    /// The operator gave it a pass.
    Granted,
    /// Its pass was taken away.
    Revoked,
    /// It kept failing, and climbed the offence ladder.
    Climbed,
    /// The operator took it off the offence ladder.
    Forgiven,
    /// Something that a later version wrote.
    #[serde(other)]
    Other,
}

/// One event; the same thing happening again right after it is the same event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it last happened.
    pub at: UnixTime,
    /// When it first happened.
    pub since: UnixTime,
    /// How many times.
    pub times: u64,
    /// What it was.
    pub what: What,
    /// The particulars: what was said, the list, the prefix, the recipient.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What is known about a client besides its pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When the first thing was noted.
    pub first_seen: UnixTime,
    /// When the last thing was noted.
    pub last_seen: UnixTime,
    /// Connections that reached the daemon.
    #[serde(default)]
    pub sessions: u64,
    /// Connections given to the mail server.
    #[serde(default)]
    pub handed_off: u64,
    /// The last events, oldest first.
    #[serde(default)]
    pub events: VecDeque<Event>,
}

impl History {
    fn new(now: UnixTime) -> Self {
        // Most clients come once: while they wait to be greeted there is one event of them.
        Self { first_seen: now, last_seen: now, sessions: 0, handed_off: 0, events: VecDeque::with_capacity(1) }
    }

    fn note(&mut self, what: What, mut detail: String, now: UnixTime, keep: usize) {
        self.last_seen = self.last_seen.max(now);
        match what {
            What::Connected => self.sessions += 1,
            What::HandedOff => self.handed_off += 1,
            _ => {}
        }
        detail.truncate(detail.floor_char_boundary(DETAIL_MAX));
        match self.events.back_mut().filter(|last| last.what == what && last.detail == detail) {
            Some(last) => {
                last.times += 1;
                last.at = last.at.max(now);
            }
            None => {
                detail.shrink_to_fit();
                self.events.push_back(Event { at: now, since: now, times: 1, what, detail });
            }
        }
        while self.events.len() > keep {
            self.events.pop_front();
        }
    }

    fn cost(&self) -> usize {
        CLIENT_COST + self.events.iter().map(|event| EVENT_COST + event.detail.len()).sum::<usize>()
    }
}

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) events: usize,
    pub(super) clients: usize,
    pub(super) bytes: usize,
}

/// All histories, within their limits.
#[derive(Debug)]
pub(super) struct Histories {
    limits: Limits,
    /// Not hashed: a table that grows holds everybody up while it moves, and is half empty then.
    clients: BTreeMap<ClientKey, History>,
    /// The same clients by `last_seen`: who goes first.
    by_age: BTreeSet<(UnixTime, ClientKey)>,
    cost: usize,
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
        let Some(history) = self.clients.get_mut(&client) else {
            let mut history = History::new(now);
            history.note(what, detail, now, self.limits.events);
            return self.put(client, history);
        };
        // In place: what one session leaves is mostly of the same second, so that the order by age stays.
        let (cost, seen) = (history.cost(), history.last_seen);
        history.note(what, detail, now, self.limits.events);
        self.cost = self.cost - cost + history.cost();
        if history.last_seen != seen {
            self.by_age.remove(&(seen, client));
            self.by_age.insert((history.last_seen, client));
        }
        self.make_room()
    }

    /// Puts a whole history in place and returns the clients that had to make room.
    pub(super) fn put(&mut self, client: ClientKey, mut history: History) -> Vec<ClientKey> {
        self.remove(client);
        while history.events.len() > self.limits.events {
            history.events.pop_front();
        }
        self.cost += history.cost();
        self.by_age.insert((history.last_seen, client));
        self.clients.insert(client, history);
        self.make_room()
    }

    /// Lets go of clients until the limits are kept.
    fn make_room(&mut self) -> Vec<ClientKey> {
        let mut evicted = Vec::new();
        while self.clients.len() > self.limits.clients || self.cost > self.limits.bytes {
            let Some(&(_, oldest)) = self.by_age.first() else { break };
            self.remove(oldest);
            evicted.push(oldest);
        }
        evicted
    }

    pub(super) fn remove(&mut self, client: ClientKey) -> Option<History> {
        let history = self.clients.remove(&client)?;
        self.by_age.remove(&(history.last_seen, client));
        self.cost -= history.cost();
        Some(history)
    }

    /// Removes at most `most` clients last seen before `limit` and returns them.
    pub(super) fn expire(&mut self, limit: UnixTime, most: usize) -> Vec<ClientKey> {
        let old: Vec<_> = self
            .by_age
            .iter()
            .take_while(|(last_seen, _)| *last_seen < limit)
            .take(most)
            .map(|&(_, client)| client)
            .collect();
        for &client in &old {
            self.remove(client);
        }
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Ipv6KeyLength;

    const LIMITS: Limits = Limits { events: 3, clients: 2, bytes: usize::MAX };

    fn key(last: u8) -> ClientKey {
        ClientKey::of([192, 0, 2, last].into(), Ipv6KeyLength::default())
    }

    fn note(histories: &mut Histories, last: u8, what: What, detail: &str, at: u64) -> Vec<ClientKey> {
        histories.note(key(last), what, detail.to_owned(), UnixTime(at))
    }

    #[test]
    fn the_last_events_are_kept_and_all_are_counted() {
        let mut histories = Histories::new(LIMITS);
        for at in 1..=4 {
            note(&mut histories, 1, What::Connected, "", at);
            note(&mut histories, 1, What::Hangup, &format!("after {at}s"), at);
        }
        let history = histories.get(key(1)).unwrap();
        assert_eq!((history.first_seen, history.last_seen, history.sessions), (UnixTime(1), UnixTime(4), 4));
        let kept: Vec<_> = history.events.iter().map(|event| (event.what, event.at.0)).collect();
        assert_eq!(kept, [(What::Hangup, 3), (What::Connected, 4), (What::Hangup, 4)]);
    }

    #[test]
    fn the_same_thing_again_is_one_event_with_a_count() {
        let mut histories = Histories::new(LIMITS);
        for at in 10..15 {
            note(&mut histories, 1, What::Denied, "198.51.100.0/24 (drop-v4)", at);
        }
        let history = histories.get(key(1)).unwrap();
        assert_eq!(history.events.len(), 1);
        let event = &history.events[0];
        assert_eq!((event.since, event.at, event.times), (UnixTime(10), UnixTime(14), 5));
    }

    #[test]
    fn the_client_not_seen_for_longest_makes_room() {
        let mut histories = Histories::new(LIMITS);
        note(&mut histories, 1, What::Connected, "", 1);
        note(&mut histories, 2, What::Connected, "", 2);
        note(&mut histories, 1, What::Connected, "", 3);
        assert_eq!(note(&mut histories, 3, What::Connected, "", 4), [key(2)]);
        assert_eq!(histories.len(), 2);
    }

    #[test]
    fn memory_is_bounded_and_its_count_returns_to_zero() {
        let mut histories = Histories::new(Limits { events: 16, clients: usize::MAX, bytes: 10_000 });
        let long = "x".repeat(4 * DETAIL_MAX);
        for last in 0..=255 {
            note(&mut histories, last, What::Pregreet, &long, u64::from(last));
            assert!(histories.cost() <= 10_000);
        }
        assert_eq!(histories.get(key(255)).unwrap().events[0].detail.len(), DETAIL_MAX);
        histories.expire(UnixTime(u64::MAX), usize::MAX);
        assert_eq!((histories.len(), histories.cost(), histories.by_age.len()), (0, 0, 0));
    }

    #[test]
    fn an_event_of_a_later_version_is_read_as_other() {
        let json = r#"{"first_seen":1,"last_seen":2,"events":[{"at":1,"since":1,"times":1,"what":"beamed_up"}]}"#;
        let history: History = serde_json::from_str(json).unwrap();
        assert_eq!(history.events[0].what, What::Other);
    }
}
