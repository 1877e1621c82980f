//! Against a model that is a plain map: grants, failures, revocations, expiry, other tests, other keys and restarts in any order.
//!
//! The model knows numbers and maximums and none of the ledger's code.

use proptest::prelude::*;

use super::*;
use crate::pass::TestSet;

#[derive(Clone, Debug)]
enum Step {
    Grant { client: u8, stamps: [Option<u8>; Test::COUNT], origin: u8, comment: Option<u8> },
    Withdraw { client: u8, test: usize },
    Revoke(u8),
    Pass(u8),
    Expire { retention: u8 },
    Enable(u8),
    Reopen { key_length: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12_u8, any::<[Option<u8>; Test::COUNT]>(), 0..4_u8, any::<Option<u8>>())
            .prop_map(|(client, stamps, origin, comment)| Step::Grant { client, stamps, origin, comment }),
        3 => (0..12_u8, 0..Test::COUNT).prop_map(|(client, test)| Step::Withdraw { client, test }),
        2 => (0..12_u8).prop_map(Step::Revoke),
        3 => any::<u8>().prop_map(Step::Pass),
        2 => any::<u8>().prop_map(|retention| Step::Expire { retention }),
        2 => any::<u8>().prop_map(Step::Enable),
        1 => prop_oneof![3 => Just(64), 1 => Just(60), 1 => Just(48)].prop_map(|key_length| Step::Reopen { key_length }),
    ]
}

fn length(bits: u8) -> Ipv6KeyLength {
    Ipv6KeyLength::try_from(bits).unwrap()
}

/// A third of the clients is IPv4; the others fall together when the key gets shorter, by twos and threes and all.
fn client(n: u8, length: Ipv6KeyLength) -> ClientKey {
    if n.is_multiple_of(3) {
        nth(n.into())
    } else {
        ClientKey::of(format!("2001:db8:0:{:x}::1", n * 6).parse().unwrap(), length)
    }
}

/// A pass, naively: zero is never.
#[derive(Clone, Debug, PartialEq)]
struct Naive {
    until: [u64; Test::COUNT],
    created: u64,
    origin: Origin,
    comment: Option<String>,
}

impl Naive {
    fn of(pass: &Pass) -> Self {
        let until = Test::ALL.map(|test| pass.stamps.get(test).map_or(0, |until| until.0));
        Self { until, created: pass.created.0, origin: pass.origin, comment: pass.comment.clone() }
    }

    /// Its comment, if the pass is `origin`'s now: what another host said of itself goes when this one knows the client.
    fn said(&self, origin: Origin) -> Option<String> {
        self.comment.clone().filter(|_| self.origin != Origin::Shared || origin == Origin::Shared)
    }

    fn last(&self) -> u64 {
        self.until.into_iter().max().unwrap()
    }
}

/// Who has the last word: the operator, a pool, this host, another.
fn stronger(one: Origin, other: Origin) -> Origin {
    let rank = |origin| match origin {
        Origin::Manual => 3,
        Origin::Pool => 2,
        Origin::Screened => 1,
        Origin::Shared => 0,
    };
    if rank(one) >= rank(other) { one } else { other }
}

#[derive(Default)]
struct Model {
    passes: BTreeMap<ClientKey, Naive>,
}

impl Model {
    fn grant(&mut self, client: ClientKey, new: Naive, now: u64) -> Grant {
        let Some(old) = self.passes.get(&client).cloned() else {
            self.passes.insert(client, new);
            return Grant::New;
        };
        let mut until = new.until;
        for (until, old) in until.iter_mut().zip(old.until) {
            *until = (*until).max(old);
        }
        let alive = old.last() > now;
        let (created, origin, comment) = if alive {
            let origin = stronger(old.origin, new.origin);
            (old.created, origin, new.comment.or(old.said(origin)))
        } else {
            (new.created, new.origin, new.comment)
        };
        let pass = Naive { until, created, origin, comment };
        let same = pass == old;
        self.passes.insert(client, pass);
        match (alive, same) {
            (false, _) => Grant::New,
            (true, false) => Grant::Changed,
            (true, true) => Grant::Unchanged,
        }
    }

    fn withdraw(&mut self, client: ClientKey, test: usize) -> bool {
        let pass = self.passes.get_mut(&client).filter(|pass| pass.origin != Origin::Manual);
        pass.is_some_and(|pass| std::mem::take(&mut pass.until[test]) != 0)
    }

    fn expire(&mut self, limit: u64) -> usize {
        let before = self.passes.len();
        self.passes.retain(|_, pass| pass.last() >= limit);
        before - self.passes.len()
    }

