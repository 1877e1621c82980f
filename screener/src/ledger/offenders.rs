//! The offence ladder in the ledger: kept in the file, told to mirrors, driven by whoever judges sessions.
//!
//! Holds the ladder under its lock and the streams of its changes; the pardons beside it are `pardons`'. What climbs, and when, is
//! `ladder/`'s; who may climb at all is for the caller to ask.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ipnet::IpNet;
use tokio::sync::Notify;

use super::pardons::Pardons;
use super::pass::Packed;
use super::{Ledger, Shared};
use crate::client::ClientKey;
use crate::clock::UnixTime;
use crate::ladder::{Count, Dense, Ladder, Limits, Offence, Offender, Outcome, Rules, Rung, Step};
use crate::pass::TestSet;

/// The ladder and who follows it.
#[derive(Debug)]
pub(super) struct Offenders {
    pub(super) ladder: Ladder,
    pub(super) pardons: Pardons,
    watchers: Vec<Weak<Watch>>,
}

impl Offenders {
    pub(super) fn new(options: &super::Options) -> Self {
        let mut ladder = Ladder::new(options.ipv6_key, Limits::default());
        ladder.set_rules(options.ladder);
        Self { ladder, pardons: Pardons::default(), watchers: Vec::new() }
    }

    /// Everybody on the ladder, and whoever was pardoned.
    pub(super) fn networks(&self) -> BTreeSet<IpNet> {
        self.ladder.iter().map(|(network, _)| network).chain(self.pardons.networks()).collect()
    }

    fn everybody(&self) -> Vec<IpNet> {
        self.ladder.iter().map(|(network, _)| network).collect()
    }

    /// One of the watchers may know already.
    fn tell(&mut self, networks: &[IpNet], told: Option<&OffenderWitness>) {
        self.watchers.retain(|watch| {
            watch.upgrade().is_some_and(|watch| {
                if !told.is_some_and(|told| Arc::ptr_eq(&told.0, &watch)) {
                    watch.note(networks);
                }
                true
            })
        });
    }
}

/// What changed and was not handed out yet.
#[derive(Debug, Default)]
struct Watch {
    networks: Mutex<BTreeSet<IpNet>>,
    notify: Notify,
}

impl Watch {
    fn networks(&self) -> MutexGuard<'_, BTreeSet<IpNet>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, networks: &[IpNet]) {
        self.networks().extend(networks);
        self.notify.notify_one();
    }
}

/// One who changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffenderChange {
    /// Who.
    pub network: IpNet,
    /// As it is now; `None`: off the ladder.
    pub offender: Option<Offender>,
}

/// A stream of changes, from [`Ledger::offender_changes`]. It begins with everybody there is. As with passes, it holds who
/// changed and reads what is true when it hands that out: it cannot run over, and the last word is always the present state.
#[derive(Debug)]
pub struct OffenderChanges {
    shared: Arc<Shared>,
    watch: Arc<Watch>,
}

impl OffenderChanges {
    /// At most `most` changes, without waiting.
    pub fn take(&mut self, most: usize) -> Vec<OffenderChange> {
        let taken: Vec<_> = {
            let mut networks = self.watch.networks();
            std::iter::from_fn(|| networks.pop_first()).take(most).collect()
        };
        // Read after it was taken: a change from now on puts it back.
        let offenders = self.shared.offenders();
        let change = |network| OffenderChange { network, offender: offenders.ladder.get(network).cloned() };
        taken.into_iter().map(change).collect()
    }

    /// For [`Ledger::take_in_offence`].
    pub fn witness(&self) -> OffenderWitness {
        OffenderWitness(Arc::clone(&self.watch))
    }

    /// At most `most` changes, at least one; waits for it. Dropping the future loses nothing.
    pub async fn next(&mut self, most: usize) -> Vec<OffenderChange> {
        loop {
            let changes = self.take(most);
            if !changes.is_empty() {
                return changes;
            }
            self.watch.notify.notified().await;
        }
    }
}

/// Stands for a follower of the offenders where it brings some itself.
#[derive(Clone, Debug)]
pub struct OffenderWitness(Arc<Watch>);

impl Shared {
    pub(super) fn offenders(&self) -> MutexGuard<'_, Offenders> {
        self.offenders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock, so that nobody sees the change without the note. `told`: by whom it was brought.
    pub(super) fn offenders_changed(
        &self,
        offenders: &mut Offenders,
        networks: &[IpNet],
        told: Option<&OffenderWitness>,
    ) {
        offenders.tell(networks, told);
        if self.durable {
            networks.iter().for_each(|&network| self.pending.offender(network));
        }
    }

    /// Takes a client off the ladder that has earned a pass, or was given one.
    pub(super) fn forgive(&self, network: IpNet, now: UnixTime) -> Option<Offender> {
        let mut offenders = self.offenders();
        let forgiven = offenders.ladder.forgive(network)?;
        self.pardoned(&mut offenders, &[network], now);
        Some(forgiven)
    }
}

impl Ledger {
    /// Other rules for the ladder; `None`: nobody climbs, and nobody is held. Everybody counts as changed.
    pub fn set_ladder(&self, rules: Option<Rules>) {
        let mut offenders = self.shared.offenders();
        offenders.ladder.set_rules(rules);
        let everybody = offenders.everybody();
        offenders.tell(&everybody, None);
    }

