//! What this host has to say to others about a client, and what it takes from them: the ledger as one replica of many.
//!
//! The registers of `share::State` are what the ledger holds anyway: the expiries of a pass, and beside them the epochs, that is
//! when a client was last revoked. Every expiry in the ledger stands under the epoch that is there, because a revocation takes
//! away what stood before it, under the same lock. So nothing has to be remembered twice, and no change can fall between two
//! copies. Never says anything about passes that are this host's own business: copies of pools' passes, and an operator's
//! unless those are shared.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::change::Watcher;
use super::news::Happened;
use super::pass::Packed;
use super::{Changes, Ledger, Origin, Passes, Shared};
use crate::client::ClientKey;
use crate::clock::{Now, UnixTime};
use crate::pass::{Stamps, Test};
use crate::share::{Given, REMEMBERED, Register, State, seconds};

/// The most revocations that are remembered; beyond that the oldest go first. 50 MiB.
const MOST_REVOCATIONS: usize = 1_000_000;

/// When a client was last revoked, in seconds since 1970: each test, and the pass as a whole. 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Epochs {
    tests: [u32; Test::COUNT],
    whole: u32,
}

const ROW: usize = 4 * (Test::COUNT + 1);

impl Epochs {
    fn latest(&self) -> u32 {
        self.tests.iter().copied().fold(self.whole, u32::max)
    }

    /// Both rows of one client as one: for keys that fall together when the key length got shorter.
    pub(super) fn joined(mut self, other: &Self) -> Self {
        for (mine, theirs) in self.tests.iter_mut().zip(other.tests) {
            *mine = (*mine).max(theirs);
        }
        Self { whole: self.whole.max(other.whole), ..self }
    }

    pub(super) fn encode(&self) -> [u8; ROW] {
        let mut row = [0; ROW];
        for (place, epoch) in row.chunks_exact_mut(4).zip(self.tests.iter().chain([&self.whole])) {
            place.copy_from_slice(&epoch.to_be_bytes());
        }
        row
    }

    pub(super) fn decode(row: &[u8]) -> Option<Self> {
        let row: &[u8; ROW] = row.try_into().ok()?;
        let mut epochs = row.chunks_exact(4).map(|place| place.try_into().map_or(0, u32::from_be_bytes));
        let mut tests = [0; Test::COUNT];
        for test in &mut tests {
            *test = epochs.next()?;
        }
        Some(Self { tests, whole: epochs.next()? })
    }
}

/// How this host shares.
#[derive(Clone, Copy, Debug)]
pub struct Sharing<'a> {
    /// What it is called among the others.
    pub host: &'a str,
    /// Whether passes given by hand are shared, told and taken in.
    pub manual: bool,
}

/// What came of another host's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Something changed here.
    pub changed: bool,
    /// A pass went.
    pub revoked: bool,
    /// This host knows more than the word said.
    pub ahead: bool,
}

impl Shared {
    /// Notes that a test, or the whole pass, was taken away. To be called under the lock under which it is.
    pub(super) fn revoked(&self, passes: &mut Passes, client: ClientKey, test: Option<Test>) {
        if !self.options.shared {
            return;
        }
        let epochs = passes.epochs.entry(client).or_default();
        // Later than any before it, whatever the clocks of the hosts say.
        let now = seconds(Now::read().unix).max(epochs.latest().saturating_add(1));
        match test {
            Some(test) => epochs.tests[test as usize] = now,
            None => *epochs = Epochs { tests: [now; Test::COUNT], whole: now },
        }
    }

    /// Forgets revocations that nobody has to know any more.
    pub(super) fn forget_revocations(&self, now: UnixTime) {
        let mut passes = self.passes();
        let Passes { by_client, epochs, .. } = &mut *passes;
        let limit = seconds(UnixTime(now.0.saturating_sub(REMEMBERED.as_secs())));
        let excess = epochs.len().saturating_sub(MOST_REVOCATIONS);
        let limit = if excess == 0 { limit } else { limit.max(nth_oldest(epochs, excess)) };
        // Under a pass it stays as long as the pass: what the other hosts have stands under it too.
        let old = |client: &ClientKey, epochs: &Epochs| epochs.latest() < limit && !by_client.contains_key(client);
        let gone: Vec<_> =
            epochs.iter().filter(|(client, epochs)| old(client, epochs)).map(|(client, _)| *client).collect();
        for client in gone {
            epochs.remove(&client);
            if self.durable {
                self.pending.pass(client);
            }
        }
    }
}

fn nth_oldest(epochs: &BTreeMap<ClientKey, Epochs>, n: usize) -> u32 {
    let mut all: Vec<_> = epochs.values().map(Epochs::latest).collect();
    *all.select_nth_unstable(n).1
}

/// Whether a pass is this host's own business.
fn is_private(pass: &Packed, sharing: Sharing<'_>) -> bool {
    match pass.origin() {
        Origin::Screened | Origin::Shared => false,
        Origin::Manual => !sharing.manual,
        Origin::Pool => true,
    }
}

