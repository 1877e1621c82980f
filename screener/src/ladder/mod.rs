//! The offence ladder: who keeps failing climbs from being refused to being answered slowly, and from there to being kept
//! out altogether, for an hour at first and for longer each time.
//!
//! Holds the table of offenders and its rules: offences go in, steps come out. What an offence weighs stands in [`offence`],
//! what becomes of one offender in [`offender`], when a whole prefix is full of them in [`density`]. Never sees a clock, a
//! socket or a store, and never knows who is permitted: whoever drives it asks first. Bounded in every respect: what has no
//! room makes whatever would end soonest go, and is counted.

mod density;
mod offence;
mod offender;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use density::Dense;
pub use offence::Offence;
pub use offender::{Offender, Rules, Rung};

use crate::client::{ClientKey, Ipv6KeyLength};
use crate::clock::UnixTime;

/// How much there may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients and prefixes on the ladder. Each takes about 200 bytes.
    pub entries: usize,
    /// Those of them that are kept out at a time: what fits into the kernel's maps.
    pub dropped: usize,
    /// Prefixes on the ladder.
    pub prefixes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 100_000, dropped: 50_000, prefixes: 1_000 }
    }
}

/// A change of the rung on which somebody stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who.
    pub network: IpNet,
    /// As it is now, or was at last.
    pub offender: Offender,
    /// Before; `None`: not on the ladder.
    pub from: Option<Rung>,
    /// Now; `None`: off the ladder.
    pub to: Option<Rung>,
}

/// What came of an offence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it counted: several at the same time are one.
    pub counted: bool,
    /// The client has climbed.
    pub step: Option<Step>,
    /// Its prefix is full of offenders, and stands lower than that deserves.
    pub dense: Option<Dense>,
    /// What has changed in the table, the client and whoever had to make room.
    pub changed: Vec<IpNet>,
}

/// How many stand where, as `status` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Refused when they fail, as everybody.
    pub refused: usize,
    /// Answered slowly when they fail.
    pub tarpitted: usize,
    /// Kept out.
    pub dropped: usize,
    /// How many of all these are prefixes.
    pub prefixes: usize,
    /// How often somebody had to go, or was let in, because there was no more room.
    pub overflows: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    offender: Offender,
    /// When nothing will be left of it: its place in `by_end`.
    end: UnixTime,
}

/// Everybody on the ladder.
#[derive(Clone, Debug)]
pub struct Ladder {
    ipv6_key: Ipv6KeyLength,
    limits: Limits,
    rules: Option<Rules>,
    table: BTreeMap<IpNet, Entry>,
    by_end: BTreeSet<(UnixTime, IpNet)>,
    /// Those who are kept out, by when that ends.
    dropped: BTreeSet<(UnixTime, IpNet)>,
    prefixes: usize,
    overflows: u64,
}

impl Ladder {
    /// An empty one, on which nobody climbs until it has rules.
    pub fn new(ipv6_key: Ipv6KeyLength, limits: Limits) -> Self {
        Self {
            ipv6_key,
            limits,
            rules: None,
            table: BTreeMap::new(),
            by_end: BTreeSet::new(),
            dropped: BTreeSet::new(),
            prefixes: 0,
            overflows: 0,
        }
    }

    /// Other rules from now on; `None`: nobody climbs, and nobody is held to what he has climbed.
    pub fn set_rules(&mut self, rules: Option<Rules>) {
        self.rules = rules;
    }

    /// The rules that hold.
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// The client that an address belongs to.
    pub fn client(&self, address: IpAddr) -> IpNet {
        ClientKey::of(address, self.ipv6_key).network(self.ipv6_key)
    }

    /// Whether a network on the ladder is a prefix of several clients.
    pub fn is_prefix(&self, network: IpNet) -> bool {
        network.prefix_len() < self.client(network.addr()).prefix_len()
    }

    /// Whether a network is a client or a prefix that can stand on the ladder: another host may mean something else by them.
    pub fn may_hold(&self, network: IpNet) -> bool {
        let client = self.client(network.addr());
        if self.is_prefix(network) { density::prefix_of(client) == Some(network) } else { client == network }
    }