    /// A client failed; see [`Ladder::offend`].
    pub fn offend(&self, address: IpAddr, offence: Offence, began: UnixTime, now: UnixTime) -> Outcome {
        self.shared.heirs.tell(|| super::Said::Offended { client: address, offence, began, at: now });
        let mut offenders = self.shared.offenders();
        let client = offenders.ladder.client(address);
        let outcome = offenders.ladder.offend(client, offence, began, now);
        self.shared.offenders_changed(&mut offenders, &outcome.changed, None);
        outcome
    }

    /// A prefix is full of offenders; see [`Ladder::condemn`].
    pub fn condemn(&self, dense: &Dense, now: UnixTime) -> Option<Step> {
        let mut offenders = self.shared.offenders();
        let (step, changed) = offenders.ladder.condemn(dense, now)?;
        self.shared.offenders_changed(&mut offenders, &changed, None);
        Some(step)
    }

    /// Takes exactly one off the ladder: the client of an address if the network is no wider than that, or a prefix.
    pub fn forgive(&self, network: IpNet, now: UnixTime) -> Option<(IpNet, Offender)> {
        let client = self.shared.offenders().ladder.client(network.addr());
        let network = if client.contains(&network) { client } else { network };
        self.shared.forgive(network, now).map(|offender| (network, offender))
    }

    /// Takes everybody off who has an address in common with a network: a prefix with all in it, and the prefix around it.
    pub fn forgive_meeting(&self, network: IpNet, now: UnixTime) -> Vec<IpNet> {
        let mut offenders = self.shared.offenders();
        let met = offenders.ladder.forgive_meeting(network);
        self.shared.pardoned(&mut offenders, &met, now);
        met
    }

    /// Takes everybody off. Returns how many that were.
    pub fn forgive_all(&self, now: UnixTime) -> usize {
        let mut offenders = self.shared.offenders();
        let everybody = offenders.everybody();
        for &network in &everybody {
            offenders.ladder.forgive(network);
        }
        self.shared.pardoned(&mut offenders, &everybody, now);
        everybody.len()
    }

    /// Where an address stands: by itself or with its prefix.
    pub fn offender(&self, address: IpAddr, now: UnixTime) -> Option<(IpNet, Offender, Rung)> {
        let offenders = self.shared.offenders();
        let (network, offender, rung) = offenders.ladder.standing(address, now)?;
        Some((network, offender.clone(), rung))
    }

    /// On which rung an address stands, without a copy of all that is known of it: asked for each connection.
    pub fn rung(&self, address: IpAddr, now: UnixTime) -> Option<Rung> {
        self.shared.offenders().ladder.standing(address, now).map(|(_, _, rung)| rung)
    }

    /// Until when exactly this network is kept out.
    pub fn dropped_until(&self, network: IpNet, now: UnixTime) -> Option<UnixTime> {
        self.shared.offenders().ladder.dropped_until(network, now)
    }

    /// The rules that hold.
    pub fn ladder(&self) -> Option<Rules> {
        self.shared.offenders().ladder.rules().copied()
    }

    /// What has ended by now.
    pub fn sweep_offenders(&self, now: UnixTime) -> Vec<Step> {
        let mut offenders = self.shared.offenders();
        let steps = offenders.ladder.sweep(now);
        let changed: Vec<_> = steps.iter().map(|step| step.network).collect();
        self.shared.offenders_changed(&mut offenders, &changed, None);
        steps
    }

    /// Everybody on the ladder, in the order of the networks.
    pub fn offenders(&self) -> Vec<(IpNet, Offender)> {
        let offenders = self.shared.offenders();
        offenders.ladder.iter().map(|(network, offender)| (network, offender.clone())).collect()
    }

    /// How many stand where.
    pub fn offender_count(&self, now: UnixTime) -> Count {
        self.shared.offenders().ladder.count(now)
    }

    /// How often somebody had to make room on the ladder, or could not climb for want of it.
    pub fn offender_overflows(&self) -> u64 {
        self.shared.offenders().ladder.overflows()
    }

    /// A client within a network whose pass covers these tests now.
    pub fn valid_pass_within(&self, network: IpNet, enabled: TestSet, now: UnixTime) -> Option<ClientKey> {
        let end = |address| ClientKey::of(address, self.shared.options.ipv6_key);
        let passes = self.shared.passes();
        let mut within = passes.by_client.range(end(network.network())..=end(network.broadcast()));
        let valid = |pass: &Packed| pass.stamps().complete_until(enabled).is_some_and(|until| until > now);
        within.find(|(_, pass)| valid(pass)).map(|(&client, _)| client)
    }

    /// Everybody on the ladder, now, and each change from now on: for a mirror.
    pub fn offender_changes(&self) -> OffenderChanges {
        let watch = Arc::new(Watch::default());
        let mut offenders = self.shared.offenders();
        watch.note(&offenders.everybody());
        offenders.watchers.push(Arc::downgrade(&watch));
        OffenderChanges { shared: Arc::clone(&self.shared), watch }
    }
}

impl Shared {
    /// Takes in what the file held. What is over by now, or written under another key length, goes with the next batch.
    pub(super) fn adopt_offenders(&self, loaded: Vec<(IpNet, Offender)>, pardons: Vec<(IpNet, UnixTime)>) {
        let now = crate::clock::Now::read().unix;
        let mut offenders = self.offenders();
        for (network, offender) in loaded {
            if offenders.ladder.apply(network, offender, now).is_empty() && self.durable {
                self.pending.offender(network);
            }
        }
        for (network, at) in pardons {
            let over = offenders.pardons.put(network, at);
            self.pardons_forgotten(over.as_slice());
        }
    }
}
