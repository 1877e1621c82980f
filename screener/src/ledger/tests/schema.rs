//! Files of other versions: an earlier one is brought to the present form, a later one is left alone.
//!
//! `schema-1.redb` was written by a daemon of that time (commit 0c271d3), driven by its commands and one client.

use std::process::{Command, Stdio};

use redb::ReadableDatabase as _;

use super::disk::{Tmpfs, fill, in_a_cell};
use super::*;

const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
const PASSES: redb::TableDefinition<'_, &[u8; 17], &[u8]> = redb::TableDefinition::new("passes");
const OTHERS: [redb::TableDefinition<'_, &[u8; 17], &[u8]>; 1] = [redb::TableDefinition::new("histories")];
const STATICS: redb::TableDefinition<'_, &[u8; 18], &[u8]> = redb::TableDefinition::new("statics");

/// The number that a closed file says.
fn schema(path: &Path) -> u64 {
    let database = redb::Database::open(path).unwrap();
    let table = database.begin_read().unwrap().open_table(META).unwrap();
    let number = table.get("schema").unwrap().unwrap();
    number.value()
}

fn say_schema(path: &Path, number: u64) {
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("schema", number).unwrap();
    transaction.commit().unwrap();
}

fn kept(path: &Path) -> std::path::PathBuf {
    path.with_file_name("ledger.redb.schema-1")
}

/// A file as the first version wrote it, with `count` passes until `NOW` and a day.
fn write_first(path: &Path, count: u32) {
    let _ = std::fs::remove_file(path);
    let database = redb::Database::create(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("schema", 1).unwrap();
    OTHERS.into_iter().for_each(|table| drop(transaction.open_table(table).unwrap()));
    drop(transaction.open_table(STATICS).unwrap());
    {
        let mut table = transaction.open_table(PASSES).unwrap();
        for n in 0..count {
            let mut record = vec![1];
            for _ in Test::ALL {
                record.extend(NOW.plus(DAY).0.to_be_bytes());
            }
            record.extend(NOW.0.to_be_bytes());
            record.push(0);
            table.insert(&key::client_bytes(nth(n)), record.as_slice()).unwrap();
        }
    }
    transaction.commit().unwrap();
}

#[test]
fn a_file_of_the_first_schema_is_read_and_brought_to_the_present_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    std::fs::write(&path, include_bytes!("schema-1.redb")).unwrap();
    let (ledger, report) = open(&path);
    assert_eq!(report, OpenReport { passes: 3, histories: 4, statics: 2, ..OpenReport::default() });
    let by_hand = ledger.pass(key("192.0.2.7")).unwrap();
    assert_eq!((by_hand.origin, by_hand.comment.as_deref()), (Origin::Manual, Some("our branch office")));
    assert_eq!(by_hand.stamps, until(by_hand.created.plus(3650 * DAY)));
    assert!(ledger.pass(key("2001:db8:1:2::3")).is_some());
    let history = ledger.history(key("10.9.0.66")).unwrap();
    assert!(history.events.iter().any(|event| event.what == What::Pregreet), "{history:?}");
    let reject = StaticAction::Deny(DenyAction::Reject);
    assert!(ledger.statics().iter().any(|(_, entry)| entry.action == reject));

    // What comes while it is written anew is not lost.
    screened(&ledger, nth(1), NOW.plus(DAY));
    ledger.flush().unwrap();
    let all = ledger.passes_after(None, 10);
    drop(ledger);
    assert_eq!((schema(&path), schema(&kept(&path))), (2, 1));
    let (ledger, report) = open(&path);
    assert_eq!(report, OpenReport { passes: 4, histories: 4, statics: 2, ..OpenReport::default() });
    assert_eq!(ledger.passes_after(None, 10), all);
    assert_eq!(ledger.history(key("10.9.0.66")), Some(history));
    drop(ledger);

    // The way back: the file that was kept is a whole one, and a second migration takes its place.
    std::fs::copy(kept(&path), &path).unwrap();
    let ledger = open_well(&path);
    assert_eq!(ledger.pass_count(), 3);
    drop(ledger);
    assert_eq!((schema(&path), schema(&kept(&path))), (2, 1));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left behind");
}

#[test]
fn a_file_of_a_later_schema_is_left_alone_to_the_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    screened(&open_well(&path), nth(1), NOW.plus(DAY));
    say_schema(&path, 3);
    let bytes = std::fs::read(&path).unwrap();

    let options = Options { retry: Duration::from_millis(1), ..Options::default() };
    let (ledger, report) = Ledger::open(&path, options).unwrap();
    assert_eq!((report.passes, report.set_aside), (0, None));
    let sentence = &report.degraded[0];
    assert!(sentence.contains("a newer screener wrote it (schema 3") && sentence.contains("memory only"), "{sentence}");
    screened(&ledger, nth(2), NOW.plus(DAY));
    assert!(ledger.flush().unwrap_err().to_string().contains("newer"));
    assert!(ledger.pass(nth(2)).is_some(), "screening goes on");
    assert_eq!(ledger.status().degraded.len(), 1);
    drop(ledger);
    assert!(std::fs::read(&path).unwrap() == bytes, "not a byte of it has changed");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);

    // When it has been moved away a new one is begun.
    let (ledger, _) = Ledger::open(&path, options).unwrap();
    screened(&ledger, nth(2), NOW.plus(DAY));
    std::fs::rename(&path, dir.path().join("newer.redb")).unwrap();
    ledger.flush().unwrap();
    assert_eq!(ledger.status().degraded, Vec::<String>::new());
    drop(ledger);
    assert_eq!(open_well(&path).pass_count(), 1);
}

