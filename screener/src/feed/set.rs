//! The merged set of static entries: what the configuration, commands and feeds say about a prefix.
//!
//! Holds entries, the precedence between them, the guard rails for single ones (`rails` has those for lists), and how often
//! each prefix was met. Lookups and hits need only a shared reference, so the set stands behind an `RwLock` that is written
//! when entries change. Never touches the kernel: [`StaticSet::effective`] is what a mirror copies.
//!
//! Precedence: a permit beats a deny whatever their lengths; among denies the longest prefix wins; of several entries on
//! one prefix the operator's beats a feed's (see [`Source`]).

mod slot;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use prefix_trie::joint::map::JointPrefixMap;
use thiserror::Error;

pub use slot::Origin;
use slot::{Item, Slot};

use super::rails::{self, Few, Guarded, Judgement, Objections, Protected};
use super::{Source, StaticAction};
use crate::clock::UnixTime;

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
    #[error("denying {prefix} is wider than /{widest}: if that is meant, `screener deny add --force` does it")]
    TooWide {
        /// What was to be denied.
        prefix: IpNet,
        /// The widest that is taken.
        widest: u8,
    },
    /// The deny covers what is permitted, or a gateway.
    #[error(
        "denying {prefix} would cover {covered}: leave those out, or use `screener deny add --force` (permits still win)"
    )]
    Covers {
        /// What was to be denied.
        prefix: IpNet,
        /// What is under it, and why it is guarded.
        covered: Few<String>,
    },
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
        let Origin { source, comment, added } = &*item.origin;
        Self {
            prefix,
            action: item.action,
            source,
            comment: comment.as_deref(),
            added: *added,
            hits: slot.hits(),
            last_seen: slot.last_seen(),
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

/// What a source said about a prefix before it said something else; to be put back with [`StaticSet::unsay`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said(Option<Item>);

impl Said {
    /// What it said.
    pub fn action(&self) -> Option<StaticAction> {
        self.0.as_ref().map(|item| item.action)
    }
}

/// The merged set.
#[derive(Debug, Default)]
pub struct StaticSet {
    slots: JointPrefixMap<IpNet, Slot>,
    permits: usize,
    denies: usize,
    gateways: Vec<IpAddr>,
}

impl StaticSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many entries there are; a prefix named by two sources counts twice.
    pub fn len(&self) -> usize {
        self.permits + self.denies
    }

    /// How many of them deny.
    pub fn denies(&self) -> usize {
        self.denies
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Guards the next hops of the default routes.
    pub fn guard_gateways(&mut self, gateways: Vec<IpAddr>) {
        self.gateways = gateways;
    }

    /// The guarded next hops.
    pub fn gateways(&self) -> &[IpAddr] {
        &self.gateways
    }

    /// Adds an entry, or replaces the one of the same source on the same prefix, which is returned.
    ///
    /// An IPv4-mapped prefix (`::ffff:192.0.2.0/120`) is taken as the IPv4 prefix it is.
    ///
    /// # Errors
    /// If bits are set behind the length; for a deny also if it covers a permit, an own network, an own address or a
    /// gateway, or is wider than /8 (IPv4) or /16 (IPv6).
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
        let origin = Origin { source: entry.source, comment: entry.comment.map(Into::into), added: entry.added };
        let old = self.place(prefix, Item { origin: Arc::new(origin), action: entry.action });
        Ok(old.map(|old| entry_of(prefix, &old)))
    }

    /// Says the same of another prefix: without the guard rails, which [`StaticSet::judge`] has for the list as a whole,
    /// and sharing what all the entries have in common. What the source says already, with the same comment, stays as it
    /// is, and so does its permit: then the answer is `None`.
    ///
    /// # Errors
    /// If bits are set behind the length.
    pub fn say(&mut self, prefix: IpNet, action: StaticAction, origin: &Arc<Origin>) -> Result<Option<Said>, Refused> {
        let prefix = normal(prefix)?;
        let old = self.slots.get(&prefix).and_then(|slot| slot.of(&origin.source));
        if old.is_some_and(|old| old.is_permit() && action != StaticAction::Permit)
            || old.is_some_and(|old| old.action == action && old.origin.comment == origin.comment)
        {
            return Ok(None);
        }
        Ok(Some(Said(self.place(prefix, Item { origin: Arc::clone(origin), action }))))
    }

    /// Puts back what a source said before.
    pub fn unsay(&mut self, prefix: IpNet, source: &Source, said: Said) {
        match said.0 {
            Some(item) => drop(self.place(prefix, item)),
            None => drop(self.remove(prefix, source)),
        }
    }

    fn place(&mut self, prefix: IpNet, item: Item) -> Option<Item> {
        self.count(&item, 1);
        let old = match self.slots.get_mut(&prefix) {
            Some(slot) => slot.put(item),
            None => {
                self.slots.insert(prefix, Slot::new(item));
                None
            }
        };
        if let Some(old) = &old {
            self.count(old, -1);
        }
        old
    }

    fn count(&mut self, item: &Item, by: isize) {
        let count = if item.is_permit() { &mut self.permits } else { &mut self.denies };
        *count = count.saturating_add_signed(by);
    }

    /// The guard rails for a single deny.
    fn guard(&self, prefix: IpNet) -> Result<(), Refused> {
        let widest = rails::widest(&prefix);
        if prefix.prefix_len() < widest {
            return Err(Refused::TooWide { prefix, widest });
        }
        let permits = self
            .slots
            .children(&prefix)
            .filter_map(|(permit, slot)| slot.first(true).map(|item| format!("{permit} ({})", item.origin.source)));
        let gateways = self.gateways.iter().filter(|gateway| prefix.contains(*gateway));
        let covered: Few<_> =
            permits.chain(gateways.map(|gateway| format!("{gateway} ({})", Guarded::Gateway))).collect();
        if covered.is_empty() { Ok(()) } else { Err(Refused::Covers { prefix, covered }) }
    }

    /// The guard rails for a list of denies as a whole.
    ///
    /// # Errors
    /// With everything that speaks against it.
    pub fn judge(&self, list: &[IpNet]) -> Result<Judgement, Box<Objections>> {
        rails::judge(list, &self.protected())
    }

    /// The same for a list of denies that follows on another one, which is in order.
    ///
    /// # Errors
    /// As [`StaticSet::judge`].
    pub fn judge_next(&self, before: &[IpNet], list: &[IpNet]) -> Result<Judgement, Box<Objections>> {
        rails::judge_next(before, list, &self.protected())
    }

    fn protected(&self) -> Protected {
        let mut protected = Protected::default();
        for (prefix, slot) in &self.slots {
            if let Some(item) = slot.first(true) {
                protected.add(prefix, Guarded::Permit(item.origin.source.clone()));
            }
        }
        for &gateway in &self.gateways {
            protected.add(gateway.into(), Guarded::Gateway);
        }
        protected
    }

    /// Removes what a source says about a prefix; what others say about it stays.
    pub fn remove(&mut self, prefix: IpNet, source: &Source) -> Option<Entry> {
        let prefix = normal(prefix).ok()?;
        let slot = self.slots.get_mut(&prefix)?;
        let item = slot.of(source)?.clone();
        if slot.remove(source).is_none() {
            self.slots.remove(&prefix);
        }
        self.count(&item, -1);
        Some(entry_of(prefix, &item))
    }

    /// What decides about an address; `None`: nothing is said about it.
    ///
    /// A permit of any length, else the deny with the longest prefix. A `count` entry only if no other deny covers the
    /// address: it stands for "as if the entry were not there".
    pub fn lookup(&self, address: IpAddr) -> Option<Match<'_>> {
        let (mut permit, mut deny, mut count) = (None, None, None);
        // From the shortest to the longest: the last one found is the longest.
        for (prefix, slot) in self.slots.cover(&host(address)) {
            let Some(item) = slot.items().first() else { continue };
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
        slots.flat_map(|(prefix, slot)| slot.items().iter().map(move |item| Match::new(prefix, slot, item))).collect()
    }

    /// Credits `weight` hits to the prefix that decides about an address, and returns it. A dry run that covers the
    /// address more closely is credited too: that is what it is for. `credited` hears whose entries these are.
    ///
    /// The kernel samples its events: `weight` is how many packets the one stands for.
    pub fn hit(&self, address: IpAddr, weight: u64, at: UnixTime, mut credited: impl FnMut(&Source)) -> Option<IpNet> {
        let deciding = self.lookup(address)?.prefix;
        for (prefix, slot) in self.slots.cover(&host(address)) {
            let closer_count =
                prefix.prefix_len() > deciding.prefix_len() && slot.items().first().is_some_and(Item::is_count);
            if prefix == deciding || closer_count {
                slot.hit(weight, at);
                slot.items().first().into_iter().for_each(|item| credited(&item.origin.source));
            }
        }
        Some(deciding)
    }

    /// All entries with the counters of their prefixes, IPv4 first, in the order of their prefixes.
    pub fn entries(&self) -> impl Iterator<Item = Match<'_>> {
        self.slots.iter().flat_map(|(prefix, slot)| slot.items().iter().map(move |item| Match::new(prefix, slot, item)))
    }

    /// The entries of exactly this prefix, the deciding one first.
    pub fn entries_at(&self, prefix: IpNet) -> impl Iterator<Item = Match<'_>> {
        let slot = normal(prefix).ok().and_then(|prefix| Some((prefix, self.slots.get(&prefix)?)));
        slot.into_iter().flat_map(|(prefix, slot)| slot.items().iter().map(move |item| Match::new(prefix, slot, item)))
    }

    /// The widest permit that covers the whole of a prefix: a deny of it would do nothing.
    pub fn permit_over(&self, prefix: IpNet) -> Option<Match<'_>> {
        let prefix = normal(prefix).ok()?;
        self.slots.cover(&prefix).find_map(|(net, slot)| Some(Match::new(net, slot, slot.first(true)?)))
    }

    /// A permit that has addresses in common with a prefix.
    pub fn permit_meeting(&self, prefix: IpNet) -> Option<IpNet> {
        let prefix = normal(prefix).ok()?;
        let within = || self.slots.children(&prefix).find(|(_, slot)| slot.first(true).is_some()).map(|(net, _)| net);
        self.permit_over(prefix).map(|found| found.prefix).or_else(within)
    }

    /// Whether anybody permits exactly this prefix: then a mirror's list of permits holds it.
    pub fn permits_exactly(&self, prefix: IpNet) -> bool {
        self.at(prefix).is_some_and(|slot| slot.first(true).is_some())
    }

    /// What a mirror's list of denies must hold for exactly this prefix.
    pub fn denies_exactly(&self, prefix: IpNet) -> Option<StaticAction> {
        self.at(prefix)?.first(false).map(|item| item.action)
    }

    fn at(&self, prefix: IpNet) -> Option<&Slot> {
        self.slots.get(&normal(prefix).ok()?)
    }

    /// What a mirror needs, which has a list of permits and one of denies: one permit and one deny for each prefix at most.
    /// If a permit covers an address that decides, else the longest deny that covers it, dry runs last; so a permit may come
    /// and go without a look at the denies under it.
    pub fn effective(&self) -> impl Iterator<Item = (IpNet, StaticAction)> {
        self.slots.iter().flat_map(|(prefix, slot)| {
            let both = [slot.first(true), slot.first(false)];
            both.into_iter().flatten().map(move |item| (prefix, item.action))
        })
    }
}

fn entry_of(prefix: IpNet, item: &Item) -> Entry {
    let Origin { source, comment, added } = &*item.origin;
    Entry {
        prefix,
        action: item.action,
        source: source.clone(),
        comment: comment.as_deref().map(str::to_owned),
        added: *added,
    }
}

/// The address as the narrowest prefix, IPv4-mapped as IPv4.
fn host(address: IpAddr) -> IpNet {
    address.to_canonical().into()
}

/// The prefix as it stands in lists: an IPv4-mapped one as the IPv4 prefix it is.
///
/// # Errors
/// If bits are set behind the length.
pub fn normal(given: IpNet) -> Result<IpNet, Refused> {
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
