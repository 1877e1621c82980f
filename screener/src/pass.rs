//! The five tests and the pass: until when each of them counts as passed for a client.
//!
//! Holds the expiry algebra. Never stores anything and never looks at a clock: "now" is passed in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::named;

/// The tests a client may have to pass, in postscreen's order (reference/postscreen.md section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Does not speak before the greeting is complete.
    Pregreet,
    /// Its DNS list score is below the threshold.
    Dnsbl,
    /// Waits for replies where it must.
    Pipelining,
    /// Sends SMTP and not HTTP or a mail header.
    NonSmtpCommand,
    /// Ends lines with CR LF.
    BareNewline,
}

impl Test {
    /// How many tests there are.
    pub const COUNT: usize = 5;
    /// All tests, in order.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Pregreet, Self::Dnsbl, Self::Pipelining, Self::NonSmtpCommand, Self::BareNewline];

    /// The name in configuration, commands and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pregreet => "pregreet",
            Self::Dnsbl => "dnsbl",
            Self::Pipelining => "pipelining",
            Self::NonSmtpCommand => "non_smtp_command",
            Self::BareNewline => "bare_newline",
        }
    }

    /// Whether the test needs a dialogue, that is, can only be decided after the greeting.
    pub fn is_deep(self) -> bool {
        matches!(self, Self::Pipelining | Self::NonSmtpCommand | Self::BareNewline)
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Test {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        named::find(Self::ALL, Self::name, word)
            .map_err(|known| format!("there is no test of that name: it is one of {known}"))
    }
}

/// A set of tests.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct TestSet(u8);

impl TestSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);
    /// Every test.
    pub const FULL: Self = Self((1 << Test::COUNT) - 1);

    /// Puts a test in.
    pub fn insert(&mut self, test: Test) {
        self.0 |= 1 << test as u8;
    }

    /// Takes a test out.
    pub fn remove(&mut self, test: Test) {
        self.0 &= !(1 << test as u8);
    }

    /// Whether a test is in the set.
    pub fn contains(self, test: Test) -> bool {
        self.0 & (1 << test as u8) != 0
    }

    /// Whether no test is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The tests in the set, in order.
    pub fn iter(self) -> impl Iterator<Item = Test> {
        Test::ALL.into_iter().filter(move |&test| self.contains(test))
    }
}

impl FromIterator<Test> for TestSet {
    fn from_iter<I: IntoIterator<Item = Test>>(tests: I) -> Self {
        let mut set = Self::EMPTY;
        for test in tests {
            set.insert(test);
        }
        set
    }
}

impl fmt::Debug for TestSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Until when each test counts as passed; `None`: never passed.
///
/// Each expiry stands and falls on its own (postscreen drops a record when any of them has expired long ago:
/// reference/postscreen.md section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps([Option<UnixTime>; Test::COUNT]);

impl Stamps {
    /// The same expiry for every test: what an operator's `pass add` gives.
    pub fn all_until(until: UnixTime) -> Self {
        Self([Some(until); Test::COUNT])
    }

    /// The expiry of one test.
    pub fn get(&self, test: Test) -> Option<UnixTime> {
        self.0[test as usize]
    }

    /// Sets or clears the expiry of one test.
    pub fn set(&mut self, test: Test, until: Option<UnixTime>) {
        self.0[test as usize] = until;
    }

    /// The later expiry of both, test by test: a renewal never shortens a pass.
    #[must_use]
    pub fn merged(&self, other: &Self) -> Self {
        let mut merged = *self;
        for test in Test::ALL {
            merged.set(test, self.get(test).max(other.get(test)));
        }
        merged
    }

    /// The tests among `enabled` that are not passed at `now`.
    pub fn owed(&self, enabled: TestSet, now: UnixTime) -> TestSet {
        enabled.iter().filter(|&test| self.get(test).is_none_or(|until| until <= now)).collect()
    }

    /// Until when all of `enabled` count as passed; `None` if one of them was never passed.
    ///
    /// With no test enabled everybody passes forever.
    pub fn complete_until(&self, enabled: TestSet) -> Option<UnixTime> {
        enabled
            .iter()
            .map(|test| self.get(test))
            .try_fold(UnixTime(u64::MAX), |least, until| until.map(|u| u.min(least)))
    }

    /// The last moment at which any test still counts as passed.
    pub fn last_expiry(&self) -> Option<UnixTime> {
        self.0.iter().copied().flatten().max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000);

    #[test]
    fn a_test_is_owed_when_never_passed_or_expired() {
        let mut stamps = Stamps::default();
        stamps.set(Test::Pregreet, Some(UnixTime(1_001)));
        stamps.set(Test::Dnsbl, Some(NOW));
        let owed: Vec<_> = stamps.owed(TestSet::FULL, NOW).iter().collect();
        assert_eq!(owed, [Test::Dnsbl, Test::Pipelining, Test::NonSmtpCommand, Test::BareNewline]);
    }

    #[test]
    fn a_test_enabled_later_is_the_only_one_owed() {
        let early: TestSet = [Test::Pregreet, Test::Dnsbl].into_iter().collect();
        let mut stamps = Stamps::default();
        for test in early.iter() {
            stamps.set(test, Some(UnixTime(2_000)));
        }
        assert!(stamps.owed(early, NOW).is_empty());
        let mut more = early;
        more.insert(Test::BareNewline);
        assert_eq!(stamps.owed(more, NOW).iter().collect::<Vec<_>>(), [Test::BareNewline]);
        assert_eq!(stamps.complete_until(early), Some(UnixTime(2_000)));
        assert_eq!(stamps.complete_until(more), None);
    }

    #[test]
    fn merging_keeps_the_later_expiry_of_each_test() {
        let mut renewed = Stamps::default();
        renewed.set(Test::Dnsbl, Some(UnixTime(9_000)));
        let merged = Stamps::all_until(UnixTime(5_000)).merged(&renewed);
        assert_eq!(merged.get(Test::Dnsbl), Some(UnixTime(9_000)));
        assert_eq!(merged.get(Test::Pregreet), Some(UnixTime(5_000)));
        assert_eq!(merged.last_expiry(), Some(UnixTime(9_000)));
    }
}
