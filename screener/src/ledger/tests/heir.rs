//! The file in the hands of another daemon, and what is told on to it.

use std::sync::mpsc::sync_channel;

use super::*;

#[test]
fn another_opens_the_file_that_was_let_go_and_nothing_is_written_to_it_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let old = open_well(&path);
    screened(&old, nth(1), NOW.plus(DAY));
    old.let_go().unwrap();
    let new = open_well(&path);
    assert!(new.pass(nth(1)).is_some(), "written before it was let go");
    let (to, said) = sync_channel(10);
    old.tell_on(Some(to));
    screened(&old, nth(2), NOW.plus(DAY));
    old.note(nth(2), What::HandedOff, "to the MTA".to_owned(), NOW);
    assert!(old.withdraw(nth(2), Test::Dnsbl));
    assert!(old.pass(nth(2)).is_some(), "known in memory");
    assert!(old.flush().unwrap_err().to_string().contains("in the hands of another daemon"));
    assert_eq!(old.tell_on(None), 0);
    drop(old);
    for said in said {
        // As it goes over the wire.
        new.hear(serde_json::from_str(&serde_json::to_string(&said).unwrap()).unwrap());
    }
    let pass = new.pass(nth(2)).unwrap();
    assert_eq!((pass.stamps.get(Test::Dnsbl), pass.stamps.get(Test::Pregreet)), (None, Some(NOW.plus(DAY))));
    assert_eq!(new.history(nth(2)).unwrap().events[0].what, What::HandedOff);
    new.flush().unwrap();
    drop(new);
    assert_eq!(open_well(&path).pass_count(), 2);
}

#[test]
fn what_came_while_the_file_was_away_is_written_when_it_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let ledger = open_well(&path);
    ledger.let_go().unwrap();
    drop(open_well(&path));
    screened(&ledger, nth(1), NOW.plus(DAY));
    ledger.take_back();
    screened(&ledger, nth(2), NOW.plus(DAY));
    ledger.flush().unwrap();
    drop(ledger);
    assert_eq!(open_well(&path).pass_count(), 2);
}

#[test]
fn who_does_not_listen_loses_and_holds_nobody_up() {
    let ledger = Ledger::in_memory(Options::default());
    let (to, said) = sync_channel(1);
    ledger.tell_on(Some(to));
    for client in 1..=3 {
        screened(&ledger, nth(client), NOW.plus(DAY));
    }
    assert_eq!(ledger.tell_on(None), 2);
    assert_eq!(said.iter().count(), 1);
}
