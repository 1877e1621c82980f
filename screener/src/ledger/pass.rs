//! The pass: what is kept of it, how two grants become one, and its form in the file.
//!
//! Holds pure functions. Never looks at a clock and never touches a store.

use serde::{Deserialize, Serialize};

use crate::clock::UnixTime;
use crate::pass::{Stamps, Test};

/// The longest comment that is kept, in bytes.
pub const COMMENT_MAX: usize = 1024;

/// Where a pass came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The client passed the tests.
    Screened,
    /// The operator gave it.
    Manual,
    /// A copy of the pass that the client's pool of senders shares.
    Pool,
    /// The client passed the tests of another host, which said so by the shared store; the comment is that host's name.
    Shared,
}

impl Origin {
    /// Whose word stays while a pass counts for anything: what the operator said outlives the rest, and what a pool gave
    /// stays a pool's, so that it can be taken back with it. What this host has seen itself counts before what another says.
    fn outlives(self, new: Self) -> Self {
        let order = [Self::Manual, Self::Pool, Self::Screened, Self::Shared];
        order.into_iter().find(|it| [self, new].contains(it)).unwrap_or(self)
    }

    /// Its number in the file.
    fn number(self) -> u8 {
        match self {
            Self::Screened => 0,
            Self::Manual => 1,
            Self::Pool => 2,
            Self::Shared => 3,
        }
    }

    pub(super) fn of_number(number: u8) -> Option<Self> {
        [Self::Screened, Self::Manual, Self::Pool, Self::Shared].into_iter().find(|it| it.number() == number)
    }
}

/// The durable record that a client passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// Until when each test counts as passed. An expiry at the epoch itself is kept as "never passed".
    pub stamps: Stamps,
    /// Since when the client has had a pass without a gap.
    pub created: UnixTime,
    /// Who gave it.
    pub origin: Origin,
    /// What the operator wrote about it.
    pub comment: Option<String>,
}

impl Pass {
    /// Two records of one client as one: each expiry the later, `created` the earlier; of origin and comment the stronger
    /// origin, and the comment of `self` if it has one.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        Self {
            stamps: self.stamps.merged(&other.stamps),
            created: self.created.min(other.created),
            origin: self.origin.outlives(other.origin),
            comment: self.comment.clone().or_else(|| other.comment.clone()),
        }
    }
}

/// What a grant did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The client had no pass, or one of which every test had expired.
    New,
    /// The client had a pass, and something about it changed.
    Changed,
    /// The client had a pass that already said all this.
    Unchanged,
}

/// A pass as it lies in memory a million times: 72 bytes instead of 120.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    /// Zero: never.
    until: [u64; Test::COUNT],
    created: u64,
    origin: Origin,
    comment: Option<Box<str>>,
}

/// Bytes of a time in the file.
const TIME: usize = 5;
/// The last second that they can hold; nothing expires later.
const LAST_TIME: u64 = (1 << (8 * TIME)) - 1;
// Each test has a bit in a record.
const _: () = assert!(Test::COUNT <= 8);

impl Packed {
    pub(super) fn unpack(&self) -> Pass {
        Pass {
            stamps: self.stamps(),
            created: UnixTime(self.created),
            origin: self.origin,
            comment: self.comment.as_deref().map(str::to_owned),
        }
    }

