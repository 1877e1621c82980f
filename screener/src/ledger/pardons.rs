//! Pardons: who was taken off the offence ladder and when, for the hosts that share a store with this one.
//!
//! Holds their table, and the ledger's side of [`OffenceWord`]. Whoever stands on the ladder stands under the pardon that is here,
//! because a pardon takes away what stood before it, under the same lock and in the same commit. So what a host says of an offender is
//! read in one piece, and a pardon that was given while the store was away is told by whichever daemon has the file when it is back.
//! Without a store nothing is noted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;

use super::offenders::{OffenderWitness, Offenders};
use super::shared::Taken;
use super::{Ledger, Shared};
use crate::clock::UnixTime;
use crate::share::{OffenceWord, is_remembered};

/// The most pardons that are remembered; beyond that the oldest go first. 10 MiB.
pub(super) const MOST: usize = 100_000;

/// When networks were last taken off the ladder.
#[derive(Debug, Default)]
pub(super) struct Pardons {
    by_network: BTreeMap<IpNet, UnixTime>,
    by_time: BTreeSet<(UnixTime, IpNet)>,
    /// There are some in the file, or will be.
    pub(super) filed: bool,
}

impl Pardons {
    /// As it was noted, however long ago.
    pub(super) fn get(&self, network: IpNet) -> Option<UnixTime> {
        self.by_network.get(&network).copied()
    }

    /// What counts now; the beginning of time: nothing.
    fn known(&self, network: IpNet, now: UnixTime) -> UnixTime {
        self.get(network).filter(|&at| is_remembered(at, now)).unwrap_or_default()
    }

    /// Notes one. Returns whose had to make room.
    pub(super) fn put(&mut self, network: IpNet, at: UnixTime) -> Option<IpNet> {
        if let Some(before) = self.by_network.insert(network, at) {
            self.by_time.remove(&(before, network));
        }
        self.by_time.insert((at, network));
        self.filed = true;
        if self.by_time.len() <= MOST {
            return None;
        }
        let (_, oldest) = self.by_time.pop_first()?;
        self.by_network.remove(&oldest);
        Some(oldest)
    }

    /// Lets go of those that are not remembered any more, and returns whose they were.
    fn forget(&mut self, now: UnixTime) -> Vec<IpNet> {
        let over: Vec<_> = self.by_time.iter().filter(|(at, _)| !is_remembered(*at, now)).copied().collect();
        for (at, network) in &over {
            self.by_time.remove(&(*at, *network));
            self.by_network.remove(network);
        }
        over.into_iter().map(|(_, network)| network).collect()
    }

    pub(super) fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.by_network.keys().copied()
    }
}

pub(super) fn encode(at: UnixTime) -> [u8; 8] {
    at.0.to_be_bytes()
}

pub(super) fn decode(row: &[u8]) -> Option<UnixTime> {
    Some(UnixTime(u64::from_be_bytes(row.try_into().ok()?)))
}

impl Offenders {
    fn word(&self, network: IpNet, now: UnixTime) -> OffenceWord {
        OffenceWord { forgiven: self.pardons.known(network, now), offender: self.ladder.get(network).cloned() }
    }
}

impl Shared {
    /// Those who were taken off are pardoned. To be called under the lock under which they were.
    pub(super) fn pardoned(&self, offenders: &mut Offenders, networks: &[IpNet], now: UnixTime) {
        let mut over = Vec::new();
        if self.options.shared {
            let pardons = &mut offenders.pardons;
            for &network in networks {
                // Later than any before it, whatever the clocks of the hosts say.
                let at = now.max(pardons.known(network, now).plus(Duration::from_secs(1)));
                over.extend(pardons.put(network, at));
            }
        }
        self.offenders_changed(offenders, networks, None);
        self.pardons_forgotten(&over);
    }

    /// Forgets pardons that nobody has to know any more.
    pub(super) fn forget_pardons(&self, now: UnixTime) {
        let mut offenders = self.offenders();
        let over = offenders.pardons.forget(now);
        self.pardons_forgotten(&over);
    }

    /// They are gone from the table, and are to go from the file.
    pub(super) fn pardons_forgotten(&self, networks: &[IpNet]) {
        if self.durable {
            networks.iter().for_each(|&network| self.pending.offender(network));
        }
    }
}

impl Ledger {
    /// What this host says of somebody on the ladder, or pardoned.
    pub fn offence_word(&self, network: IpNet, now: UnixTime) -> OffenceWord {
        self.shared.offenders().word(network, now)
    }

    /// Everybody of whom there is something to say, in the order of the networks.
    pub fn offence_words(&self, now: UnixTime) -> Vec<(IpNet, OffenceWord)> {
        let offenders = self.shared.offenders();
        offenders.networks().into_iter().map(|network| (network, offenders.word(network, now))).collect()
    }

    /// Takes in what another host says of one. `witness`: of the follower who brought it, who need not be told of it. Nothing new
    /// leaves no trace, so that hosts may tell each other the same thing in circles.
    pub fn take_in_offence(
        &self,
        network: IpNet,
        theirs: &OffenceWord,
        now: UnixTime,
        witness: &OffenderWitness,
    ) -> Taken {
        let mut offenders = self.shared.offenders();
        if !offenders.ladder.may_hold(network) {
            return Taken::default();
        }
        let mine = offenders.word(network, now);
        let forgiven = if is_remembered(theirs.forgiven, now) { theirs.forgiven } else { UnixTime::default() };
        if mine.forgiven > forgiven {
            return Taken { ahead: true, ..Taken::default() };
        }
        if forgiven > mine.forgiven {
            offenders.ladder.forgive(network);
            let over = offenders.pardons.put(network, forgiven);
            self.shared.pardons_forgotten(over.as_slice());
        }
        let mut changed =
            theirs.offender.clone().map_or_else(Vec::new, |theirs| offenders.ladder.apply(network, theirs, now));
        changed.retain(|&other| other != network);
        // Whoever had to make room is news to everybody.
        self.shared.offenders_changed(&mut offenders, &changed, None);
        let joined = offenders.word(network, now);
        if joined == mine {
            return Taken::default();
        }
        self.shared.offenders_changed(&mut offenders, &[network], Some(witness));
        Taken { changed: true, ahead: joined.offender != theirs.offender, ..Taken::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_a_network_has_one_pardon() {
        let network = |n: u32| IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(n)));
        let mut pardons = Pardons::default();
        let most = u32::try_from(MOST).unwrap();
        // The lowest address is pardoned last.
        for n in (0..most).rev() {
            assert_eq!(pardons.put(network(n), UnixTime((most - n).into())), None);
        }
        assert_eq!(pardons.put(network(most - 1), UnixTime(1_000_000)), None, "it takes no more room than before");
        assert_eq!(pardons.put(network(most), UnixTime(1_000_001)), Some(network(most - 2)));
        assert_eq!(pardons.networks().count(), MOST);
        assert_eq!((pardons.get(network(most - 2)), pardons.get(network(0))), (None, Some(UnixTime(most.into()))));
        let later = UnixTime(1_000_000 + 3 * 86_400);
        assert_eq!(pardons.forget(later).len(), MOST - 1);
        assert_eq!((pardons.by_time.len(), pardons.networks().collect::<Vec<_>>()), (1, vec![network(most)]));
    }
}
