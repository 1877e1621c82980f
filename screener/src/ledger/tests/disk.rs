//! Damaged files, and disks that take nothing.
//!
//! What needs a file system of its own runs in a cell.

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use screener_tests::cell;

use super::*;

/// A clean file with a few thousand passes.
fn filled(path: &Path) -> Vec<u8> {
    let ledger = open_well(path);
    for n in 0..5000 {
        screened(&ledger, nth(n), NOW.plus(DAY));
        ledger.note(nth(n), What::Connected, String::new(), NOW);
    }
    drop(ledger);
    std::fs::read(path).unwrap()
}

/// Opens a file that is damaged: it must be kept as it is, said so, and the new one must work.
fn assert_set_aside(path: &Path, damaged: &[u8], what: &str) {
    let (ledger, report) = open(path);
    let aside = report.set_aside.unwrap_or_else(|| panic!("{what}: taken for sound: {:?}", report.degraded));
    assert_eq!(std::fs::read(&aside).unwrap(), damaged, "{what}: the damaged file is kept for a look");
    assert_eq!(report.degraded.len(), 1, "{what}: {:?}", report.degraded);
    assert!(report.degraded[0].contains(&*aside.to_string_lossy()), "{what}: {:?}", report.degraded);
    assert_eq!(ledger.status().degraded, report.degraded, "{what}: status says so too");
    assert_eq!(ledger.pass_count(), 0, "{what}");
    screened(&ledger, nth(1), NOW.plus(DAY));
    ledger.flush().unwrap();
    drop(ledger);
    assert_eq!(open_well(path).pass_count(), 1, "{what}");
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(aside).unwrap();
}

#[test]
fn garbage_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    for (what, bytes) in [
        ("text", b"this is no database\n".to_vec()),
        ("zeros", vec![0; 8192]),
        ("noise", (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        assert_set_aside(&path, &bytes, what);
    }
}

#[test]
fn a_truncated_file_is_set_aside_at_whatever_length() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let whole = filled(&path);
    for length in [1, 100, 320, 4096, 5000, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_set_aside(&path, &whole[..length], &format!("{length} of {} bytes", whole.len()));
    }
}

#[test]
fn a_page_that_was_overwritten_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let whole = filled(&path);
    let place = whole.windows(4).rposition(|bytes| bytes == [10, 0, 4, 0]).unwrap();
    let mut damaged = whole;
    damaged[place..place + 4].copy_from_slice(b"ouch");
    std::fs::write(&path, &damaged).unwrap();
    // Not compared with what is kept: opening it may have begun a repair.
    let (ledger, report) = open(&path);
    assert!(report.set_aside.is_some(), "{report:?}");
    assert_eq!(ledger.pass_count(), 0);
}

#[test]
fn an_empty_file_is_a_new_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    std::fs::write(&path, b"").unwrap();
    screened(&open_well(&path), nth(1), NOW.plus(DAY));
    assert_eq!(open_well(&path).pass_count(), 1);
}

#[test]
fn a_database_of_something_else_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("invoices");
    let database = redb::Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert("one", 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let (_, report) = open(&path);
    assert!(report.degraded[0].contains("not a ledger"), "{:?}", report.degraded);
}

#[test]
fn a_record_that_makes_no_sense_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    filled(&path);
    let table: redb::TableDefinition<'_, &[u8; 17], &[u8]> = redb::TableDefinition::new("passes");
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(table).unwrap().insert(&key::client_bytes(nth(7)), b"?".as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let (ledger, report) = open(&path);
    assert_eq!((report.passes, report.unreadable), (4999, 1));
    assert!(report.degraded[0].contains("1 record"), "{:?}", report.degraded);
    assert_eq!(ledger.pass(nth(7)), None);
}

#[test]
fn a_path_that_cannot_be_a_file_leaves_screening_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (ledger, report) = open(dir.path());
    assert!(report.degraded[0].contains("memory only"), "{:?}", report.degraded);
    assert_eq!(screened(&ledger, nth(1), NOW.plus(DAY)), Grant::New);
    assert!(ledger.pass(nth(1)).is_some());
    let error = ledger.flush().unwrap_err();
    assert!(error.to_string().contains("directory"), "{error}");
}

