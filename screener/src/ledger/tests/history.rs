//! What is known of clients: what is kept of each session, what makes room for what, and what an older version left.

use proptest::prelude::*;

use super::*;
use crate::ledger::histories::{Histories, Limits};
use crate::ledger::history::TEXT_MAX;

const LIMITS: Limits = Limits { events: 3, clients: 2, bytes: usize::MAX };
const PRIMARY: &str = "192.0.2.10:25";
const BACKUP: &str = "192.0.2.20:25";

fn last(number: u8) -> ClientKey {
    ClientKey::of([192, 0, 2, number].into(), Ipv6KeyLength::default())
}

fn session(at: u64, server: &str, outcome: Ended) -> SessionNote {
    let (began, ended) = (UnixTime(at), UnixTime(at + 6));
    SessionNote {
        began,
        ended,
        server: server.parse().unwrap(),
        outcome,
        name: None,
        refused: None,
        events: Vec::new(),
    }
}

fn refused(at: u64, list: &str, reply: &str) -> Refused {
    let lists = vec![Listed { list: list.to_owned(), weight: 3 }];
    let finding = Finding { test: "dnsbl".to_owned(), weight: 3, reason: format!("score 3: {list}"), lists };
    Refused {
        at: UnixTime(at),
        since: UnixTime(at),
        times: 1,
        evidence: vec![finding],
        reply: reply.to_owned(),
        name: None,
        sender: Some("a@spam.example".to_owned()),
        recipients: 1,
    }
}

fn dropped(prefix: &str, at: u64) -> Dropped {
    let (since, at) = (UnixTime(at), UnixTime(at));
    Dropped { prefix: Some(prefix.parse().unwrap()), source: "feed:drop-v4".to_owned(), since, at, packets: 10 }
}

#[test]
fn a_session_is_one_update_and_tells_all() {
    let ledger = Ledger::in_memory(Options::default());
    let note = SessionNote {
        name: Some("mail.example.net".to_owned()),
        refused: Some(refused(106, "bl.example", "550 5.7.1 blocked; session=1")),
        events: vec![(What::Dnsbl, "DNSBL rank 3".to_owned()), (What::Hangup, String::new())],
        ..session(100, PRIMARY, Ended::Refused)
    };
    ledger.note_session(nth(1), note);
    let history = ledger.history(nth(1)).unwrap();
    assert_eq!((history.first_seen, history.last_seen), (UnixTime(100), UnixTime(106)));
    assert_eq!((history.sessions, history.handed_off), (1, 0));
    assert_eq!(history.names[0].name, "mail.example.net");
    assert_eq!(history.refusals[0].evidence[0].lists[0].list, "bl.example");
    assert_eq!(history.events.iter().map(|event| event.what).collect::<Vec<_>>(), [What::Dnsbl, What::Hangup]);
}

#[test]
fn the_order_in_which_a_client_came_to_our_addresses_is_kept_from_its_first_contact_on() {
    let mut histories = Histories::new(LIMITS);
    histories.note_session(last(1), session(1, PRIMARY, Ended::Deferred));
    histories.note_session(last(1), session(2, BACKUP, Ended::Deferred));
    histories.note_session(last(1), session(3, BACKUP, Ended::Deferred));
    let contacts = |histories: &Histories| histories.get(last(1)).unwrap().contacts.clone();
    let seen: Vec<_> =
        contacts(&histories).iter().map(|it| (it.server.to_string(), it.since.0, it.at.0, it.times)).collect();
    assert_eq!(seen, [(PRIMARY.to_owned(), 1, 1, 1), (BACKUP.to_owned(), 2, 3, 2)]);
    for round in 0..50 {
        let server = if round % 2 == 0 { PRIMARY } else { BACKUP };
        histories.note_session(last(1), session(10 + round, server, Ended::HandedOff));
    }
    let contacts = contacts(&histories);
    assert_eq!((contacts.len(), contacts[0].since, contacts[0].outcome), (8, UnixTime(1), Ended::Deferred));
    assert_eq!(contacts.last().unwrap().since, UnixTime(59));
    assert_eq!((histories.get(last(1)).unwrap().sessions, histories.get(last(1)).unwrap().handed_off), (53, 50));
}

#[test]
fn the_same_refusal_again_is_one_with_a_count_and_the_last_reply() {
    let mut histories = Histories::new(LIMITS);
    for (at, list) in [(1, "a.example"), (2, "b.example"), (3, "a.example")] {
        let refused = Some(refused(at, list, &format!("550 blocked; session={at}")));
        histories.note_session(last(1), SessionNote { refused, ..session(at, PRIMARY, Ended::Refused) });
    }
    let history = histories.get(last(1)).unwrap();
    let refusals: Vec<_> =
        history.refusals.iter().map(|it| (it.since.0, it.at.0, it.times, it.reply.as_str())).collect();
    assert_eq!(refusals, [(2, 2, 1, "550 blocked; session=2"), (1, 3, 2, "550 blocked; session=3")]);
}

