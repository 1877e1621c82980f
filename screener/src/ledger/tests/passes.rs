//! Passes that are put back, walked through and watched.

use std::ops::Bound;

use proptest::prelude::*;
use tokio::sync::broadcast::error::TryRecvError;

use super::super::*;
use crate::pass::TestSet;

const NOW: UnixTime = UnixTime(1_000);

fn key(text: &str) -> ClientKey {
    ClientKey::of(text.parse().unwrap(), Ipv6KeyLength::default())
}

fn client(number: u32) -> ClientKey {
    ClientKey::V4(number.into())
}

fn until(at: u64) -> Stamps {
    Stamps::all_until(UnixTime(at))
}

fn pass(at: u64, origin: Origin, comment: Option<&str>) -> Pass {
    Pass { stamps: until(at), created: UnixTime(10), origin, comment: comment.map(str::to_owned) }
}

#[test]
fn what_is_put_back_reaches_mirrors_and_watchers() {
    let ledger = Ledger::in_memory(Options::default());
    let (mut changes, mut news) = (ledger.changes(), ledger.watch().unwrap());
    let back = [(client(1), pass(5_000, Origin::Manual, Some("by phone"))), (client(2), pass(900, Origin::Pool, None))];
    let would: Vec<_> = ledger.restore(&back, NOW, false).into_iter().map(|(grant, _)| grant).collect();
    assert_eq!((would, ledger.pass_count()), (vec![Grant::New, Grant::New], 0), "a dry run");
    ledger.restore(&back, NOW, true);
    assert_eq!(ledger.pass(client(1)).as_ref(), Some(&back[0].1), "as it was, since when too");
    let told: Vec<_> = changes.take(10).into_iter().map(|change| change.client).collect();
    assert_eq!(told, [client(1), client(2)]);
    assert_eq!(news.try_recv().unwrap().happened, Happened::Granted);
    let again = ledger.restore(&back[..1], NOW, true);
    assert_eq!(again, [(Grant::Unchanged, until(5_000))]);
}

#[test]
fn each_change_is_told_to_all_who_watch_and_costs_nothing_without_them() {
    let ledger = Ledger::in_memory(Options::default());
    ledger.grant(client(1), &until(2_000), Origin::Screened, None, NOW);
    let (mut one, mut two) = (ledger.watch().unwrap(), ledger.watch().unwrap());
    ledger.grant(client(1), &until(3_000), Origin::Screened, None, NOW);
    ledger.grant(client(1), &until(3_000), Origin::Screened, None, NOW);
    ledger.withdraw(client(1), Test::Dnsbl);
    ledger.revoke(client(1));
    ledger.revoke(client(1));
    for news in [&mut one, &mut two] {
        let told: Vec<_> = std::iter::from_fn(|| news.try_recv().ok()).collect();
        let what: Vec<_> = told.iter().map(|news| news.happened).collect();
        assert_eq!(what, [Happened::Extended, Happened::Withdrawn(Test::Dnsbl), Happened::Revoked]);
        let last = told[2].pass.as_ref().unwrap();
        assert_eq!((last.stamps.get(Test::Dnsbl), last.stamps.get(Test::Pregreet)), (None, Some(UnixTime(3_000))));
    }
    drop((one, two));
    ledger.grant(client(1), &until(2_000), Origin::Screened, None, NOW);
    let mut late = ledger.watch().unwrap();
    assert_eq!(late.try_recv().err(), Some(TryRecvError::Empty));
}

#[test]
fn who_is_too_slow_hears_how_much_was_lost_and_who_come_too_many_are_sent_away() {
    let ledger = Ledger::in_memory(Options::default());
    let mut slow = ledger.watch().unwrap();
    for number in 0..5_000 {
        ledger.grant(client(number), &until(2_000), Origin::Screened, None, NOW);
    }
    let Err(TryRecvError::Lagged(lost)) = slow.try_recv() else { panic!("nothing was lost") };
    let rest = std::iter::from_fn(|| slow.try_recv().ok()).count();
    assert_eq!(lost as usize + rest, 5_000);
    let others: Vec<_> = std::iter::from_fn(|| ledger.watch()).take(100).collect();
    assert_eq!(others.len(), 15);
    drop(slow);
    assert!(ledger.watch().is_some());
}

#[test]
fn a_walk_finds_what_has_run_out_since_the_last_one() {
    let ledger = Ledger::in_memory(Options::default());
    for number in 1..=10 {
        ledger.grant(client(number), &until(1_000 + u64::from(number)), Origin::Screened, None, NOW);
    }
    let mut partly = until(9_000);
    partly.set(Test::BareNewline, None);
    ledger.grant(client(11), &partly, Origin::Screened, None, NOW);
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = ledger.lapsed(after, 3, TestSet::FULL, UnixTime(1_003), UnixTime(1_006));
        found.extend(page.passes.into_iter().map(|(client, _)| client));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, [client(4), client(5), client(6)]);
}

proptest! {
    #[test]
    fn a_walk_through_a_range_sees_each_pass_of_it_once(
        there in prop::collection::btree_set(0..60_u32, 0..40),
        from in 0..60_u32,
        to in 0..60_u32,
        most in 1..10_usize,
    ) {
        let ledger = Ledger::in_memory(Options::default());
        for &number in &there {
            ledger.grant(client(number), &until(2_000), Origin::Screened, None, NOW);
        }
        let (mut at, mut seen) = (Bound::Included(client(from)), Vec::new());
        loop {
            let page = ledger.passes_within(at, client(to), most);
            prop_assert!(page.passes.len() <= most);
            seen.extend(page.passes.into_iter().map(|(client, _)| client));
            match page.next {
                Some(next) => at = Bound::Excluded(next),
                None => break,
            }
        }
        let wanted: Vec<_> = there.into_iter().filter(|number| (from..=to).contains(number)).map(client).collect();
        prop_assert_eq!(seen, wanted);
    }
}

#[test]
fn a_walk_goes_from_one_family_to_the_other() {
    let ledger = Ledger::in_memory(Options::default());
    for text in ["198.51.100.1", "2001:db8::1"] {
        ledger.grant(key(text), &until(2_000), Origin::Screened, None, NOW);
    }
    let last = ClientKey::of([u8::MAX; 16].into(), Ipv6KeyLength::default());
    let page = ledger.passes_within(Bound::Included(client(0)), last, 10);
    assert_eq!((page.passes.len(), page.next), (2, None));
}
