//! The ledger as a whole: what it keeps over restarts, and what it does when the disk fails.

mod copy;
mod disk;
mod heir;
mod history;
mod kill;
mod model;
mod pardons;
mod passes;
mod schema;
mod shared;

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::feed::{DenyAction, StaticAction};
use crate::pass::{Stamps, Test};

const NOW: UnixTime = UnixTime(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn key(text: &str) -> ClientKey {
    ClientKey::of(text.parse().unwrap(), Ipv6KeyLength::default())
}

/// The client number `n` of many.
fn nth(n: u32) -> ClientKey {
    ClientKey::of(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into(), Ipv6KeyLength::default())
}

fn until(at: UnixTime) -> Stamps {
    Stamps::all_until(at)
}

fn open(path: &Path) -> (Ledger, OpenReport) {
    Ledger::open(path, Options::default()).unwrap()
}

fn open_well(path: &Path) -> Ledger {
    let (ledger, report) = open(path);
    assert_eq!(report.degraded, Vec::<String>::new());
    ledger
}

fn screened(ledger: &Ledger, client: ClientKey, until: UnixTime) -> Grant {
    ledger.grant(client, &Stamps::all_until(until), Origin::Screened, None, NOW)
}

#[test]
fn everything_is_there_after_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/ledger.redb");
    let prefix: IpNet = "198.51.100.0/24".parse().unwrap();
    let entry =
        StoredStatic { action: StaticAction::Deny(DenyAction::Reject), comment: Some("spam run".into()), added: NOW };
    let mut stamps = until(NOW.plus(DAY));
    stamps.set(Test::Pipelining, None);
    stamps.set(Test::BareNewline, Some(NOW.plus(30 * DAY)));

    let ledger = open_well(&path);
    assert_eq!(ledger.grant(key("192.0.2.7"), &stamps, Origin::Manual, Some("our branch"), NOW), Grant::New);
    screened(&ledger, key("2001:db8:1:2::3"), NOW.plus(DAY));
    screened(&ledger, key("192.0.2.9"), NOW.plus(DAY));
    assert!(ledger.revoke(key("192.0.2.9")));
    ledger.note(key("192.0.2.66"), What::Connected, String::new(), NOW);
    ledger.note(key("192.0.2.66"), What::Pregreet, "HELO x\\r\\n".to_owned(), NOW);
    ledger.put_static(prefix, entry.clone());
    ledger.put_static("203.0.113.0/24".parse().unwrap(), entry.clone());
    assert!(ledger.del_static("203.0.113.0/24".parse().unwrap()));
    let history = ledger.history(key("192.0.2.66"));
    drop(ledger);

    let (ledger, report) = open(&path);
    assert_eq!(report, OpenReport { passes: 2, histories: 1, statics: 1, ..OpenReport::default() });
    let pass = ledger.pass(key("192.0.2.7")).unwrap();
    assert_eq!(pass, Pass { stamps, created: NOW, origin: Origin::Manual, comment: Some("our branch".to_owned()) });
    assert_eq!(ledger.stamps(key("2001:db8:1:2:ffff::")), Some(until(NOW.plus(DAY))));
    assert_eq!(ledger.pass(key("192.0.2.9")), None);
    assert_eq!(ledger.history(key("192.0.2.66")), history);
    assert_eq!(history.map(|history| (history.sessions, history.events.len())), Some((1, 2)));
    assert_eq!(ledger.statics(), [(prefix, Arc::new(entry))]);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600, "it holds personal data");
}

#[test]
fn a_second_daemon_is_told_who_is_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let _first = open_well(&path);
    let error = Ledger::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::Locked(_)));
    assert!(error.to_string().contains("another running screener"), "{error}");
}

#[test]
fn passes_are_handed_out_in_pages_in_the_order_of_their_addresses() {
    let ledger = Ledger::in_memory(Options::default());
    let clients = ["192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::", "2001:db8:0:1::"].map(key);
    for client in clients.iter().rev() {
        screened(&ledger, *client, NOW.plus(DAY));
    }
    let mut seen = Vec::new();
    while let page = ledger.passes_after(seen.last().copied(), 2)
        && !page.is_empty()
    {
        seen.extend(page.into_iter().map(|(client, _)| client));
    }
    assert_eq!(seen, clients);
    assert_eq!(ledger.pass_count(), 5);
}

