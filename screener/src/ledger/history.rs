//! What each client did: when first and last seen, how often, where, under which names, and what became of it.
//!
//! Holds the record of one client, its bounds, and how each piece of news changes it. Never decides anything, and never grows
//! beyond its bounds: of everything the last few are kept (of the contacts also the first).

use std::collections::VecDeque;
use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;

/// The longest text of one thing that is kept (a detail, a reply, a reason), in bytes.
pub(super) const TEXT_MAX: usize = 256;
/// The longest name that is kept, in bytes.
const NAME_MAX: usize = 128;
/// How many names a client called itself are kept.
const NAMES: usize = 4;
/// How many contacts are kept.
const CONTACTS: usize = 8;
/// How many refusals are kept.
const REFUSALS: usize = 4;
/// How many findings of one refusal, and how many lists of one finding.
const FINDINGS: usize = 5;
const LISTS: usize = 8;
/// How many entries that kept the client out in the kernel are kept.
const DROPS: usize = 4;
/// Estimates of what a client and each thing known of it take in memory beside their texts.
const CLIENT_COST: usize = 368;
const EVENT_COST: usize = 72;
const NAME_COST: usize = 56;
const CONTACT_COST: usize = 72;
const REFUSAL_COST: usize = 144;
const FINDING_COST: usize = 96;
const DROP_COST: usize = 88;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A connection reached the daemon. Counts as a session. Earlier versions noted each; now a contact tells it.
    Connected,
    /// Came in as tagged.
    Tagged,
    /// Dropped or reset in the kernel by a deny entry. Earlier versions noted it; now [`Dropped`] tells it.
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
    /// Was given to the mail server. Counts as handed off. Earlier versions noted it; now a contact tells it.
    HandedOff,
    /// Hung up.
    Hangup,
    /// Kept us waiting too long.
    TimedOut,
    /// The operator gave it a pass.
    Granted,
    /// Its pass was taken away.
    Revoked,
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

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Given to the mail server.
    HandedOff,
    /// To be given to the mail server, which did not take it.
    NotTaken,
    /// Told to come again.
    Deferred,
    /// Refused.
    Refused,
    /// Sent away: it met a ceiling.
    Limited,
    /// The client left, or ran into a limit, before there was anything to decide.
    Left,
    /// Something that a later version wrote.
    #[serde(other)]
    Other,
}

/// One name that a client called itself in EHLO or HELO.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The name, at most 128 bytes of it.
    pub name: String,
    /// When it last used it.
    pub at: UnixTime,
    /// In how many sessions.
    pub times: u64,
}

/// A session, or several in a row to the same address with the same end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Which of our addresses it came to.
    pub server: SocketAddr,
    /// How it ended.
    pub outcome: Ended,
    /// When the first of them began.
    pub since: UnixTime,
    /// When the last of them began.
    pub at: UnixTime,
    /// How many.
    pub times: u64,
}

/// A DNS list that spoke for or against a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its public name.
    pub list: String,
    /// What it added to the score.
    pub weight: i32,
}

/// One piece of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The test by its name; `deny` for a static entry.
    pub test: String,
    /// How heavily it weighed.
    pub weight: i32,
    /// What was seen.
    pub reason: String,
    /// The lists, for the DNS lists' test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<Listed>,
}

/// A session that was refused; the same again by the same evidence is the same refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// When it last happened.
    pub at: UnixTime,
    /// When it first happened.
    pub since: UnixTime,
    /// How many times.
    pub times: u64,
    /// On what evidence.
    pub evidence: Vec<Finding>,
    /// What the client was told, the last time; empty if it did not stay to hear it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reply: String,
    /// What it called itself, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The sender of its mail, the last time; empty: a bounce.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// How many recipients it named, the last time.
    #[serde(default)]
    pub recipients: u32,
}

impl Refused {
    fn cut(&mut self) {
        cut(&mut self.reply, TEXT_MAX);
        self.name.iter_mut().for_each(|name| cut(name, NAME_MAX));
        self.sender.iter_mut().for_each(|sender| cut(sender, TEXT_MAX));
        self.evidence.truncate(FINDINGS);
        for finding in &mut self.evidence {
            cut(&mut finding.reason, TEXT_MAX);
            cut(&mut finding.test, NAME_MAX);
            finding.lists.truncate(LISTS);
            finding.lists.iter_mut().for_each(|listed| cut(&mut listed.list, NAME_MAX));
        }
    }