    pub(super) fn stamps(&self) -> Stamps {
        let mut stamps = Stamps::default();
        for (test, until) in Test::ALL.into_iter().zip(self.until) {
            stamps.set(test, (until != 0).then_some(UnixTime(until)));
        }
        stamps
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// The last moment at which any test counts as passed; zero if there is none.
    pub(super) fn last_expiry(&self) -> UnixTime {
        UnixTime(self.until.into_iter().max().unwrap_or(0))
    }

    /// The pass after a grant on top of `old`.
    ///
    /// No expiry is ever shortened. While `old` still counts for anything, its `created` stays, and what the operator
    /// said (origin and comment) outlives what screening adds; once every test of it has expired, the grant starts anew.
    pub(super) fn granted(
        old: Option<&Self>,
        stamps: &Stamps,
        origin: Origin,
        comment: Option<&str>,
        now: UnixTime,
    ) -> (Self, Grant) {
        let mut until = Test::ALL.map(|test| stamps.get(test).map_or(0, |until| until.0));
        let comment = comment.map(shortened).filter(|text| !text.is_empty());
        if let Some(old) = old {
            for (new, old) in until.iter_mut().zip(old.until) {
                *new = (*new).max(old);
            }
        }
        let Some(old) = old.filter(|old| old.last_expiry() > now) else {
            return (Self { until, created: now.0, origin, comment: comment.map(Into::into) }, Grant::New);
        };
        // The name of the other host goes with its word.
        let kept = old.comment.clone().filter(|_| old.origin != Origin::Shared || origin == Origin::Shared);
        let origin = old.origin.outlives(origin);
        let comment = comment.map(Into::into).or(kept);
        let pass = Self { until, created: old.created, origin, comment };
        let grant = if pass == *old { Grant::Unchanged } else { Grant::Changed };
        (pass, grant)
    }

    /// The pass after one that was written down before is put back on top of `old`: as it was, unless `old` counts for
    /// anything still. Then the two are one, see [`Pass::joined`].
    pub(super) fn restored(old: Option<&Self>, back: &Pass, now: UnixTime) -> (Self, Grant) {
        let back = Pass { created: back.created.min(now), ..back.clone() };
        let Some(old) = old.filter(|old| old.last_expiry() > now) else { return (Self::of(&back), Grant::New) };
        let pass = Self::of(&old.unpack().joined(&back));
        let grant = if pass == *old { Grant::Unchanged } else { Grant::Changed };
        (pass, grant)
    }

    fn of(pass: &Pass) -> Self {
        let comment = pass.comment.as_deref().map(shortened).filter(|text| !text.is_empty());
        Self {
            until: Test::ALL.map(|test| pass.stamps.get(test).map_or(0, |until| until.0)),
            created: pass.created.0,
            origin: pass.origin,
            comment: comment.map(Into::into),
        }
    }

    /// Forgets that a test was passed, unless the operator said so. False: it was not.
    pub(super) fn withdraw(&mut self, test: Test) -> bool {
        self.origin != Origin::Manual && std::mem::take(&mut self.until[test as usize]) != 0
    }

    /// Both records of one client as one: for keys that fall together when the key length got shorter.
    pub(super) fn joined(self, other: &Self) -> Self {
        let now = UnixTime(0);
        let (mut pass, _) = Self::granted(Some(&self), &other.stamps(), other.origin, other.comment.as_deref(), now);
        pass.created = self.created.min(other.created);
        pass
    }

    /// Origin, which tests were ever passed (a bit each), creation, the expiry of each of these tests, comment; times are
    /// seconds in 40 bits, in network order. So a test that is added later needs no other form.
    pub(super) fn encode(&self) -> Vec<u8> {
        let comment = self.comment.as_deref().unwrap_or_default().as_bytes();
        let passed = self.until.iter().enumerate().filter(|(_, until)| **until != 0);
        let mask = passed.clone().fold(0_u8, |mask, (test, _)| mask | 1 << test);
        let mut bytes = Vec::with_capacity(2 + TIME * (1 + Test::COUNT) + comment.len());
        bytes.extend([self.origin.number(), mask]);
        for &time in std::iter::once(&self.created).chain(passed.map(|(_, until)| until)) {
            bytes.extend_from_slice(&time.min(LAST_TIME).to_be_bytes()[8 - TIME..]);
        }
        bytes.extend_from_slice(comment);
        bytes
    }

    /// `None` for what [`Packed::encode`] cannot have written.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[origin, mask], mut rest) = bytes.split_first_chunk()?;
        let mut time = || {
            let (time, behind) = rest.split_first_chunk::<TIME>()?;
            rest = behind;
            Some(time.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
        };
        let created = time()?;
        let mut until = [0; Test::COUNT];
        for test in (0..8).filter(|test| mask & 1 << test != 0) {
            let passed = time()?;
            // A test that this version does not do is nothing to it.
            if let Some(slot) = until.get_mut(test) {
                *slot = passed;
            }
        }
        Self::assembled(until, created, origin, rest)
    }

    /// The same out of parts that come from a file.
    pub(super) fn assembled(until: [u64; Test::COUNT], created: u64, origin: u8, comment: &[u8]) -> Option<Self> {
        let comment = std::str::from_utf8(comment).ok()?;
        let origin = Origin::of_number(origin)?;
        Some(Self { until, created, origin, comment: (!comment.is_empty()).then(|| comment.into()) })
    }
}

/// At most [`COMMENT_MAX`] bytes of a comment, cut between characters.
pub(super) fn shortened(comment: &str) -> &str {
    &comment[..comment.floor_char_boundary(COMMENT_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(1_000);

    fn until(at: u64) -> Stamps {
        Stamps::all_until(UnixTime(at))
    }

    fn granted(old: Option<&Packed>, at: u64, origin: Origin, comment: Option<&str>) -> (Packed, Grant) {
        Packed::granted(old, &until(at), origin, comment, NOW)
    }

    #[test]
    fn a_grant_never_shortens_a_pass() {
        let (long, grant) = granted(None, 5_000, Origin::Screened, None);
        assert_eq!(grant, Grant::New);
        let (still, grant) = granted(Some(&long), 2_000, Origin::Screened, None);
        assert_eq!((still, grant), (long, Grant::Unchanged));
    }

    #[test]
    fn what_the_operator_said_outlives_what_screening_adds() {
        let (manual, _) = granted(None, 2_000, Origin::Manual, Some("our branch office"));
        let (both, grant) = granted(Some(&manual), 3_000, Origin::Screened, None);
        assert_eq!(grant, Grant::Changed);
        assert_eq!((both.origin, both.comment.as_deref()), (Origin::Manual, Some("our branch office")));
        assert_eq!(both.stamps(), until(3_000));
    }

    #[test]
    fn what_a_pool_gave_stays_a_pools_and_comes_back_as_such() {
        let (copy, _) = granted(None, 2_000, Origin::Pool, Some("pool example.com"));
        let (more, _) = granted(Some(&copy), 3_000, Origin::Screened, None);
        assert_eq!((more.origin, more.comment.as_deref()), (Origin::Pool, Some("pool example.com")));
        assert_eq!(Packed::decode(&more.encode()), Some(more.clone()));
        let (by_hand, _) = granted(Some(&more), 3_000, Origin::Manual, None);
        assert_eq!(by_hand.origin, Origin::Manual);
    }

    #[test]
    fn who_passes_here_too_has_its_own_pass_and_not_another_hosts() {
        let (other, _) = granted(None, 2_000, Origin::Shared, Some("mx2.example.com"));
        assert_eq!(Packed::decode(&other.encode()), Some(other.clone()));
        let (own, grant) = granted(Some(&other), 3_000, Origin::Screened, None);
        assert_eq!((own.origin, own.comment, grant), (Origin::Screened, None, Grant::Changed));
    }

    #[test]
    fn a_pass_that_has_wholly_expired_is_begun_anew() {
        let (old, _) = Packed::granted(None, &until(900), Origin::Manual, Some("for the day"), UnixTime(500));
        let (new, grant) = granted(Some(&old), 2_000, Origin::Screened, None);
        assert_eq!(grant, Grant::New);
        assert_eq!((new.created, new.origin, new.comment), (NOW.0, Origin::Screened, None));
    }

    #[test]
    fn what_is_put_back_is_as_it_was_and_takes_nothing_away() {
        let back = Pass { stamps: until(5_000), created: UnixTime(10), origin: Origin::Screened, comment: None };
        let (alone, grant) = Packed::restored(None, &back, NOW);
        assert_eq!((alone.unpack(), grant), (back.clone(), Grant::New));
        let (manual, _) = granted(None, 9_000, Origin::Manual, Some("asked by phone"));
        let (both, grant) = Packed::restored(Some(&manual), &back, NOW);
        assert_eq!(grant, Grant::Changed);
        assert_eq!((both.stamps(), both.created, both.origin), (until(9_000), 10, Origin::Manual));
        assert_eq!(both.comment, manual.comment);
        assert_eq!(Packed::restored(Some(&both), &back, NOW), (both.clone(), Grant::Unchanged));
        let (gone, _) = Packed::granted(None, &until(900), Origin::Manual, Some("for the day"), UnixTime(500));
        assert_eq!(Packed::restored(Some(&gone), &back, NOW).0, alone, "what has expired has no say");
    }

    #[test]
    fn the_stored_form_comes_back_and_damage_is_seen() {
        let mut stamps = until(5_000);
        stamps.set(Test::Dnsbl, None);
        let (pass, _) = Packed::granted(None, &stamps, Origin::Manual, Some("später"), NOW);
        let bytes = pass.encode();
        let fixed = bytes.len() - "später".len();
        assert_eq!(fixed, 2 + 5 * TIME, "only what was passed takes room");
        assert_eq!(Packed::decode(&bytes), Some(pass));
        assert_eq!(Packed::decode(&[]), None);
        assert_eq!(Packed::decode(&bytes[..fixed - 1]), None, "cut short");
        assert_eq!(Packed::decode(&bytes[..fixed + 3]), None, "cut inside a character");
        let mut wrong = bytes.clone();
        wrong[0] = 9;
        assert_eq!(Packed::decode(&wrong), None, "an origin that nobody wrote");
        let (endless, _) = granted(None, u64::MAX, Origin::Shared, None);
        assert_eq!(Packed::decode(&endless.encode()).unwrap().stamps(), until(LAST_TIME));
    }

    #[test]
    fn a_test_that_a_later_version_added_is_passed_over() {
        let (pass, _) = granted(None, 5_000, Origin::Screened, None);
        let mut bytes = pass.encode();
        bytes[1] |= 1 << Test::COUNT;
        bytes.extend_from_slice(&[0, 0, 0, 0x20, 0]);
        assert_eq!(Packed::decode(&bytes), Some(pass));
    }

    #[test]
    fn what_this_host_has_seen_counts_before_what_another_says() {
        let (shared, _) = granted(None, 2_000, Origin::Shared, None);
        let (own, _) = granted(Some(&shared), 3_000, Origin::Screened, None);
        let (more, _) = granted(Some(&own), 4_000, Origin::Shared, None);
        assert_eq!((shared.origin, own.origin, more.origin), (Origin::Shared, Origin::Screened, Origin::Screened));
    }

    #[test]
    fn a_comment_is_cut_between_characters() {
        let long = "ä".repeat(COMMENT_MAX);
        assert_eq!(shortened(&long).len(), COMMENT_MAX);
        assert_eq!(shortened(&format!("a{long}")).len(), COMMENT_MAX - 1);
    }
}