#[test]
fn a_pass_goes_when_its_last_test_has_been_expired_for_the_retention() {
    let ledger = Ledger::in_memory(Options::default());
    let mut stamps = until(NOW);
    stamps.set(Test::BareNewline, Some(NOW.plus(30 * DAY)));
    ledger.grant(key("192.0.2.1"), &stamps, Origin::Screened, None, NOW);
    screened(&ledger, key("192.0.2.2"), NOW.plus(DAY));
    ledger.note(key("192.0.2.2"), What::Connected, String::new(), NOW.plus(DAY));

    assert_eq!(ledger.expire(NOW.plus(8 * DAY), 7 * DAY), Expired::default());
    let later = NOW.plus(8 * DAY).plus(Duration::from_secs(1));
    assert_eq!(ledger.expire(later, 7 * DAY), Expired { passes: 1, histories: 1 });
    assert_eq!(ledger.history(key("192.0.2.2")), None);
    assert_eq!(ledger.stamps(key("192.0.2.1")), Some(stamps), "one test of it still counts");
    assert_eq!(ledger.expire(NOW.plus(38 * DAY), 7 * DAY).passes, 1);
}

#[test]
fn expiry_walks_through_more_than_one_page() {
    let ledger = Ledger::in_memory(Options::default());
    let many = 2 * PAGE as u32 + 5;
    for n in 0..many {
        let end = if n % 3 == 0 { NOW.plus(9 * DAY) } else { NOW };
        screened(&ledger, nth(n), end);
        ledger.note(nth(n), What::Connected, String::new(), if n % 3 == 0 { NOW.plus(9 * DAY) } else { NOW });
    }
    let kept = many.div_ceil(3) as usize;
    let gone = many as usize - kept;
    assert_eq!(ledger.expire(NOW.plus(9 * DAY), DAY), Expired { passes: gone, histories: gone });
    assert_eq!((ledger.pass_count(), ledger.status().histories), (kept, kept));
}

#[test]
fn a_shorter_ipv6_key_joins_what_falls_together() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let length = |bits| Options { ipv6_key: Ipv6KeyLength::try_from(bits).unwrap(), ..Options::default() };
    let at = |text: &str, bits| ClientKey::of(text.parse().unwrap(), length(bits).ipv6_key);

    let (ledger, _) = Ledger::open(&path, length(64)).unwrap();
    screened(&ledger, at("2001:db8:1:2::", 64), NOW.plus(DAY));
    screened(&ledger, at("2001:db8:1:3::", 64), NOW.plus(2 * DAY));
    screened(&ledger, key("192.0.2.1"), NOW.plus(DAY));
    drop(ledger);

    let (ledger, report) = Ledger::open(&path, length(48)).unwrap();
    assert_eq!(report.passes, 2);
    assert_eq!(ledger.stamps(at("2001:db8:1::", 48)), Some(until(NOW.plus(2 * DAY))));
    drop(ledger);

    // What was joined is also joined in the file.
    let (ledger, report) = Ledger::open(&path, length(64)).unwrap();
    assert_eq!(report.passes, 2);
    assert_eq!(ledger.pass(at("2001:db8:1:2::", 64)), None);
}

#[test]
fn forgetting_a_client_erases_what_it_did_but_not_its_pass() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let client = key("192.0.2.1");
    let ledger = open_well(&path);
    screened(&ledger, client, NOW.plus(DAY));
    ledger.note(client, What::Connected, String::new(), NOW);
    ledger.flush().unwrap();
    assert!(ledger.forget(client));
    assert!(!ledger.forget(client));
    drop(ledger);
    let ledger = open_well(&path);
    assert_eq!(ledger.history(client), None);
    assert!(ledger.pass(client).is_some());
}