    /// Whether it rests on the same evidence.
    fn is_like(&self, other: &Self) -> bool {
        let grounds = |refused: &Self| -> Vec<(String, i32, Vec<Listed>)> {
            let evidence = refused.evidence.iter();
            evidence.map(|finding| (finding.test.clone(), finding.weight, finding.lists.clone())).collect()
        };
        self.name == other.name && grounds(self) == grounds(other)
    }

    fn cost(&self) -> usize {
        let finding = |finding: &Finding| {
            let lists: usize = finding.lists.iter().map(|listed| 32 + listed.list.len()).sum();
            FINDING_COST + finding.test.len() + finding.reason.len() + lists
        };
        let texts = self.reply.len() + [&self.name, &self.sender].into_iter().flatten().map(String::len).sum::<usize>();
        REFUSAL_COST + texts + self.evidence.iter().map(finding).sum::<usize>()
    }
}

/// SYNs that an entry kept out in the kernel: the daemon saw no connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The entry; `None`: it had gone when the kernel told of it.
    pub prefix: Option<IpNet>,
    /// Where the entry came from: `cli`, `config`, `feed:NAME`.
    pub source: String,
    /// The first of them.
    pub since: UnixTime,
    /// The last of them.
    pub at: UnixTime,
    /// About how many: of a flood the kernel tells a sample.
    pub packets: u64,
}

/// What one session leaves behind: told once, when it has ended or is the mail server's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionNote {
    /// When it began.
    pub began: UnixTime,
    /// When it ended.
    pub ended: UnixTime,
    /// Which of our addresses it came to.
    pub server: SocketAddr,
    /// How it ended.
    pub outcome: Ended,
    /// What the client called itself.
    #[serde(default)]
    pub name: Option<String>,
    /// Why it was refused, if it was.
    #[serde(default)]
    pub refused: Option<Refused>,
    /// What else happened, in order.
    #[serde(default)]
    pub events: Vec<(What, String)>,
}

/// What is known about a client besides its pass.
///
/// Everything behind `events` came with a later version than the rest: a record without it is read as one that has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When it was first noticed.
    pub first_seen: UnixTime,
    /// When it was last noticed.
    pub last_seen: UnixTime,
    /// Connections that reached the daemon.
    #[serde(default)]
    pub sessions: u64,
    /// Connections that the daemon gave to the mail server. What mails they bring is the mail server's to know.
    #[serde(default)]
    pub handed_off: u64,
    /// The last events, oldest first.
    #[serde(default)]
    pub events: VecDeque<Event>,
    /// When the kernel last let it through by its pass, as far as that was noted: while it has the pass, the kernel knows better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub let_through: Option<UnixTime>,
    /// The last names that it called itself, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<Name>,
    /// Which of our addresses it came to, in that order: the first, and the last few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contacts: Vec<Contact>,
    /// The last refusals, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refused>,
    /// What kept it out in the kernel, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drops: Vec<Dropped>,
}

impl History {
    pub(super) fn new(now: UnixTime) -> Self {
        Self {
            first_seen: now,
            last_seen: now,
            sessions: 0,
            handed_off: 0,
            events: VecDeque::new(),
            let_through: None,
            names: Vec::new(),
            contacts: Vec::new(),
            refusals: Vec::new(),
            drops: Vec::new(),
        }
    }

    /// Whether nothing is known but SYNs that the kernel kept out. Their source may be forged, so that they must not crowd out
    /// what is known of those who were really here.
    pub(super) fn is_hearsay(&self) -> bool {
        self.sessions == 0 && self.let_through.is_none() && self.events.is_empty() && !self.drops.is_empty()
    }

    fn seen(&mut self, now: UnixTime) {
        self.first_seen = self.first_seen.min(now);
        self.last_seen = self.last_seen.max(now);
    }

    /// One thing happened.
    pub(super) fn note(&mut self, what: What, mut detail: String, now: UnixTime, keep: usize) {
        self.seen(now);
        match what {
            What::Connected => self.sessions += 1,
            What::HandedOff => self.handed_off += 1,
            _ => {}
        }
        cut(&mut detail, TEXT_MAX);
        match self.events.back_mut().filter(|last| last.what == what && last.detail == detail) {
            Some(last) => {
                last.times += 1;
                last.at = last.at.max(now);
            }
            None => self.events.push_back(Event { at: now, since: now, times: 1, what, detail }),
        }
        while self.events.len() > keep {
            self.events.pop_front();
        }
    }

