//! Which offenders other hosts are told of.
//!
//! Only those who have left the ground, and those who were pardoned: each refusal of each stranger would be traffic for nothing.
//! What is said of them is the ledger's.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::clock::UnixTime;
use crate::ladder::Rung;
use crate::ledger::{Ledger, OffenderChange};
use crate::share::OffenceWord;

/// Those who have changed in a way that other hosts are told of.
pub(super) fn worth_telling(ledger: &Ledger, changes: Vec<OffenderChange>, now: UnixTime) -> Vec<IpNet> {
    let worth = |network: &IpNet| {
        let word = ledger.offence_word(*network, now);
        word.forgiven != UnixTime::default() || has_climbed(ledger, &word, now)
    };
    changes.into_iter().map(|change| change.network).filter(worth).collect()
}

/// What this host has to say beyond what the store knows.
pub(super) fn untold(ledger: &Ledger, known: &HashMap<IpNet, OffenceWord>, now: UnixTime) -> Vec<(IpNet, OffenceWord)> {
    let nothing = OffenceWord::default();
    let is_untold = |(network, word): &(IpNet, OffenceWord)| {
        let known = known.get(network).unwrap_or(&nothing);
        known.forgiven < word.forgiven || (known.offender != word.offender && has_climbed(ledger, word, now))
    };
    ledger.offence_words(now).into_iter().filter(is_untold).collect()
}

fn has_climbed(ledger: &Ledger, word: &OffenceWord, now: UnixTime) -> bool {
    let offender = word.offender.as_ref();
    offender.is_some_and(|offender| ledger.ladder().is_some_and(|rules| offender.rung(&rules, now) > Rung::Refused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::{Offence, Rules};
    use crate::ledger::Options;

    #[test]
    fn who_has_climbed_or_was_pardoned_is_told_and_what_the_store_knows_is_not() {
        let now = UnixTime(1_800_000_000);
        let rules = Rules { tarpit_at: 2, ..Rules::default() };
        let ledger = Ledger::in_memory(Options { shared: true, ladder: Some(rules), ..Options::default() });
        let [refused, tarpitted, pardoned]: [IpNet; 3] =
            ["192.0.2.1/32", "192.0.2.2/32", "192.0.2.3/32"].map(|network| network.parse().unwrap());
        let mut changes = ledger.offender_changes();
        for (network, times) in [(refused, 1), (tarpitted, 3), (pardoned, 1)] {
            for at in 1..=times {
                let at = UnixTime(now.0 + at);
                ledger.offend(network.addr(), Offence::Exceeded, at, at);
            }
        }
        let now = UnixTime(now.0 + 5);
        ledger.forgive(pardoned, now);
        assert_eq!(worth_telling(&ledger, changes.take(10), now), [tarpitted, pardoned]);

        let told = untold(&ledger, &HashMap::new(), now);
        assert_eq!(told.iter().map(|(network, _)| *network).collect::<Vec<_>>(), [tarpitted, pardoned]);
        let mut known: HashMap<_, _> = told.into_iter().collect();
        assert_eq!(untold(&ledger, &known, now), []);
        known.insert(pardoned, OffenceWord::default());
        assert_eq!(untold(&ledger, &known, now), [(pardoned, OffenceWord { forgiven: now, offender: None })]);
    }
}
