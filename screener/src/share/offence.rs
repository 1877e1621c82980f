//! What hosts tell each other about somebody on the offence ladder.
//!
//! Holds the word and its form, JSON. How two offenders become one is `ladder/`'s; here is when one has been let off since.

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::ladder::Offender;

/// The word about one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffenceWord {
    /// When it was last taken off the ladder: by hand, or because it has earned a pass.
    #[serde(default)]
    pub forgiven: UnixTime,
    /// Where it stands.
    pub offender: Option<Offender>,
}

impl OffenceWord {
    /// What stands in spite of what was forgiven, here or elsewhere: an offence since then.
    pub fn standing(&self, forgiven: UnixTime) -> Option<&Offender> {
        self.offender.as_ref().filter(|offender| offender.last > self.forgiven.max(forgiven))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_forgiven_does_not_come_back_and_what_was_done_since_counts() {
        let text = "{\"since\":90,\"last\":100,\"offence\":\"pregreet\",\"offences\":2,\"score\":9000,\"as_of\":100,\"drops\":0,\
                    \"until\":0}";
        let offender: Offender = serde_json::from_str(text).unwrap();
        let word = OffenceWord { forgiven: UnixTime(0), offender: Some(offender.clone()) };
        let back: OffenceWord = serde_json::from_str(&serde_json::to_string(&word).unwrap()).unwrap();
        assert_eq!(back, word);
        assert_eq!(word.standing(UnixTime(0)), Some(&offender));
        assert_eq!(word.standing(UnixTime(99)), Some(&offender));
        assert_eq!(word.standing(UnixTime(100)), None);
        assert_eq!(OffenceWord { forgiven: UnixTime(100), ..word }.standing(UnixTime(0)), None);
        assert!(serde_json::from_str::<OffenceWord>("{\"offender\":null}").is_ok());
    }
}
