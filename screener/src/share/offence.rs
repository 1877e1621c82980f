//! What hosts tell each other about somebody on the offence ladder.
//!
//! Holds the word, its form, JSON, and how long a pardon counts. How two offenders become one is `ladder/`'s; here is which of two
//! words stands.
//!
//! A word is a pair: the last pardon its host knew of, and the offender as it has stood since. Of two pairs the one with the later
//! pardon stands, whatever the other says; under the same pardon the offenders are joined. So a pardon takes off whoever its host
//! knew of, on all hosts and in whichever order they hear of it, and what is done after it counts for every host that has heard of
//! it. No two clocks are compared for that: a pardon is the time at which it was given only so that it can be forgotten one day, and
//! is always later than any before it that its host knows.
//!
//! What remains. An offence on a host that has not heard of a pardon yet counts as before it, and is let off with the rest. And three
//! days after a pardon, for as long as the clocks of two hosts are apart, one has forgotten it and the other has not: what the first
//! one says of the offender in that time is heard by the second when it is said again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::ladder::Offender;

/// How long words about offenders are kept: what they say is over by then, and so is what was forgiven.
pub(super) const OFFENCES_REMEMBERED: Duration = Duration::from_secs(3 * 86_400);

/// The word about one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffenceWord {
    /// When it was last taken off the ladder: by hand, or because it has earned a pass. The beginning of time: never.
    #[serde(default)]
    pub forgiven: UnixTime,
    /// Where it has stood since.
    pub offender: Option<Offender>,
}

/// Whether a pardon is remembered. One that is as far ahead was given under a clock that was wrong, and nothing could follow it.
pub fn is_remembered(forgiven: UnixTime, now: UnixTime) -> bool {
    now.since(forgiven).max(forgiven.since(now)) < OFFENCES_REMEMBERED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_back_as_it_was_written_and_may_lack_a_pardon() {
        let text = "{\"since\":90,\"last\":100,\"offence\":\"pregreet\",\"offences\":2,\"score\":9000,\"as_of\":100,\"drops\":0,\
                    \"until\":0}";
        let offender: Offender = serde_json::from_str(text).unwrap();
        let word = OffenceWord { forgiven: UnixTime(7), offender: Some(offender) };
        let back: OffenceWord = serde_json::from_str(&serde_json::to_string(&word).unwrap()).unwrap();
        assert_eq!(back, word);
        assert_eq!(serde_json::from_str::<OffenceWord>("{\"offender\":null}").unwrap(), OffenceWord::default());
    }

    #[test]
    fn a_pardon_is_remembered_for_three_days_and_not_believed_from_the_far_future() {
        let given = UnixTime(1_000_000);
        for (seconds, remembered) in [(0, true), (259_199, true), (259_200, false)] {
            let span = Duration::from_secs(seconds);
            assert_eq!(is_remembered(given, given.plus(span)), remembered, "{seconds} s ago");
            assert_eq!(is_remembered(given.plus(span), given), remembered, "{seconds} s ahead");
        }
    }
}