const FILE: &str = "SCREENER_TEST_MIGRATE_LEDGER";

/// In the child: brings the file to the present form. Without one there is nothing to do.
#[test]
fn a_child_that_migrates_until_it_is_killed() {
    let Some(path) = std::env::var_os(FILE) else { return };
    open_well(Path::new(&path)).flush().unwrap();
}

#[test]
fn a_migration_killed_at_any_moment_costs_no_pass() {
    const COUNT: u32 = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let run = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::schema::a_child_that_migrates_until_it_is_killed"])
            .env(FILE, &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    write_first(&path, COUNT);
    let begun = std::time::Instant::now();
    assert!(run().wait().unwrap().success());
    let whole = begun.elapsed();
    let mut seen = BTreeMap::new();
    for part in 0..8 {
        write_first(&path, COUNT);
        let mut child = run();
        std::thread::sleep(whole * part / 8);
        child.kill().unwrap();
        child.wait().unwrap();
        *seen.entry(schema(&path)).or_insert(0) += 1;
        let ledger = open_well(&path);
        assert_eq!(ledger.pass_count(), COUNT as usize, "killed after {part} eighths");
        assert_eq!(ledger.stamps(nth(COUNT - 1)), Some(until(NOW.plus(DAY))));
    }
    assert!(seen.contains_key(&1), "at least the first is killed before it is done: {seen:?}");
}

#[test]
fn a_disk_without_room_for_the_new_form_leaves_the_old_one() {
    in_a_cell("schema::a_disk_without_room_for_the_new_form_leaves_the_old_one", || {
        let dir = Tmpfs::new("16m");
        let path = dir.path().join("ledger.redb");
        write_first(&path, 20_000);
        fill(&dir.path().join("ballast"));
        let (ledger, _) = open(&path);
        screened(&ledger, nth(50_000), NOW.plus(DAY));
        let error = ledger.flush().unwrap_err();
        assert!(error.to_string().contains("space"), "{error}");
        assert!(ledger.status().degraded[0].contains("memory only"));
        assert_eq!(ledger.pass_count(), 20_001);
        assert!(!path.with_file_name("ledger.redb.new").exists(), "what could not be written takes no room");
        std::fs::remove_file(dir.path().join("ballast")).unwrap();
        ledger.flush().unwrap();
        assert_eq!(ledger.status().degraded, Vec::<String>::new());
        drop(ledger);
        assert_eq!(schema(&path), 2);
        assert_eq!(open_well(&path).pass_count(), 20_001);
    });
}