/// Runs the body of the test of this name in a cell, where it may mount what it likes.
pub(super) fn in_a_cell(test: &str, body: impl FnOnce()) {
    cell::test(&format!("ledger::tests::{test}"), || {
        body();
        Ok(())
    });
}

/// A small file system on a directory of its own, both gone when this is dropped.
pub(super) struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    pub(super) fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Self(dir)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, flags: MountFlags, options: &std::ffi::CStr) {
        mount_remount(self.path(), flags, options).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

#[test]
fn a_full_disk_leaves_memory_right_and_is_caught_up_with() {
    in_a_cell("disk::a_full_disk_leaves_memory_right_and_is_caught_up_with", || {
        let dir = Tmpfs::new("16m");
        let path = dir.path().join("ledger.redb");
        let ballast = dir.path().join("ballast");
        let ledger = open_well(&path);
        screened(&ledger, nth(1), NOW.plus(DAY));
        screened(&ledger, nth(2), NOW.plus(DAY));
        ledger.flush().unwrap();
        fill(&ballast);

        // More than fits into whatever the file has still allocated.
        for n in 10..60_000 {
            screened(&ledger, nth(n), NOW.plus(DAY));
        }
        ledger.revoke(nth(2));
        let error = ledger.flush().unwrap_err();
        assert!(error.to_string().contains("space"), "{error}");
        let status = ledger.status();
        assert!(status.failures > 0 && status.degraded[0].contains("memory only"), "{status:?}");
        assert_eq!(ledger.pass_count(), 59_991);

        std::fs::remove_file(&ballast).unwrap();
        dir.remount(MountFlags::empty(), c"size=256m");
        ledger.flush().unwrap();
        assert_eq!(ledger.status().degraded, Vec::<String>::new(), "all is well again");
        drop(ledger);
        let ledger = open_well(&path);
        assert_eq!(ledger.pass_count(), 59_991);
        assert_eq!(ledger.pass(nth(2)), None);
    });
}

#[test]
fn a_file_found_damaged_while_running_is_written_anew_from_memory() {
    in_a_cell("disk::a_file_found_damaged_while_running_is_written_anew_from_memory", || {
        let dir = Tmpfs::new("16m");
        let path = dir.path().join("ledger.redb");
        let ledger = open_well(&path);
        screened(&ledger, nth(1), NOW.plus(DAY));
        ledger.note(nth(1), What::Passed, String::new(), NOW);
        let entry = StoredStatic { action: StaticAction::Permit, comment: None, added: NOW };
        ledger.put_static("192.0.2.0/24".parse().unwrap(), entry);
        ledger.flush().unwrap();
        // A full disk makes it let go of the file; when it comes back, the file is no longer what it was.
        fill(&dir.path().join("ballast"));
        for n in 10..60_000 {
            screened(&ledger, nth(n), NOW.plus(DAY));
        }
        ledger.flush().unwrap_err();
        std::fs::remove_file(dir.path().join("ballast")).unwrap();
        dir.remount(MountFlags::empty(), c"size=256m");
        std::fs::write(&path, b"somebody else was here").unwrap();
        ledger.flush().unwrap();
        let status = ledger.status();
        assert!(status.degraded.len() == 1 && status.degraded[0].contains("was damaged"), "{status:?}");
        drop(ledger);
        let (_, report) = open(&path);
        assert_eq!(report, OpenReport { passes: 59_991, histories: 1, statics: 1, ..OpenReport::default() });
    });
}

#[test]
fn a_disk_already_full_at_the_start_hides_no_pass() {
    in_a_cell("disk::a_disk_already_full_at_the_start_hides_no_pass", || {
        let dir = Tmpfs::new("16m");
        let path = dir.path().join("ledger.redb");
        filled(&path);
        fill(&dir.path().join("ballast"));
        let (ledger, _) = open(&path);
        assert_eq!(ledger.pass_count(), 5000);
        drop(ledger);

        // With no file at all, the half-made one must not stay and look damaged later.
        std::fs::remove_file(&path).unwrap();
        fill(&dir.path().join("more ballast"));
        let (ledger, report) = open(&path);
        assert!(report.degraded[0].contains("memory only"), "{report:?}");
        screened(&ledger, nth(1), NOW.plus(DAY));
        assert!(!path.exists());
        std::fs::remove_file(dir.path().join("ballast")).unwrap();
        ledger.flush().unwrap();
        assert_eq!(ledger.status().degraded, Vec::<String>::new());
        drop(ledger);
        assert_eq!(open_well(&path).pass_count(), 1);
    });
}

#[test]
fn a_read_only_disk_is_read_and_what_comes_is_kept_in_memory() {
    in_a_cell("disk::a_read_only_disk_is_read_and_what_comes_is_kept_in_memory", || {
        let dir = Tmpfs::new("64m");
        let path = dir.path().join("ledger.redb");
        filled(&path);
        dir.remount(MountFlags::RDONLY, c"");

        let (ledger, report) = open(&path);
        assert_eq!((report.passes, report.set_aside), (5000, None));
        assert!(report.degraded[0].contains("memory only"), "{:?}", report.degraded);
        screened(&ledger, nth(9999), NOW.plus(DAY));
        ledger.revoke(nth(0));
        assert!(ledger.flush().is_err());

        dir.remount(MountFlags::empty(), c"");
        ledger.flush().unwrap();
        drop(ledger);
        let ledger = open_well(&path);
        assert_eq!(ledger.pass_count(), 5000);
        assert!(ledger.pass(nth(9999)).is_some() && ledger.pass(nth(0)).is_none());
    });
}

#[test]
fn a_file_that_is_removed_while_in_use_is_written_anew_with_all_that_was_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lib/ledger.redb");
    let ledger = open_well(&path);
    for n in 0..5000 {
        screened(&ledger, nth(n), NOW.plus(DAY));
    }
    ledger.flush().unwrap();
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    screened(&ledger, nth(5000), NOW.plus(DAY));
    ledger.flush().unwrap();
    let status = ledger.status();
    assert!(status.degraded.len() == 1 && status.degraded[0].contains("was removed"), "{status:?}");
    drop(ledger);
    assert_eq!(open_well(&path).pass_count(), 5001);
}