    /// A client has failed, in a session that began at `began` and was judged `now`.
    ///
    /// Sessions that had begun when the last offence was counted are part of that one: a client that fails on twenty
    /// connections at a time has failed once, and has had no chance yet to mend its ways.
    pub fn offend(&mut self, client: IpNet, offence: Offence, began: UnixTime, now: UnixTime) -> Outcome {
        let Some(rules) = self.rules else { return Outcome::default() };
        let before = self.table.get(&client).map(|entry| entry.offender.clone());
        if before.as_ref().is_some_and(|offender| began <= offender.last) {
            return Outcome::default();
        }
        let from = before.as_ref().map(|offender| offender.rung(&rules, now));
        let mut offender = before.unwrap_or_else(|| Offender::new(offence, now));
        offender.fails(&rules, offence, now);
        let to = offender.rung(&rules, now);
        let mut changed = self.put(client, offender.clone(), now);
        changed.push(client);
        let dense = if to >= Rung::Tarpitted { self.density(&rules, client, now) } else { None };
        let climbed = to > from.unwrap_or(Rung::Refused);
        let step = climbed.then_some(Step { network: client, offender, from, to: Some(to) });
        Outcome { counted: true, step, dense, changed }
    }

    /// Puts a whole prefix onto a rung, for as many offenders as there are in it. `None`: it stands there already, or there are
    /// too many prefixes.
    pub fn condemn(&mut self, dense: &Dense, now: UnixTime) -> Option<(Step, Vec<IpNet>)> {
        let rules = self.rules?;
        let before = self.table.get(&dense.prefix).map(|entry| entry.offender.clone());
        if before.is_none() && self.prefixes >= self.limits.prefixes {
            self.overflows += 1;
            return None;
        }
        let from = before.as_ref().map(|offender| offender.rung(&rules, now));
        if from >= Some(dense.rung) {
            return None;
        }
        let mut offender = before.unwrap_or_else(|| Offender::new(Offence::Density, now));
        offender.is_put(&rules, dense, now);
        let mut changed = self.put(dense.prefix, offender.clone(), now);
        changed.push(dense.prefix);
        Some((Step { network: dense.prefix, offender, from, to: Some(dense.rung) }, changed))
    }

    /// Where an address stands: the worse of its client and its prefix; `None`: nowhere, or nowhere any more.
    pub fn standing(&self, address: IpAddr, now: UnixTime) -> Option<(IpNet, &Offender, Rung)> {
        let rules = self.rules.as_ref().filter(|_| !self.table.is_empty())?;
        let client = self.client(address);
        let find = |network: IpNet| {
            let offender = &self.table.get(&network)?.offender;
            (!offender.is_over(rules, now)).then(|| (network, offender, offender.rung(rules, now)))
        };
        let (own, shared) = (find(client), density::prefix_of(client).and_then(find));
        match (own, shared) {
            (Some(own), Some(shared)) => Some(if shared.2 > own.2 { shared } else { own }),
            (own, shared) => own.or(shared),
        }
    }

    /// One on the ladder, by exactly its network.
    pub fn get(&self, network: IpNet) -> Option<&Offender> {
        self.table.get(&network).map(|entry| &entry.offender)
    }

    /// Until when exactly this network is kept out; `None`: it is not.
    pub fn dropped_until(&self, network: IpNet, now: UnixTime) -> Option<UnixTime> {
        let rules = self.rules.as_ref()?;
        let offender = self.get(network)?;
        (offender.rung(rules, now) == Rung::Dropped).then_some(offender.until)
    }