#[test]
fn names_are_the_last_few_that_differ() {
    let mut histories = Histories::new(LIMITS);
    for (at, name) in [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "d"), (6, "e")] {
        histories
            .note_session(last(1), SessionNote { name: Some(name.to_owned()), ..session(at, PRIMARY, Ended::Left) });
    }
    let names: Vec<_> = histories.get(last(1)).unwrap().names.iter().map(|it| (it.name.clone(), it.times)).collect();
    assert_eq!(names, [("a".to_owned(), 2), ("c".to_owned(), 1), ("d".to_owned(), 1), ("e".to_owned(), 1)]);
}

#[test]
fn the_events_of_a_session_like_the_one_before_are_counted() {
    let mut histories = Histories::new(Limits { events: 5, ..LIMITS });
    let events = || vec![(What::Dnsbl, "rank 3".to_owned()), (What::Refused, "no".to_owned())];
    for at in [10, 20, 30] {
        histories.note_session(last(1), SessionNote { events: events(), ..session(at, PRIMARY, Ended::Refused) });
    }
    let shown = |histories: &Histories| -> Vec<_> {
        let events = histories.get(last(1)).unwrap().events.iter();
        events.map(|event| (event.what, event.since.0, event.at.0, event.times)).collect()
    };
    assert_eq!(shown(&histories), [(What::Dnsbl, 16, 36, 3), (What::Refused, 16, 36, 3)]);
    // A session of which there is nothing to tell, and one with more than is kept.
    histories.note_session(last(1), session(40, PRIMARY, Ended::HandedOff));
    assert_eq!(shown(&histories).len(), 2);
    let many = (0..9).map(|number| (What::Hangup, format!("{number}"))).collect();
    histories.note_session(last(1), SessionNote { events: many, ..session(50, PRIMARY, Ended::Left) });
    assert_eq!(shown(&histories).len(), 5);
}

#[test]
fn single_events_are_kept_and_counted_as_before() {
    let mut histories = Histories::new(LIMITS);
    for at in 1..=4 {
        histories.note(last(1), What::Connected, String::new(), UnixTime(at));
        histories.note(last(1), What::Hangup, format!("after {at}s"), UnixTime(at));
    }
    let history = histories.get(last(1)).unwrap();
    assert_eq!((history.first_seen, history.last_seen, history.sessions), (UnixTime(1), UnixTime(4), 4));
    let kept: Vec<_> = history.events.iter().map(|event| (event.what, event.at.0)).collect();
    assert_eq!(kept, [(What::Hangup, 3), (What::Connected, 4), (What::Hangup, 4)]);
    for at in 10..15 {
        histories.note(last(2), What::Limited, "too many".to_owned(), UnixTime(at));
    }
    let event = &histories.get(last(2)).unwrap().events[0];
    assert_eq!((event.since, event.at, event.times), (UnixTime(10), UnixTime(14), 5));
}

#[test]
fn what_the_kernel_kept_out_is_summed_up_by_its_entry() {
    let mut histories = Histories::new(LIMITS);
    for (prefix, at) in [("198.51.100.0/24", 5), ("198.51.100.0/24", 9), ("198.51.0.0/16", 12)] {
        histories.note_drop(last(1), dropped(prefix, at));
    }
    let history = histories.get(last(1)).unwrap();
    assert_eq!((history.first_seen, history.last_seen, history.sessions), (UnixTime(5), UnixTime(12), 0));
    assert_eq!(history.drops.len(), 2);
    assert_eq!((history.drops[0].since, history.drops[0].at, history.drops[0].packets), (UnixTime(5), UnixTime(9), 20));
}

#[test]
fn the_client_not_seen_for_longest_makes_room() {
    let mut histories = Histories::new(LIMITS);
    histories.note_session(last(1), session(1, PRIMARY, Ended::Left));
    histories.note_session(last(2), session(10, PRIMARY, Ended::Left));
    histories.note_session(last(1), session(20, PRIMARY, Ended::Left));
    assert_eq!(histories.note_session(last(3), session(30, PRIMARY, Ended::Left)), [last(2)]);
    assert_eq!(histories.len(), 2);
}

#[test]
fn forged_syns_do_not_crowd_out_a_client_that_was_here() {
    let mut histories = Histories::new(LIMITS);
    histories.note_session(last(1), session(1, PRIMARY, Ended::HandedOff));
    for number in 2..200 {
        histories.note_drop(last(number), dropped("192.0.2.0/24", 1_000));
    }
    assert_eq!(histories.len(), 2);
    assert!(histories.get(last(1)).is_some());
    // It was forged from the address of one that then comes itself.
    histories.note_session(last(199), session(1_010, PRIMARY, Ended::Left));
    histories.note_session(last(3), session(1_020, PRIMARY, Ended::Left));
    assert!(histories.get(last(1)).is_none() && histories.get(last(199)).is_some());
}

