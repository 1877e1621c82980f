//! The merged set of static entries: what the configuration, commands and feeds say about a prefix.
//!
//! Holds entries, the precedence between them, the guard rails for new ones, and how often each prefix was met. Lookups
//! and hits need only a shared reference, so the set stands behind an `RwLock` that is written when entries change. Never
//! touches the kernel: [`StaticSet::effective`] is what a mirror copies.
//!
//! Precedence: a permit beats a deny whatever their lengths; among denies the longest prefix wins; of several entries on
//! one prefix the operator's beats a feed's (see [`Source`]).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::{IpNet, Ipv4Net};
use prefix_trie::joint::map::JointPrefixMap;
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::{DenyAction, StaticAction};
use crate::clock::UnixTime;

/// The widest deny that is taken without force.
const WIDEST_V4: u8 = 8;
const WIDEST_V6: u8 = 16;
/// How many permits the message of a refusal names.
const NAMED: usize = 3;

/// Where an entry comes from, in the order of precedence between the entries on one prefix that permit, or that deny: a
/// command beats the configuration, both beat a feed; between feeds the harder action decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A command (`permit add`, `deny add`).
    Cli,
    /// `[[permit]]` or `[[deny]]`.
    Config,
    /// An address of this host.
    OwnAddress,
    /// `listen.own_networks`.
    OwnNetwork,
    /// The feed of this name.
    Feed(Arc<str>),
}

impl Source {
    fn rank(&self) -> u8 {
        match self {
            Self::Cli => 0,
            Self::Config => 1,
            Self::OwnAddress => 2,
            Self::OwnNetwork => 3,
            Self::Feed(_) => 4,
        }
    }
}

/// As in lists and JSON: `cli`, `config`, `own_address`, `own_network`, `feed:NAME`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cli => f.write_str("cli"),
            Self::Config => f.write_str("config"),
            Self::OwnAddress => f.write_str("own_address"),
            Self::OwnNetwork => f.write_str("own_network"),
            Self::Feed(name) => write!(f, "feed:{name}"),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One static entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is about.
    pub prefix: IpNet,
    /// What it says.
    pub action: StaticAction,
    /// Who says it.
    pub source: Source,
    /// Why.
    pub comment: Option<String>,
    /// Since when.
    pub added: UnixTime,
}

/// Why an entry was not taken.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// Bits behind the prefix length are set, so it is not clear what is meant.
    #[error("{given} has bits set behind its length: write {network} for the network, or {host} for the one address")]
    HostBits {
        /// As it was given.
        given: IpNet,
        /// The network around it.
        network: IpNet,
        /// The address alone.
        host: IpNet,
    },
    /// The deny would take in a very large part of the Internet.
    #[error("denying {prefix} is wider than /{widest}: if that is meant, force it")]
    TooWide {
        /// What was to be denied.
        prefix: IpNet,
        /// The widest that is taken.
        widest: u8,
    },
    /// The deny covers what is permitted.
    #[error("denying {prefix} would cover {}: leave those out, or force it (the permits still win)", covered(.permits, *.more))]
    CoversPermit {
        /// What was to be denied.
        prefix: IpNet,
        /// Some of the permits under it, and who made them.
        permits: Vec<(IpNet, Source)>,
        /// How many more there are.
        more: usize,
    },
}

fn covered(permits: &[(IpNet, Source)], more: usize) -> String {
    let named: Vec<_> = permits.iter().map(|(prefix, source)| format!("{prefix} ({source})")).collect();
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail}", named.join(", "))
}

/// An entry as it lies in the tree; the prefix is its place.
#[derive(Clone, Debug)]
struct Item {
    action: StaticAction,
    source: Source,
    comment: Option<Box<str>>,
    added: UnixTime,
}

impl Item {
    fn is_permit(&self) -> bool {
        self.action == StaticAction::Permit
    }

