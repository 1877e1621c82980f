//! What hosts tell each other about a client, and how two such words become one.
//!
//! Holds the merge algebra and the compact form. Pure: never looks at a clock, never touches a ledger or a store.
//!
//! For each test there is one register: until when the test counts as passed, and the *epoch* under which that was said. A
//! revocation begins a new epoch, a grant is made under the epoch that its host knows. Of two registers the one with the later
//! epoch stands, and within an epoch the one with the later expiry. That is the greater of two pairs, so joining is
//! commutative, associative and idempotent, and the order in which words arrive does not matter. And nothing comes back that
//! was taken away: a grant stands under a revocation unless whoever made it knew of that one or of a later one. Clocks do not come into it:
//! an epoch is the time of its revocation only so that it can be forgotten one day, and is always later than the one before it.

use std::cmp::Ordering;
use std::time::Duration;

use crate::clock::UnixTime;
use crate::pass::{Stamps, Test};

/// How long a revocation is remembered where no pass stands under it. A host that was cut off for longer may bring back what
/// was revoked meanwhile; three times the longest default expiry of a test.
pub const REMEMBERED: Duration = Duration::from_secs(90 * 86_400);

/// The longest host name and the longest comment that are told, in bytes.
const HOST_MAX: usize = 64;
const COMMENT_MAX: usize = 1024;

const VERSION: u8 = 1;
const REGISTER: usize = 8;
const REGISTERS: usize = REGISTER * Test::COUNT;

/// The word of all hosts on one test of one client. Times are seconds since 1970; 0: never.
///
/// The order of the fields is the order of the registers: joining takes the greater one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register {
    /// The revocation under which this stands.
    pub epoch: u32,
    /// Until when the test counts as passed.
    pub until: u32,
}

/// Who gave the pass. Of two the one with the later epoch stands; then an operator's stands above screening's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// As in [`Register`]; only a revocation of the whole pass begins a new one.
    pub epoch: u32,
    /// An operator gave it.
    pub manual: bool,
    /// The host that did.
    pub host: String,
    /// What the operator wrote about it.
    pub comment: String,
}

/// What is known about a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// In the order of [`Test::ALL`].
    pub tests: [Register; Test::COUNT],
    /// By whom.
    pub given: Given,
}

/// Seconds that fit: the last of them is in 2106.
pub fn seconds(time: UnixTime) -> u32 {
    u32::try_from(time.0).unwrap_or(u32::MAX)
}

impl Given {
    /// In the order of its fields. The store's script compares the bytes, so this is what both go by.
    fn encode(&self, bytes: &mut Vec<u8>) {
        let host = &self.host[..self.host.floor_char_boundary(HOST_MAX)];
        let comment = &self.comment[..self.comment.floor_char_boundary(COMMENT_MAX)];
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.push(self.manual.into());
        bytes.push(host.len() as u8);
        bytes.extend_from_slice(host.as_bytes());
        bytes.extend_from_slice(comment.as_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (epoch, rest) = bytes.split_first_chunk()?;
        let (&[manual, length], rest) = rest.split_first_chunk()?;
        let (host, comment) = rest.split_at_checked(length.into())?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let manual = match manual {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self { epoch: u32::from_be_bytes(*epoch), manual, host: text(host)?, comment: text(comment)? })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        if self == other {
            return Ordering::Equal;
        }
        let [mut mine, mut theirs] = [Vec::new(), Vec::new()];
        self.encode(&mut mine);
        other.encode(&mut theirs);
        mine.cmp(&theirs)
    }
}

impl State {
    /// Both words as one.
    #[must_use]
    pub fn joined(&self, other: &Self) -> Self {
        let mut tests = self.tests;
        for (mine, theirs) in tests.iter_mut().zip(other.tests) {
            *mine = (*mine).max(theirs);
        }
        let given = if self.given.cmp(&other.given) == Ordering::Less { &other.given } else { &self.given };
        Self { tests, given: given.clone() }
    }

    /// Until when each test counts as passed.
    pub fn stamps(&self) -> Stamps {
        let mut stamps = Stamps::default();
        for (test, register) in Test::ALL.into_iter().zip(self.tests) {
            stamps.set(test, (register.until != 0).then_some(UnixTime(register.until.into())));
        }
        stamps
    }