    /// A session has ended.
    pub(super) fn note_session(&mut self, note: SessionNote, keep: usize) {
        let SessionNote { began, ended, server, outcome, name, refused, events } = note;
        self.seen(began);
        self.seen(ended);
        self.sessions += 1;
        self.handed_off += u64::from(outcome == Ended::HandedOff);
        match self.contacts.last_mut().filter(|last| last.server == server && last.outcome == outcome) {
            Some(last) => {
                last.times += 1;
                last.at = last.at.max(began);
            }
            None => {
                if self.contacts.len() == CONTACTS {
                    // Where it came first is what one wants to know of a client that spares the primary MX host.
                    self.contacts.remove(1);
                }
                self.contacts.push(Contact { server, outcome, since: began, at: began, times: 1 });
            }
        }
        if let Some(mut name) = name {
            cut(&mut name, NAME_MAX);
            let known = self.names.iter().position(|known| known.name == name);
            let times = known.map_or(0, |known| self.names.remove(known).times) + 1;
            push_last(&mut self.names, Name { name, at: ended, times }, NAMES);
        }
        if let Some(mut refused) = refused {
            refused.cut();
            let known = self.refusals.iter().position(|known| known.is_like(&refused));
            if let Some(known) = known.map(|known| self.refusals.remove(known)) {
                refused.since = known.since;
                refused.times += known.times;
            }
            push_last(&mut self.refusals, refused, REFUSALS);
        }
        self.note_events(events, ended, keep);
    }

    /// The events of a session; if they are those of the session before, they are the same ones again.
    fn note_events(&mut self, mut events: Vec<(What, String)>, now: UnixTime, keep: usize) {
        let drop = events.len().saturating_sub(keep);
        events.drain(..drop);
        events.iter_mut().for_each(|(_, detail)| cut(detail, TEXT_MAX));
        let tail = self.events.len().checked_sub(events.len());
        let again = tail.filter(|&tail| {
            let before = self.events.iter().skip(tail);
            before.zip(&events).all(|(old, (what, detail))| old.what == *what && old.detail == *detail)
        });
        if let Some(tail) = again {
            for event in self.events.iter_mut().skip(tail) {
                event.times += 1;
                event.at = event.at.max(now);
            }
            return;
        }
        for (what, detail) in events {
            self.events.push_back(Event { at: now, since: now, times: 1, what, detail });
        }
        while self.events.len() > keep {
            self.events.pop_front();
        }
    }

    /// The kernel kept it out.
    pub(super) fn note_drop(&mut self, mut dropped: Dropped) {
        self.seen(dropped.since);
        self.seen(dropped.at);
        cut(&mut dropped.source, NAME_MAX);
        let same = |known: &Dropped| known.prefix == dropped.prefix && known.source == dropped.source;
        if let Some(known) = self.drops.iter().position(same).map(|known| self.drops.remove(known)) {
            dropped.since = dropped.since.min(known.since);
            dropped.at = dropped.at.max(known.at);
            dropped.packets = dropped.packets.saturating_add(known.packets);
        }
        push_last(&mut self.drops, dropped, DROPS);
    }

    /// The kernel let it through by its pass.
    pub(super) fn note_let_through(&mut self, at: UnixTime) {
        self.seen(at);
        self.let_through = self.let_through.max(Some(at));
    }

    /// About how much memory it takes, in bytes.
    pub(super) fn cost(&self) -> usize {
        let events = self.events.iter().map(|event| EVENT_COST + event.detail.len()).sum::<usize>();
        let names = self.names.iter().map(|name| NAME_COST + name.name.len()).sum::<usize>();
        let drops = self.drops.iter().map(|dropped| DROP_COST + dropped.source.len()).sum::<usize>();
        let refusals = self.refusals.iter().map(Refused::cost).sum::<usize>();
        CLIENT_COST + events + names + drops + refusals + CONTACT_COST * self.contacts.len()
    }

    /// Keeps the bounds of a record that was written under others.
    pub(super) fn bound(&mut self, keep: usize) {
        while self.events.len() > keep {
            self.events.pop_front();
        }
        keep_last(&mut self.names, NAMES);
        keep_last(&mut self.refusals, REFUSALS);
        keep_last(&mut self.drops, DROPS);
        while self.contacts.len() > CONTACTS {
            self.contacts.remove(1);
        }
    }
}

/// At most `most` bytes of a text, cut between characters, in no more room than that takes.
fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
    text.shrink_to_fit();
}

fn push_last<T>(kept: &mut Vec<T>, new: T, most: usize) {
    keep_last(kept, most - 1);
    kept.push(new);
}

fn keep_last<T>(kept: &mut Vec<T>, most: usize) {
    let over = kept.len().saturating_sub(most);
    kept.drain(..over);
}
