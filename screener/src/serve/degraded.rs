//! What is not as it should be at the moment, a sentence for each kind: shown in `status`, counted in metrics, and logged
//! once when it begins and when it ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a condition shows that nobody says the end of.
const A_WHILE: Duration = Duration::from_secs(60);

/// The conditions that hold.
#[derive(Debug, Default)]
pub(super) struct Degraded(Mutex<BTreeMap<&'static str, Condition>>);

#[derive(Debug)]
struct Condition {
    text: String,
    until: Option<Instant>,
}

impl Degraded {
    /// Notes a condition until it is cleared. True: it is new.
    pub(super) fn set(&self, kind: &'static str, text: String) -> bool {
        self.lock().insert(kind, Condition { text, until: None }).is_none()
    }

    /// Notes a condition that ends by itself when it is not noted again.
    pub(super) fn set_for_a_while(&self, kind: &'static str, text: String) -> bool {
        let until = Some(Instant::now() + A_WHILE);
        self.lock().insert(kind, Condition { text, until }).is_none()
    }

    /// True: it was there.
    pub(super) fn clear(&self, kind: &'static str) -> bool {
        self.lock().remove(kind).is_some()
    }

    /// Whether it is there.
    pub(super) fn holds(&self, kind: &'static str) -> bool {
        self.lock().contains_key(kind)
    }

    /// The sentences, with their kinds.
    pub(super) fn list(&self) -> Vec<(&'static str, String)> {
        let now = Instant::now();
        let mut conditions = self.lock();
        conditions.retain(|_, condition| condition.until.is_none_or(|until| until > now));
        conditions.iter().map(|(&kind, condition)| (kind, condition.text.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Condition>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_new_once_and_shows_until_it_is_cleared() {
        let degraded = Degraded::default();
        assert!(degraded.set("mta", "away".to_owned()));
        assert!(!degraded.set("mta", "still away".to_owned()));
        assert_eq!(degraded.list(), [("mta", "still away".to_owned())]);
        assert!(degraded.clear("mta"));
        assert!(!degraded.clear("mta"));
        assert!(degraded.list().is_empty());
    }
}