    /// Until when this is worth keeping; `None`: nothing is said.
    pub fn kept_until(&self) -> Option<UnixTime> {
        let epochs = self.tests.iter().map(|register| register.epoch).chain([self.given.epoch]);
        let remembered = epochs.filter(|&epoch| epoch != 0).map(|epoch| UnixTime(epoch.into()).plus(REMEMBERED)).max();
        remembered.max(self.stamps().last_expiry())
    }

    /// A version, the registers, who gave it; numbers in network order, so that the order of the bytes is the order of the
    /// numbers.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(VERSION);
        for Register { epoch, until } in self.tests {
            bytes.extend_from_slice(&epoch.to_be_bytes());
            bytes.extend_from_slice(&until.to_be_bytes());
        }
        self.given.encode(&mut bytes);
        bytes
    }

    /// `None` for what [`State::encode`] cannot have written.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, rest) = bytes.split_first()? else { return None };
        let (registers, given) = rest.split_at_checked(REGISTERS)?;
        let mut tests = [Register::default(); Test::COUNT];
        for (register, bytes) in tests.iter_mut().zip(registers.chunks_exact(REGISTER)) {
            let (epoch, until) = bytes.split_first_chunk()?;
            *register =
                Register { epoch: u32::from_be_bytes(*epoch), until: u32::from_be_bytes(until.try_into().ok()?) };
        }
        Some(Self { tests, given: Given::decode(given)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn registers() -> impl Strategy<Value = Register> {
        (0..4_u32, 0..4_u32).prop_map(|(epoch, until)| Register { epoch, until })
    }

    prop_compose! {
        fn given()(epoch in 0..3_u32, manual: bool, host in "[ab]{0,2}", comment in "[xyö]{0,2}") -> Given {
            Given { epoch, manual, host, comment }
        }
    }

    prop_compose! {
        fn states()(tests in prop::array::uniform5(registers()), given in given()) -> State {
            State { tests, given }
        }
    }

    proptest! {
        #[test]
        fn the_order_in_which_words_arrive_does_not_matter(a in states(), b in states(), c in states()) {
            prop_assert_eq!(a.joined(&b), b.joined(&a));
            prop_assert_eq!(a.joined(&b).joined(&c), a.joined(&b.joined(&c)));
            prop_assert_eq!(a.joined(&a), a.clone());
            prop_assert_eq!(a.joined(&b).joined(&b), a.joined(&b));
        }

        #[test]
        fn what_was_written_comes_back_and_damage_never_panics(state in states(), cut in 0..70_usize, bytes: Vec<u8>) {
            let written = state.encode();
            prop_assert_eq!(State::decode(&written), Some(state));
            if cut < 1 + REGISTERS + 6 {
                prop_assert_eq!(State::decode(&written[..cut.min(written.len())]), None);
            }
            if let Some(read) = State::decode(&bytes) {
                prop_assert_eq!(State::decode(&read.encode()).map(|again| again.tests), Some(read.tests));
            }
        }

        #[test]
        fn nothing_that_was_said_under_an_earlier_epoch_stands(a in states(), b in states()) {
            for (joined, (mine, theirs)) in a.joined(&b).tests.into_iter().zip(a.tests.into_iter().zip(b.tests)) {
                let epoch = mine.epoch.max(theirs.epoch);
                let standing = [mine, theirs].into_iter().filter(|register| register.epoch == epoch);
                prop_assert_eq!(joined.epoch, epoch);
                prop_assert_eq!(Some(joined.until), standing.map(|register| register.until).max());
            }
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_are_read_again() {
        let given = Given { host: "ä".repeat(60), comment: "ö".repeat(2000), ..Given::default() };
        let back = State::decode(&State { given, ..State::default() }.encode()).unwrap();
        assert_eq!((back.given.host.len(), back.given.comment.len()), (HOST_MAX, COMMENT_MAX));
    }

    #[test]
    fn a_word_is_kept_as_long_as_its_pass_or_its_revocation_counts() {
        let mut state = State::default();
        assert_eq!(state.kept_until(), None);
        state.tests[1].until = 500;
        assert_eq!(state.kept_until(), Some(UnixTime(500)));
        state.tests[3].epoch = 400;
        assert_eq!(state.kept_until(), Some(UnixTime(400).plus(REMEMBERED)));
    }
}