/// The client in the words of the hosts.
fn state(pass: Option<&Packed>, epochs: Epochs, sharing: Sharing<'_>) -> State {
    let mut state = State::default();
    let stamps = pass.map(Packed::stamps).unwrap_or_default();
    for ((test, register), epoch) in Test::ALL.into_iter().zip(&mut state.tests).zip(epochs.tests) {
        *register = Register { epoch, until: stamps.get(test).map_or(0, seconds) };
    }
    state.given = Given { epoch: epochs.whole, ..Given::default() };
    if let Some(pass) = pass {
        let comment = pass.comment().unwrap_or_default();
        match pass.origin() {
            Origin::Shared => comment.clone_into(&mut state.given.host),
            Origin::Manual => {
                state.given.manual = true;
                sharing.host.clone_into(&mut state.given.host);
                comment.clone_into(&mut state.given.comment);
            }
            Origin::Screened | Origin::Pool => sharing.host.clone_into(&mut state.given.host),
        }
    }
    state
}

impl Ledger {
    /// Each change of a pass from now on, without what is there already.
    pub fn news(&self) -> Changes {
        let mut changes = self.changes();
        changes.skip_the_beginning();
        changes
    }

    /// What this host says about a client; `None`: nothing that anybody has to know.
    pub fn state(&self, client: ClientKey, sharing: Sharing<'_>, now: UnixTime) -> Option<State> {
        let passes = self.shared.passes();
        let pass = passes.by_client.get(&client).filter(|pass| !is_private(pass, sharing));
        let epochs = passes.epochs.get(&client).copied().unwrap_or_default();
        let state = state(pass, epochs, sharing);
        state.kept_until().is_some_and(|until| until > now).then_some(state)
    }

    /// At most `most` clients about whom there may be something to say, in order, behind the client `after`.
    pub fn clients_after(&self, after: Option<ClientKey>, most: usize) -> Vec<ClientKey> {
        let passes = self.shared.passes();
        let behind = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut clients: BTreeSet<_> = passes.by_client.range(behind).map(|(client, _)| *client).take(most).collect();
        clients.extend(passes.epochs.range(behind).map(|(client, _)| *client).take(most));
        clients.into_iter().take(most).collect()
    }

    /// Takes in what is known elsewhere about a client. `witness`: of the follower who brought it, who need not be told of it.
    pub fn take_in(
        &self,
        client: ClientKey,
        theirs: &State,
        sharing: Sharing<'_>,
        now: UnixTime,
        witness: &Witness,
    ) -> Taken {
        let worthless = theirs.kept_until().is_none_or(|until| until <= now);
        if worthless || (theirs.given.manual && !sharing.manual) {
            return Taken::default();
        }
        let mut passes = self.shared.passes();
        let pass = passes.by_client.get(&client);
        let known = passes.epochs.get(&client).copied().unwrap_or_default();
        if pass.is_some_and(|pass| is_private(pass, sharing) && pass.last_expiry() > now) {
            return Taken::default();
        }
        let mine = state(pass, known, sharing);
        let joined = mine.joined(theirs);
        let ahead = joined != *theirs && mine.kept_until().is_some_and(|until| until > now);
        let epochs = Epochs { tests: joined.tests.map(|register| register.epoch), whole: joined.given.epoch };
        let next = next(pass, &mine, &joined, sharing, now);
        let revoked = pass.is_some() && next.is_none();
        if pass == next.as_ref() && epochs == known {
            return Taken { changed: false, revoked: false, ahead };
        }
        let counted = pass.is_some_and(|pass| pass.last_expiry() > now);
        if let Some(pass) = next {
            let happened = if counted { Happened::Extended } else { Happened::Granted };
            passes.news.tell(client, || (happened, Some(pass.unpack())));
            passes.by_client.insert(client, pass);
        } else if let Some(pass) = passes.by_client.remove(&client) {
            passes.news.tell(client, || (Happened::Revoked, Some(pass.unpack())));
        }
        if epochs != Epochs::default() {
            passes.epochs.insert(client, epochs);
        }
        self.shared.pass_changed_but_for(&mut passes, client, Some(&witness.0));
        Taken { changed: true, revoked, ahead }
    }
}

/// The pass after another host's word.
fn next(pass: Option<&Packed>, mine: &State, joined: &State, sharing: Sharing<'_>, now: UnixTime) -> Option<Packed> {
    let stamps = joined.stamps();
    if stamps == Stamps::default() {
        return None;
    }
    // What this host has seen itself stays its own word while anything of it stands.
    let stands = |(mine, joined): (&Register, &Register)| mine.until != 0 && mine == joined;
    let alive = pass.filter(|pass| pass.last_expiry() > now && mine.tests.iter().zip(&joined.tests).any(stands));
    let created = alive.map_or(now, |pass| pass.unpack().created);
    let Given { manual, host, comment, .. } = &joined.given;
    let (origin, comment) = match alive {
        _ if *manual => (Origin::Manual, comment.as_str()),
        Some(pass) if pass.origin() == Origin::Screened => (Origin::Screened, ""),
        _ => (Origin::Shared, if host.is_empty() { sharing.host } else { host.as_str() }),
    };
    let (next, _) = Packed::granted(None, &stamps, origin, Some(comment), created);
    Some(next)
}

/// Stands for a follower of the changes where it brings some itself.
#[derive(Clone, Debug)]
pub struct Witness(Arc<Watcher>);

impl Changes {
    /// For [`Ledger::take_in`].
    pub fn witness(&self) -> Witness {
        Witness(Arc::clone(&self.watcher))
    }
}