    /// Everybody, in the order of the networks.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &Offender)> {
        self.table.iter().map(|(&network, entry)| (network, &entry.offender))
    }

    /// Takes one off the ladder: exactly this network.
    pub fn forgive(&mut self, network: IpNet) -> Option<Offender> {
        let entry = self.table.remove(&network)?;
        self.unindex(network, &entry);
        Some(entry.offender)
    }

    /// Takes everybody off who has an address in common with a network.
    pub fn forgive_meeting(&mut self, network: IpNet) -> Vec<IpNet> {
        let within = self.within(network).collect::<Vec<_>>();
        let around = [Some(self.client(network.addr())), density::prefix_of(self.client(network.addr()))];
        let mut met: Vec<_> = within;
        for wider in around.into_iter().flatten() {
            if wider.contains(&network) && self.table.contains_key(&wider) && !met.contains(&wider) {
                met.push(wider);
            }
        }
        met.retain(|&network| self.forgive(network).is_some());
        met
    }

    /// What has ended by now: kept out no longer, or off the ladder.
    pub fn sweep(&mut self, now: UnixTime) -> Vec<Step> {
        let Some(rules) = self.rules else { return Vec::new() };
        let mut steps = Vec::new();
        while let Some(&(until, network)) = self.dropped.first().filter(|(until, _)| *until <= now) {
            self.dropped.remove(&(until, network));
            let Some(offender) = self.get(network).cloned() else { continue };
            let to = Some(offender.rung(&rules, now));
            steps.push(Step { network, offender, from: Some(Rung::Dropped), to });
        }
        while let Some(&(end, network)) = self.by_end.first().filter(|(end, _)| *end <= now) {
            let Some(offender) = self.get(network).cloned() else {
                self.by_end.remove(&(end, network));
                continue;
            };
            if offender.is_over(&rules, now) {
                self.forgive(network);
                steps.push(Step { network, offender, from: Some(Rung::Refused), to: None });
            } else {
                // Under the rules of before it would have ended.
                self.put(network, offender, now);
                if self.by_end.first().is_some_and(|&(next, again)| (next, again) <= (end, network)) {
                    break;
                }
            }
        }
        steps
    }

    /// Takes in what another host, or the file, says of one. Returns what has changed in the table; nothing, if all of it was
    /// known.
    pub fn apply(&mut self, network: IpNet, offender: Offender, now: UnixTime) -> Vec<IpNet> {
        let full =
            self.is_prefix(network) && !self.table.contains_key(&network) && self.prefixes >= self.limits.prefixes;
        if !self.may_hold(network) || full {
            self.overflows += u64::from(full);
            return Vec::new();
        }
        let offender = match &self.rules {
            Some(rules) => offender.within(rules, now),
            None => offender,
        };
        let joined = match self.get(network) {
            Some(own) => own.joined(&offender),
            None => offender,
        };
        let over = self.rules.as_ref().is_some_and(|rules| joined.is_over(rules, now));
        if over || self.get(network) == Some(&joined) {
            return Vec::new();
        }
        let mut changed = self.put(network, joined, now);
        changed.push(network);
        changed
    }

    /// How many stand where.
    pub fn count(&self, now: UnixTime) -> Count {
        let mut count = Count { prefixes: self.prefixes, overflows: self.overflows, ..Count::default() };
        let Some(rules) = &self.rules else { return count };
        for entry in self.table.values() {
            match entry.offender.rung(rules, now) {
                Rung::Refused => count.refused += 1,
                Rung::Tarpitted => count.tarpitted += 1,
                Rung::Dropped => count.dropped += 1,
            }
        }
        count
    }

    /// How often somebody had to make room, or could not climb for want of it.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nobody is on the ladder.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Those on the ladder within a network, itself included.
    fn within(&self, network: IpNet) -> impl Iterator<Item = IpNet> + '_ {
        let last = IpNet::from(network.broadcast());
        let range = self.table.range(network..=last);
        range.map(|(&other, _)| other).filter(move |other| network.contains(other))
    }

    /// Puts one in, or what it has become. Returns who had to make room.
    fn put(&mut self, network: IpNet, offender: Offender, now: UnixTime) -> Vec<IpNet> {
        if let Some(old) = self.table.remove(&network) {
            self.unindex(network, &old);
        }
        // Without rules nothing ends; with the next ones all is judged anew.
        let end = self.rules.as_ref().map_or(UnixTime(u64::MAX), |rules| offender.end(rules));
        self.by_end.insert((end, network));
        if offender.until > now {
            self.dropped.insert((offender.until, network));
        }
        self.prefixes += usize::from(self.is_prefix(network));
        self.table.insert(network, Entry { offender, end });
        self.make_room(now)
    }

    fn make_room(&mut self, now: UnixTime) -> Vec<IpNet> {
        let mut gone = Vec::new();
        while self.table.len() > self.limits.entries {
            let Some(&(_, soonest)) = self.by_end.first() else { break };
            self.forgive(soonest);
            self.overflows += 1;
            gone.push(soonest);
        }
        while self.dropped.len() > self.limits.dropped {
            let Some((until, soonest)) = self.dropped.pop_first() else { break };
            self.overflows += 1;
            if let Some(entry) = self.table.get_mut(&soonest)
                && entry.offender.until == until
            {
                entry.offender.is_let_in(now);
            }
            gone.push(soonest);
        }
        gone
    }

    fn unindex(&mut self, network: IpNet, entry: &Entry) {
        self.by_end.remove(&(entry.end, network));
        self.dropped.remove(&(entry.offender.until, network));
        self.prefixes -= usize::from(self.is_prefix(network));
    }
}

#[cfg(test)]
mod tests;