#[test]
fn a_file_put_in_the_place_of_the_one_in_use_is_kept_aside_unread() {
    let dir = tempfile::tempdir().unwrap();
    let (path, backup) = (dir.path().join("ledger.redb"), dir.path().join("backup.redb"));
    screened(&open_well(&backup), nth(77), NOW.plus(DAY));
    let bytes = std::fs::read(&backup).unwrap();
    let ledger = open_well(&path);
    screened(&ledger, nth(1), NOW.plus(DAY));
    ledger.flush().unwrap();
    std::fs::rename(&backup, &path).unwrap();
    ledger.flush().unwrap();
    let status = ledger.status();
    assert!(status.degraded.len() == 1 && status.degraded[0].contains("stop the daemon first"), "{status:?}");
    drop(ledger);
    let ledger = open_well(&path);
    assert_eq!((ledger.pass_count(), ledger.pass(nth(77))), (1, None));
    let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside = files.into_iter().find(|file| file.to_string_lossy().contains(".found-")).unwrap();
    assert!(std::fs::read(aside).unwrap() == bytes);
}

#[test]
fn a_whole_that_was_cut_short_is_written_as_a_whole_the_next_time() {
    in_a_cell("disk::a_whole_that_was_cut_short_is_written_as_a_whole_the_next_time", || {
        let dir = Tmpfs::new("16m");
        let path = dir.path().join("ledger.redb");
        let ledger = open_well(&path);
        for n in 0..60_000 {
            screened(&ledger, nth(n), NOW.plus(DAY));
        }
        ledger.flush().unwrap();
        // What the old file leaves is room for a new one, but not for what belongs into it.
        std::fs::remove_file(&path).unwrap();
        fill(&dir.path().join("ballast"));
        for n in 60_000..200_000 {
            screened(&ledger, nth(n), NOW.plus(DAY));
        }
        ledger.flush().unwrap_err();
        assert!(path.exists(), "the new one was begun");
        ledger.flush().unwrap_err();
        std::fs::remove_file(dir.path().join("ballast")).unwrap();
        dir.remount(MountFlags::empty(), c"size=256m");
        ledger.flush().unwrap();
        drop(ledger);
        assert_eq!(open_well(&path).pass_count(), 200_000);
    });
}

/// Takes what room there is.
pub(super) fn fill(ballast: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(ballast).unwrap();
    for size in [65_536, 4096] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}
