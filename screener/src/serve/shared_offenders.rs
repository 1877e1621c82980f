//! Offenders on their way to and from other hosts.
//!
//! Only those who have left the ground are told: each refusal of each stranger would be traffic for nothing. What was forgiven
//! is remembered for a while with its time, so that a host that did not hear of it does not bring it back.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use crate::clock::{Now, UnixTime};
use crate::ladder::{Offender, Rung};
use crate::ledger::{Ledger, OffenderChange};
use crate::share::{OFFENCES_REMEMBERED, OffenceWord};

/// How many may wait to be told, and how many pardons are remembered.
const MOST: usize = 100_000;

/// What is known of offenders beside the ladder itself.
#[derive(Debug, Default)]
pub(super) struct Offenders {
    waiting: BTreeMap<IpNet, OffenceWord>,
    forgiven: BTreeMap<IpNet, UnixTime>,
    /// What the ladder will say has changed, and only because another host said so.
    heard: HashMap<IpNet, Option<Offender>>,
}

impl Offenders {
    /// The ladder has changed. False: too many wait, everything is to be told.
    pub(super) fn note(&mut self, ledger: &Ledger, changes: Vec<OffenderChange>) -> bool {
        let now = Now::read().unix;
        for OffenderChange { network, offender, forgiven } in changes {
            if self.heard.remove(&network).is_some_and(|heard| heard == offender) {
                continue;
            }
            if offender.is_none() && forgiven {
                self.forgive(network, now);
            } else if !offender.as_ref().is_some_and(|offender| is_told(ledger, offender, now)) {
                continue;
            }
            let word = OffenceWord { forgiven: self.forgiven(network), offender };
            self.waiting.insert(network, word);
        }
        let fits = self.waiting.len() <= MOST;
        if !fits {
            self.waiting.clear();
        }
        fits
    }

    /// Another host's word. True: it was news.
    pub(super) fn take_in(&mut self, ledger: &Ledger, network: IpNet, word: &OffenceWord) -> bool {
        let now = Now::read().unix;
        let known = self.forgiven(network);
        if word.forgiven > known {
            self.forgive(network, word.forgiven);
        }
        let forgiven = self.forgiven(network);
        let before = ledger.offender_exactly(network);
        if before.as_ref().is_some_and(|offender| offender.last <= forgiven) {
            self.heard.insert(network, None);
            ledger.apply_offender(network, None, now);
        }
        if let Some(offender) = word.standing(forgiven) {
            ledger.apply_offender(network, Some(offender.clone()), now);
        }
        let after = ledger.offender_exactly(network);
        if after == before {
            self.heard.remove(&network);
            return false;
        }
        if after == word.offender || after.is_none() {
            self.heard.insert(network, after);
        }
        true
    }

    /// At most so many of those who wait. They wait until they are [`Offenders::told`].
    pub(super) fn next(&self, most: usize) -> Vec<(IpNet, OffenceWord)> {
        self.waiting.iter().take(most).map(|(&network, word)| (network, word.clone())).collect()
    }

    /// These were told. What was said of one of them since waits on.
    pub(super) fn told(&mut self, words: &[(IpNet, OffenceWord)]) {
        for (network, word) in words {
            if self.waiting.get(network) == Some(word) {
                self.waiting.remove(network);
            }
        }
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Everything that the store does not know yet is to be told.
    pub(super) fn tell_all_but(&mut self, ledger: &Ledger, known: &HashMap<IpNet, OffenceWord>) {
        let now = Now::read().unix;
        self.waiting.clear();
        for (network, offender) in ledger.offenders() {
            let word = OffenceWord { forgiven: self.forgiven(network), offender: Some(offender) };
            let told = word.offender.as_ref().is_some_and(|offender| is_told(ledger, offender, now));
            if told && known.get(&network) != Some(&word) {
                self.waiting.insert(network, word);
            }
        }
        for (&network, &forgiven) in &self.forgiven {
            if known.get(&network).is_none_or(|word| word.forgiven < forgiven) {
                self.waiting.entry(network).or_insert(OffenceWord { forgiven, offender: None });
            }
        }
    }

    fn forgiven(&self, network: IpNet) -> UnixTime {
        self.forgiven.get(&network).copied().unwrap_or_default()
    }

    fn forgive(&mut self, network: IpNet, at: UnixTime) {
        self.forgiven.insert(network, at);
        if self.forgiven.len() > MOST {
            let now = Now::read().unix;
            self.forgiven.retain(|_, at| now.since(*at) < OFFENCES_REMEMBERED);
            while self.forgiven.len() > MOST {
                self.forgiven.pop_first();
            }
        }
    }
}

/// Whether other hosts are told of one.
fn is_told(ledger: &Ledger, offender: &Offender, now: UnixTime) -> bool {
    ledger.ladder().is_some_and(|rules| offender.rung(&rules, now) > Rung::Refused)
}