    fn is_count(&self) -> bool {
        self.action == StaticAction::Deny(DenyAction::Count)
    }

    /// The least one decides. A dry run never does where another entry stands: it must not lift what it lies upon.
    fn rank(&self) -> (bool, bool, u8, u8) {
        let softness = match self.action {
            // Never beside a deny of the same rank: permits come first.
            StaticAction::Permit | StaticAction::Deny(DenyAction::Drop) => 0,
            StaticAction::Deny(DenyAction::Reject) => 1,
            StaticAction::Deny(DenyAction::Tag) => 2,
            StaticAction::Deny(DenyAction::Count) => 3,
        };
        (!self.is_permit(), self.is_count(), self.source.rank(), softness)
    }
}

/// All that is said about one prefix: never empty, the deciding entry first.
#[derive(Debug, Default)]
struct Slot {
    items: Vec<Item>,
    hits: AtomicU64,
    /// Zero: never.
    last_seen: AtomicU64,
}

impl Slot {
    fn sort(&mut self) {
        self.items.sort_by_key(Item::rank);
    }

    fn first(&self, permit: bool) -> Option<&Item> {
        self.items.iter().find(|item| item.is_permit() == permit)
    }
}

/// An entry that covers an address, with the counters of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match<'a> {
    /// The prefix.
    pub prefix: IpNet,
    /// What the entry says.
    pub action: StaticAction,
    /// Who says it.
    pub source: &'a Source,
    /// Why.
    pub comment: Option<&'a str>,
    /// Since when.
    pub added: UnixTime,
    /// How often the prefix was met since the daemon started, by whichever of its entries.
    pub hits: u64,
    /// When it was last met.
    pub last_seen: Option<UnixTime>,
}

impl<'a> Match<'a> {
    fn new(prefix: IpNet, slot: &'a Slot, item: &'a Item) -> Self {
        let last_seen = slot.last_seen.load(Ordering::Relaxed);
        Self {
            prefix,
            action: item.action,
            source: &item.source,
            comment: item.comment.as_deref(),
            added: item.added,
            hits: slot.hits.load(Ordering::Relaxed),
            last_seen: (last_seen != 0).then_some(UnixTime(last_seen)),
        }
    }

    /// The entry alone, without the counters.
    pub fn to_entry(&self) -> Entry {
        Entry {
            prefix: self.prefix,
            action: self.action,
            source: self.source.clone(),
            comment: self.comment.map(str::to_owned),
            added: self.added,
        }
    }
}

/// The merged set.
#[derive(Debug, Default)]
pub struct StaticSet {
    slots: JointPrefixMap<IpNet, Slot>,
    entries: usize,
}