#[test]
fn what_the_kernel_let_through_counts_as_seen_and_never_goes_back() {
    let ledger = Ledger::in_memory(Options::default());
    ledger.note_session(nth(1), session(100, PRIMARY, Ended::HandedOff));
    ledger.note_let_through(nth(1), UnixTime(5_000));
    ledger.note_let_through(nth(1), UnixTime(4_000));
    let history = ledger.history(nth(1)).unwrap();
    assert_eq!((history.let_through, history.last_seen), (Some(UnixTime(5_000)), UnixTime(5_000)));
    assert_eq!(ledger.expire(UnixTime(6_000), Duration::from_secs(1_500)).histories, 0);
    assert_eq!(ledger.expire(UnixTime(7_000), Duration::from_secs(1_500)).histories, 1);
}

#[test]
fn a_history_stays_as_long_as_its_clients_pass() {
    let ledger = Ledger::in_memory(Options::default());
    screened(&ledger, nth(1), NOW.plus(30 * DAY));
    for client in [nth(1), nth(2)] {
        ledger.note_session(client, session(NOW.0, PRIMARY, Ended::HandedOff));
    }
    assert_eq!(ledger.expire(NOW.plus(20 * DAY), 7 * DAY), Expired { passes: 0, histories: 1 });
    assert!(ledger.history(nth(1)).is_some() && ledger.history(nth(2)).is_none());
    assert_eq!(ledger.expire(NOW.plus(38 * DAY), 7 * DAY), Expired { passes: 1, histories: 1 });
}

#[test]
fn a_record_of_an_earlier_version_is_read_and_one_of_a_later_version_too() {
    let json = r#"{"first_seen":1,"last_seen":2,"sessions":3,"handed_off":1,
        "events":[{"at":1,"since":1,"times":1,"what":"beamed_up"}]}"#;
    let history: History = serde_json::from_str(json).unwrap();
    assert_eq!((history.events[0].what, history.sessions), (What::Other, 3));
    assert!(history.contacts.is_empty() && history.names.is_empty() && history.refusals.is_empty());
    let json = r#"{"first_seen":1,"last_seen":2,"mood":"good",
        "contacts":[{"server":"192.0.2.1:25","outcome":"beamed_up","since":1,"at":1,"times":1}]}"#;
    let history: History = serde_json::from_str(json).unwrap();
    assert_eq!(history.contacts[0].outcome, Ended::Other);
}

#[test]
fn a_whole_record_comes_back_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let ledger = open_well(&path);
    let note = SessionNote {
        name: Some("mail.example.net".to_owned()),
        refused: Some(refused(106, "bl.example", "550 5.7.1 blocked")),
        events: vec![(What::Dnsbl, "DNSBL rank 3".to_owned())],
        ..session(100, "[2001:db8:25::10]:25", Ended::Refused)
    };
    ledger.note_session(nth(1), note);
    ledger.note_drop(nth(1), dropped("10.0.0.0/8", 200));
    ledger.note_let_through(nth(1), UnixTime(300));
    let history = ledger.history(nth(1));
    drop(ledger);
    assert!(history.is_some());
    assert_eq!(open_well(&path).history(nth(1)), history);
}

/// What may be told of a client, with texts far longer than is kept.
fn news() -> impl Strategy<Value = (u8, u8, u16, usize)> {
    (0..6_u8, 0..5_u8, any::<u16>(), 0..2_000_usize)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_keeps_its_bounds_whatever_is_told(told in proptest::collection::vec(news(), 1..300)) {
        let mut histories = Histories::new(Limits { events: 4, clients: 5, bytes: 12_000 });
        for (client, kind, at, length) in told {
            let (client, text, time) = (last(client), "ä".repeat(length), UnixTime(at.into()));
            let note = SessionNote {
                name: Some(text.clone()),
                refused: Some(refused(at.into(), &text, &text)),
                events: vec![(What::Hangup, text.clone()); 7],
                ..session(at.into(), if at % 2 == 0 { PRIMARY } else { BACKUP }, Ended::Refused)
            };
            match kind {
                0 => histories.note(client, What::Limited, text, time),
                1 => histories.note_session(client, note),
                2 => histories.note_drop(client, dropped("198.51.100.0/24", at.into())),
                3 => histories.note_let_through(client, time),
                _ => histories.remove(client).map(|_| client).into_iter().collect(),
            };
            prop_assert!(histories.cost() <= 12_000 && histories.len() <= 5);
            for client in histories.keys().collect::<Vec<_>>() {
                let history = histories.get(client).unwrap();
                prop_assert!(history.events.len() <= 4 && history.names.len() <= 4 && history.refusals.len() <= 4);
                prop_assert!(history.contacts.len() <= 8 && history.drops.len() <= 4);
                prop_assert!(history.events.iter().all(|event| event.detail.len() <= TEXT_MAX));
                prop_assert!(history.first_seen <= history.last_seen);
            }
        }
        for aged in histories.old(None, UnixTime(u64::MAX), usize::MAX) {
            prop_assert!(histories.remove_unchanged(aged));
        }
        prop_assert_eq!((histories.len(), histories.cost()), (0, 0));
    }
}
