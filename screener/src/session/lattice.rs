//! The state of each test within one session.
//!
//! The rules, as in postscreen (reference/postscreen.md section 2.1): what is due stays due until decided; a failure is
//! final for the session; one failure withholds every pass of the session, unless its action is to ignore it and the client
//! has to come again (see [`Lattice::earned`]).

use crate::clock::UnixTime;
use crate::pass::{Stamps, Test, TestSet};

use super::{Arrival, Policy};

/// Where the five tests stand.
#[derive(Debug)]
pub(super) struct Lattice {
    due: TestSet,
    failed: TestSet,
    /// Those of them that are ignored.
    forgiven: TestSet,
    passed: Stamps,
    /// Counted as passed in this session, and not to be remembered.
    excused: TestSet,
    was_new: bool,
}

impl Lattice {
    pub(super) fn new(policy: &Policy, arrival: &Arrival, now: UnixTime) -> Self {
        let enabled = policy.enabled();
        // A tag means "look closer": what was passed before does not count.
        let known = if arrival.tagged { Stamps::default() } else { arrival.stamps.unwrap_or_default() };
        Self {
            due: known.owed(enabled, now),
            failed: TestSet::EMPTY,
            forgiven: TestSet::EMPTY,
            passed: Stamps::default(),
            excused: TestSet::EMPTY,
            was_new: enabled.iter().any(|test| known.get(test).is_none()),
        }
    }

    /// Whether no test has to be done.
    pub(super) fn nothing_due(&self) -> bool {
        self.due.is_empty()
    }

    /// Whether a test has to be done and is not decided.
    pub(super) fn is_open(&self, test: Test) -> bool {
        let undecided = self.passed.get(test).is_none() && !self.excused.contains(test);
        self.due.contains(test) && !self.failed.contains(test) && undecided
    }

    /// Whether a test had to be done in this session.
    pub(super) fn was_due(&self, test: Test) -> bool {
        self.due.contains(test)
    }

    /// Whether a test after the greeting is not decided.
    pub(super) fn deep_open(&self) -> bool {
        Test::ALL.into_iter().any(|test| test.is_deep() && self.is_open(test))
    }

    /// The tests that have failed and are not ignored.
    pub(super) fn blamed(&self) -> TestSet {
        let mut blamed = TestSet::EMPTY;
        self.failed.iter().filter(|&test| !self.forgiven.contains(test)).for_each(|test| blamed.insert(test));
        blamed
    }

    /// Whether any test has failed, whatever its action.
    pub(super) fn any_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Notes a pass; a failure stands.
    pub(super) fn pass(&mut self, test: Test, until: UnixTime) {
        if self.is_open(test) {
            self.passed.set(test, Some(until));
        }
    }

    /// Counts a test as passed for this session only.
    pub(super) fn excuse(&mut self, test: Test) {
        if self.is_open(test) {
            self.excused.insert(test);
        }
    }

    /// Counts a test that was noted as passed as passed for this session only, after all. False: it was not noted.
    pub(super) fn forget(&mut self, test: Test) -> bool {
        let noted = self.passed.get(test).is_some();
        if noted {
            self.passed.set(test, None);
            self.excused.insert(test);
        }
        noted
    }

    /// Notes a failure, whether or not the test was due: what was passed before does not excuse it.
    pub(super) fn fail(&mut self, test: Test, ignored: bool) {
        self.failed.insert(test);
        if ignored {
            self.forgiven.insert(test);
        }
        self.passed.set(test, None);
        self.excused.remove(test);
    }

    /// Whether a test has failed.
    pub(super) fn has_failed(&self, test: Test) -> bool {
        self.failed.contains(test)
    }

    /// Whether some enabled test had never been passed when the client came.
    pub(super) fn was_new(&self) -> bool {
        self.was_new
    }

    /// What the client has earned: nothing while a test that was due is undecided or excused, or after a failure of any
    /// test, on an address without passes, or for a tagged client.
    ///
    /// A client that is told to come again (`comes_again`: until when) has to find something when it does, or it would never
    /// get in: it keeps what it passed beside what was excused or ignored. An early test is done again anyway; a deep test
    /// that it failed counts as passed for that short time, as in postscreen.
    pub(super) fn earned(&self, arrival: &Arrival, comes_again: Option<UnixTime>) -> Option<Stamps> {
        if !arrival.may_pass || arrival.tagged || self.due.is_empty() {
            return None;
        }
        let complete = self.due.iter().all(|test| self.passed.get(test).is_some());
        let Some(until) = comes_again else {
            return (complete && !self.any_failed()).then_some(self.passed);
        };
        let mut earned = self.passed;
        for test in self.failed.iter() {
            if !self.forgiven.contains(test) {
                return None;
            }
            if test.is_deep() {
                earned.set(test, Some(until));
            }
        }
        (earned != Stamps::default()).then_some(earned)
    }

    /// Whether the client has passed everything that is remembered of it, or was excused from it.
    pub(super) fn counts_as_passed(&self) -> bool {
        !self.failed.iter().any(|test| !test.is_deep() || !self.forgiven.contains(test))
    }
}
