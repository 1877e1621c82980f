//! Against a model that is a plain map: grants, revocations, expiry and restarts in any order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Grant { client: u8, stamps: [Option<u8>; Test::COUNT], manual: bool, comment: Option<u8> },
    Revoke(u8),
    Pass(u8),
    Expire { retention: u8 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12_u8, any::<[Option<u8>; Test::COUNT]>(), any::<bool>(), any::<Option<u8>>())
            .prop_map(|(client, stamps, manual, comment)| Step::Grant { client, stamps, manual, comment }),
        2 => (0..12_u8).prop_map(Step::Revoke),
        3 => any::<u8>().prop_map(Step::Pass),
        2 => any::<u8>().prop_map(|retention| Step::Expire { retention }),
        1 => Just(Step::Reopen),
    ]
}

/// Half of the clients are IPv6.
fn client(n: u8) -> ClientKey {
    if n.is_multiple_of(2) { nth(n.into()) } else { key(&format!("2001:db8:{n:x}::1")) }
}

#[derive(Default)]
struct Model {
    passes: BTreeMap<ClientKey, Pass>,
}

impl Model {
    fn grant(
        &mut self,
        client: ClientKey,
        stamps: Stamps,
        origin: Origin,
        comment: Option<String>,
        now: UnixTime,
    ) -> Grant {
        let fresh = Pass { stamps, created: now, origin, comment: comment.clone() };
        let Some(old) = self.passes.get(&client).cloned() else {
            self.passes.insert(client, fresh);
            return Grant::New;
        };
        let merged = old.stamps.merged(&stamps);
        let alive = Test::ALL.into_iter().any(|test| old.stamps.get(test).is_some_and(|until| until > now));
        let new = if alive {
            let origin = if old.origin == Origin::Manual { old.origin } else { origin };
            Pass { stamps: merged, created: old.created, origin, comment: comment.or(old.comment.clone()) }
        } else {
            Pass { stamps: merged, ..fresh }
        };
        self.passes.insert(client, new.clone());
        match (alive, new == old) {
            (false, _) => Grant::New,
            (true, false) => Grant::Changed,
            (true, true) => Grant::Unchanged,
        }
    }

    fn expire(&mut self, limit: UnixTime) -> usize {
        let before = self.passes.len();
        self.passes.retain(|_, pass| pass.stamps.last_expiry().is_some_and(|until| until >= limit));
        before - self.passes.len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_a_map_that_survives_restarts(steps in proptest::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.redb");
        let mut ledger = Some(open_well(&path));
        let mut changes = ledger.as_ref().unwrap().changes();
        let mut mirror = BTreeMap::new();
        let mut model = Model::default();
        let mut now = NOW;
        for step in steps {
            let open = ledger.as_ref().unwrap();
            match step {
                Step::Grant { client: n, stamps: spans, manual, comment } => {
                    let mut stamps = Stamps::default();
                    for (test, span) in Test::ALL.into_iter().zip(spans) {
                        // Some of them have expired already.
                        stamps.set(test, span.map(|span| UnixTime(now.0 - 100 + u64::from(span))));
                    }
                    let origin = if manual { Origin::Manual } else { Origin::Screened };
                    let comment = comment.map(|n| format!("note {n}"));
                    let seen = open.grant(client(n), &stamps, origin, comment.as_deref(), now);
                    prop_assert_eq!(seen, model.grant(client(n), stamps, origin, comment, now));
                }
                Step::Revoke(n) => {
                    prop_assert_eq!(open.revoke(client(n)), model.passes.remove(&client(n)).is_some());
                }
                Step::Pass(seconds) => now = now.plus(Duration::from_secs(seconds.into())),
                Step::Expire { retention } => {
                    let limit = UnixTime(now.0 - u64::from(retention));
                    let expired = open.expire(now, Duration::from_secs(retention.into()));
                    prop_assert_eq!(expired.passes, model.expire(limit));
                }
                Step::Reopen => {
                    drop(ledger.take());
                    let reopened = open_well(&path);
                    changes = reopened.changes();
                    mirror.clear();
                    ledger = Some(reopened);
                }
            }
            let open = ledger.as_ref().unwrap();
            let all: BTreeMap<_, _> = open.passes_after(None, usize::MAX).into_iter().collect();
            prop_assert_eq!(&all, &model.passes);
            while let batch = changes.take(3) && !batch.is_empty() {
                for Change { client, pass } in batch {
                    match pass {
                        Some(pass) => mirror.insert(client, pass),
                        None => mirror.remove(&client),
                    };
                }
            }
            prop_assert_eq!(&mirror, &model.passes);
        }
    }
}