impl StaticSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries there are; a prefix named by two sources counts twice.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Adds an entry, or replaces the one of the same source on the same prefix, which is returned.
    ///
    /// An IPv4-mapped prefix (`::ffff:192.0.2.0/120`) is taken as the IPv4 prefix it is.
    ///
    /// # Errors
    /// If bits are set behind the length; for a deny also if it covers a permit, an own network or an own address, or is
    /// wider than /8 (IPv4) or /16 (IPv6).
    pub fn insert(&mut self, entry: Entry) -> Result<Option<Entry>, Refused> {
        self.put(entry, false)
    }

    /// As [`StaticSet::insert`], without the guard rails for denies. Permits still win.
    ///
    /// # Errors
    /// If bits are set behind the length.
    pub fn insert_forced(&mut self, entry: Entry) -> Result<Option<Entry>, Refused> {
        self.put(entry, true)
    }

    fn put(&mut self, entry: Entry, force: bool) -> Result<Option<Entry>, Refused> {
        let prefix = normal(entry.prefix)?;
        if matches!(entry.action, StaticAction::Deny(_)) && !force {
            self.guard(prefix)?;
        }
        let item = Item {
            action: entry.action,
            source: entry.source,
            comment: entry.comment.map(Into::into),
            added: entry.added,
        };
        let slot = self.slots.entry(prefix).or_default();
        let old = match slot.items.iter_mut().find(|old| old.source == item.source) {
            Some(old) => Some(std::mem::replace(old, item)),
            None => {
                slot.items.push(item);
                self.entries += 1;
                None
            }
        };
        slot.sort();
        Ok(old.map(|old| entry_of(prefix, old)))
    }

    /// The guard rails for a deny.
    fn guard(&self, prefix: IpNet) -> Result<(), Refused> {
        let widest = match prefix {
            IpNet::V4(_) => WIDEST_V4,
            IpNet::V6(_) => WIDEST_V6,
        };
        if prefix.prefix_len() < widest {
            return Err(Refused::TooWide { prefix, widest });
        }
        let mut under = self
            .slots
            .children(&prefix)
            .filter_map(|(permit, slot)| slot.first(true).map(|item| (permit, item.source.clone())));
        let permits: Vec<_> = under.by_ref().take(NAMED).collect();
        if permits.is_empty() {
            return Ok(());
        }
        Err(Refused::CoversPermit { prefix, permits, more: under.count() })
    }

    /// Removes what a source says about a prefix; what others say about it stays.
    pub fn remove(&mut self, prefix: IpNet, source: &Source) -> Option<Entry> {
        let prefix = normal(prefix).ok()?;
        let slot = self.slots.get_mut(&prefix)?;
        let at = slot.items.iter().position(|item| item.source == *source)?;
        let item = slot.items.remove(at);
        if slot.items.is_empty() {
            self.slots.remove(&prefix);
        }
        self.entries -= 1;
        Some(entry_of(prefix, item))
    }

    /// What decides about an address; `None`: nothing is said about it.
    ///
    /// A permit of any length, else the deny with the longest prefix. A `count` entry only if no other deny covers the
    /// address: it stands for "as if the entry were not there".
    pub fn lookup(&self, address: IpAddr) -> Option<Match<'_>> {
        let (mut permit, mut deny, mut count) = (None, None, None);
        // From the shortest to the longest: the last one found is the longest.
        for (prefix, slot) in self.slots.cover(&host(address)) {
            let Some(item) = slot.items.first() else { continue };
            let place = if item.is_permit() {
                &mut permit
            } else if item.is_count() {
                &mut count
            } else {
                &mut deny
            };
            *place = Some((prefix, slot, item));
        }
        permit.or(deny).or(count).map(|(prefix, slot, item)| Match::new(prefix, slot, item))
    }

    /// The permit with the longest prefix that covers an address.
    pub fn longest_permit(&self, address: IpAddr) -> Option<Match<'_>> {
        self.longest(address, true)
    }

    /// The deny with the longest prefix that covers an address, also where a permit beats it.
    pub fn longest_deny(&self, address: IpAddr) -> Option<Match<'_>> {
        self.longest(address, false)
    }

    fn longest(&self, address: IpAddr, permit: bool) -> Option<Match<'_>> {
        let covering = self.slots.cover(&host(address));
        covering.filter_map(|(prefix, slot)| Some(Match::new(prefix, slot, slot.first(permit)?))).last()
    }

    /// Every entry that covers an address, from the shortest prefix to the longest.
    pub fn covering(&self, address: IpAddr) -> Vec<Match<'_>> {
        let slots = self.slots.cover(&host(address));
        slots.flat_map(|(prefix, slot)| slot.items.iter().map(move |item| Match::new(prefix, slot, item))).collect()
    }

    /// Credits `weight` hits to the prefix that decides about an address, and returns it. A dry run that covers the
    /// address more closely is credited too: that is what it is for.
    ///
    /// The kernel samples its events: `weight` is how many packets the one stands for.
    pub fn hit(&self, address: IpAddr, weight: u64, at: UnixTime) -> Option<IpNet> {
        let deciding = self.lookup(address)?.prefix;
        for (prefix, slot) in self.slots.cover(&host(address)) {
            let closer_count =
                prefix.prefix_len() > deciding.prefix_len() && slot.items.first().is_some_and(Item::is_count);
            if prefix == deciding || closer_count {
                slot.hits.fetch_add(weight, Ordering::Relaxed);
                slot.last_seen.fetch_max(at.0, Ordering::Relaxed);
            }
        }
        Some(deciding)
    }

    /// All entries with the counters of their prefixes, IPv4 first, in the order of their prefixes.
    pub fn entries(&self) -> impl Iterator<Item = Match<'_>> {
        self.slots.iter().flat_map(|(prefix, slot)| slot.items.iter().map(move |item| Match::new(prefix, slot, item)))
    }

    /// The entries of exactly this prefix, the deciding one first.
    pub fn entries_at(&self, prefix: IpNet) -> impl Iterator<Item = Match<'_>> {
        let slot = normal(prefix).ok().and_then(|prefix| Some((prefix, self.slots.get(&prefix)?)));
        slot.into_iter().flat_map(|(prefix, slot)| slot.items.iter().map(move |item| Match::new(prefix, slot, item)))
    }

    /// The widest permit that covers the whole of a prefix: a deny of it would do nothing.
    pub fn permit_over(&self, prefix: IpNet) -> Option<Match<'_>> {
        let prefix = normal(prefix).ok()?;
        self.slots.cover(&prefix).find_map(|(net, slot)| Some(Match::new(net, slot, slot.first(true)?)))
    }

    /// What a mirror must hold for exactly this prefix; `None`: nothing, for nothing is said or a permit covers it.
    pub fn effective_at(&self, prefix: IpNet) -> Option<StaticAction> {
        let prefix = normal(prefix).ok()?;
        let action = self.slots.get(&prefix)?.items.first()?.action;
        (action == StaticAction::Permit || self.permit_over(prefix).is_none()).then_some(action)
    }

    /// What a mirror needs: one action for each prefix, without the denies that a permit covers. The longest prefix among
    /// these that covers an address, dry runs last, says what [`StaticSet::lookup`] says.
    pub fn effective(&self) -> impl Iterator<Item = (IpNet, StaticAction)> {
        // A prefix comes right before all that it covers, so one permit at a time is enough to remember.
        let mut permitted: Option<IpNet> = None;
        self.slots.iter().filter_map(move |(prefix, slot)| {
            let action = slot.items.first()?.action;
            if permitted.is_some_and(|permit| permit.contains(&prefix)) {
                return (action == StaticAction::Permit).then_some((prefix, action));
            }
            if action == StaticAction::Permit {
                permitted = Some(prefix);
            }
            Some((prefix, action))
        })
    }
}

fn entry_of(prefix: IpNet, item: Item) -> Entry {
    Entry {
        prefix,
        action: item.action,
        source: item.source,
        comment: item.comment.map(String::from),
        added: item.added,
    }
}

/// The address as the narrowest prefix, IPv4-mapped as IPv4.
fn host(address: IpAddr) -> IpNet {
    address.to_canonical().into()
}

/// The prefix as it stands in the tree.
fn normal(given: IpNet) -> Result<IpNet, Refused> {
    let network = given.trunc();
    if network != given {
        let host = host(given.addr());
        return Err(Refused::HostBits { given, network: unmapped(network), host });
    }
    Ok(unmapped(given))
}

/// An IPv4-mapped prefix as the IPv4 prefix it is.
fn unmapped(prefix: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let IpNet::V6(v6) = prefix else { return prefix };
    let mapped = v6.prefix_len().checked_sub(MAPPED).zip(v6.addr().to_ipv4_mapped());
    mapped.and_then(|(length, v4)| Ipv4Net::new(v4, length).ok()).map_or(prefix, IpNet::V4)
}

#[cfg(test)]
mod tests;