#[test]
fn when_too_much_waits_the_file_is_written_anew_and_nothing_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    // A batch never comes due by itself, so that the queue runs over.
    let options = Options {
        queue: 10,
        batch_changes: usize::MAX,
        batch_interval: Duration::from_secs(3600),
        ..Options::default()
    };
    let (ledger, _) = Ledger::open(&path, options).unwrap();
    for n in 0..5 {
        screened(&ledger, nth(n), NOW.plus(DAY));
    }
    ledger.flush().unwrap();
    for n in 0..5 {
        ledger.revoke(nth(n));
    }
    for n in 100..200 {
        screened(&ledger, nth(n), NOW.plus(DAY));
        ledger.note(nth(n), What::Passed, String::new(), NOW);
    }
    assert!(ledger.status().dropped >= 11, "{:?}", ledger.status());
    drop(ledger);

    let (ledger, report) = open(&path);
    assert_eq!((report.passes, report.histories), (100, 100));
    assert_eq!(ledger.pass(nth(0)), None, "a revoked pass must not rise again");
}

#[test]
fn a_follower_is_told_what_there_is_and_then_each_change_once() {
    let ledger = Ledger::in_memory(Options::default());
    for n in 0..5 {
        screened(&ledger, nth(n), NOW.plus(DAY));
    }
    let mut changes = ledger.changes();
    let mut mirror = BTreeMap::new();
    let mut follow = |changes: &mut Changes, most| {
        let batch = changes.take(most);
        for Change { client, pass } in &batch {
            match pass {
                Some(pass) => mirror.insert(*client, pass.clone()),
                None => mirror.remove(client),
            };
        }
        (batch.len(), mirror.clone())
    };
    assert_eq!(follow(&mut changes, 2).0, 2);
    // What changes while the beginning is handed out is neither lost nor wrong in the end.
    ledger.revoke(nth(0));
    ledger.revoke(nth(4));
    screened(&ledger, nth(9), NOW.plus(DAY));
    while follow(&mut changes, 2).0 > 0 {}
    assert!(changes.caught_up());
    let all = |ledger: &Ledger| ledger.passes_after(None, 100).into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(follow(&mut changes, 2), (0, all(&ledger)));

    for hours in 1..=3 {
        screened(&ledger, nth(1), NOW.plus(DAY + Duration::from_secs(3600 * hours)));
    }
    assert_eq!(screened(&ledger, nth(1), NOW), Grant::Unchanged);
    assert_eq!(follow(&mut changes, 10), (1, all(&ledger)), "the latest state, once");
    ledger.expire(NOW.plus(90 * DAY), DAY);
    assert_eq!(follow(&mut changes, 10), (4, BTreeMap::new()));
}

#[tokio::test]
async fn a_follower_sleeps_until_something_changes() {
    let ledger = Arc::new(Ledger::in_memory(Options::default()));
    let mut changes = ledger.changes();
    assert!(changes.take(1).is_empty());
    assert!(changes.caught_up());
    let follower = tokio::spawn(async move { changes.next(10).await });
    tokio::task::yield_now().await;
    screened(&ledger, nth(1), NOW.plus(DAY));
    let batch = follower.await.unwrap();
    assert_eq!(batch.iter().map(|change| change.client).collect::<Vec<_>>(), [nth(1)]);
}

#[test]
fn a_list_of_entries_is_written_at_once_and_shares_its_comment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let net = |n: u32| IpNet::from(std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n)));
    let entry = |comment: &str| StoredStatic {
        action: StaticAction::Deny(DenyAction::Drop),
        comment: Some(comment.into()),
        added: NOW,
    };
    let list: Vec<_> = (0..20_000).map(net).collect();
    let ledger = open_well(&path);
    ledger.put_static(net(5), entry("by itself"));
    ledger.put_statics(&list, entry("a list"));
    ledger.put_static(net(7), entry("by itself"));
    assert!(ledger.del_static(net(9)));
    assert_eq!(ledger.flush(), Ok(()));
    drop(ledger);

    let (ledger, report) = open(&path);
    assert_eq!(report, OpenReport { statics: 19_999, ..OpenReport::default() });
    let statics = ledger.statics();
    let shared = Arc::clone(&statics[0].1);
    assert_eq!(*shared, entry("a list"));
    assert!(statics.iter().all(|(prefix, stored)| Arc::ptr_eq(stored, &shared) != (*prefix == net(7))));
    // A later list changes what an earlier one said, and only that.
    ledger.put_statics(&list[..100], entry("another"));
    drop(ledger);
    let (ledger, _) = open(&path);
    let another = ledger.statics().iter().filter(|(_, stored)| **stored == entry("another")).count();
    assert_eq!((another, ledger.statics().len()), (100, 20_000));
}