    /// Under a shorter key those that fall together are one: the later of each expiry, the earlier creation, and of two
    /// comments that of the lower address.
    fn cut(&mut self, length: Ipv6KeyLength) {
        for (old, pass) in std::mem::take(&mut self.passes) {
            let key = ClientKey::of(old.address(), length);
            let Some(other) = self.passes.remove(&key) else {
                self.passes.insert(key, pass);
                continue;
            };
            let mut joined = pass.clone();
            for (until, other) in joined.until.iter_mut().zip(other.until) {
                *until = (*until).max(other);
            }
            joined.created = pass.created.min(other.created);
            // One of which nothing is left says nothing.
            if pass.last() == 0 {
                (joined.origin, joined.comment) = (other.origin, other.comment);
            } else {
                joined.origin = stronger(pass.origin, other.origin);
                joined.comment = other.comment.or(pass.said(joined.origin));
            }
            self.passes.insert(key, joined);
        }
    }
}

fn all(ledger: &Ledger) -> BTreeMap<ClientKey, Naive> {
    ledger.passes_after(None, usize::MAX).iter().map(|(client, pass)| (*client, Naive::of(pass))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_a_map_that_survives_restarts(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.redb");
        let open_with = |key| {
            let (ledger, report) = Ledger::open(&path, Options { ipv6_key: key, ..Options::default() }).unwrap();
            assert_eq!(report.degraded, Vec::<String>::new());
            ledger
        };
        let mut key = length(64);
        let mut ledger = Some(open_with(key));
        let mut changes = ledger.as_ref().unwrap().changes();
        let mut mirror = BTreeMap::new();
        let mut model = Model::default();
        let mut now = NOW.0;
        for step in steps {
            let open = ledger.as_ref().unwrap();
            let before = all(open);
            match step {
                Step::Grant { client: n, stamps: spans, origin, comment } => {
                    // Some of them have expired already.
                    let until = spans.map(|span| span.map_or(0, |span| now - 100 + u64::from(span)));
                    let mut stamps = Stamps::default();
                    for (test, until) in Test::ALL.into_iter().zip(until) {
                        stamps.set(test, (until != 0).then_some(UnixTime(until)));
                    }
                    let origin = [Origin::Screened, Origin::Manual, Origin::Pool, Origin::Shared][usize::from(origin)];
                    let comment = comment.map(|n| format!("note {n}"));
                    let seen = open.grant(client(n, key), &stamps, origin, comment.as_deref(), UnixTime(now));
                    let new = Naive { until, created: now, origin, comment };
                    prop_assert_eq!(seen, model.grant(client(n, key), new, now));
                    let (after, old) = (all(open), before.get(&client(n, key)));
                    for (until, old) in after[&client(n, key)].until.into_iter().zip(old.map_or([0; _], |old| old.until)) {
                        prop_assert!(until >= old, "no expiry is ever shortened");
                    }
                }
                Step::Withdraw { client: n, test } => {
                    let seen = open.withdraw(client(n, key), Test::ALL[test]);
                    prop_assert_eq!(seen, model.withdraw(client(n, key), test));
                }
                Step::Revoke(n) => {
                    prop_assert_eq!(open.revoke(client(n, key)), model.passes.remove(&client(n, key)).is_some());
                }
                Step::Pass(seconds) => now += u64::from(seconds),
                Step::Expire { retention } => {
                    let expired = open.expire(UnixTime(now), Duration::from_secs(retention.into()));
                    prop_assert_eq!(expired.passes, model.expire(now - u64::from(retention)));
                }
                Step::Enable(mask) => {
                    let enabled: Vec<_> = (0..Test::COUNT).filter(|test| mask & 1 << test != 0).collect();
                    let set: TestSet = enabled.iter().map(|&test| Test::ALL[test]).collect();
                    for (client, pass) in &model.passes {
                        let stamps = open.stamps(*client).unwrap();
                        // Each expires by itself, and one that is enabled now is asked for alone.
                        let owed: Vec<_> = stamps.owed(set, UnixTime(now)).iter().map(|test| test as usize).collect();
                        let due = |test: &usize| pass.until[*test] <= now;
                        prop_assert_eq!(owed, enabled.iter().copied().filter(due).collect::<Vec<_>>());
                        if !enabled.is_empty() {
                            let first = enabled.iter().map(|&test| pass.until[test]).min().unwrap();
                            let until = stamps.complete_until(set).map_or(0, |until| until.0);
                            prop_assert_eq!(until, first);
                        }
                    }
                }
                Step::Reopen { key_length } => {
                    drop(ledger.take());
                    key = length(key_length);
                    model.cut(key);
                    let reopened = open_with(key);
                    changes = reopened.changes();
                    mirror.clear();
                    ledger = Some(reopened);
                }
            }
            let open = ledger.as_ref().unwrap();
            prop_assert_eq!(&all(open), &model.passes);
            while let batch = changes.take(3) && !batch.is_empty() {
                for Change { client, pass } in batch {
                    match pass {
                        Some(pass) => mirror.insert(client, Naive::of(&pass)),
                        None => mirror.remove(&client),
                    };
                }
            }
            prop_assert_eq!(&mirror, &model.passes);
        }
    }
}
