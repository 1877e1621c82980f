//! Copies of a ledger in use.

use super::*;
use crate::ladder::{Offence, Rules};

/// The lines of a copy, as they come over the socket.
fn lines(ledger: &Ledger) -> Vec<Vec<u8>> {
    let text: Vec<u8> = ledger.copied().flatten().collect();
    text.split_inclusive(|&byte| byte == b'\n').map(|line| line[..line.len() - 1].to_vec()).collect()
}

fn write(path: &Path, replace: bool, lines: &[Vec<u8>]) -> Result<Copied, CopyError> {
    write_copy(path, replace, lines.iter().map(Ok::<_, String>))
}

fn filled(count: u32) -> Ledger {
    let ledger = Ledger::in_memory(Options { ladder: Some(Rules::default()), shared: true, ..Options::default() });
    for n in 0..count {
        screened(&ledger, nth(n), NOW.plus(DAY));
    }
    ledger.grant(key("2001:db8::1"), &until(NOW.plus(DAY)), Origin::Manual, Some("später mehr"), NOW);
    ledger.note(nth(1), What::Pregreet, "HELO x\\r\\n".to_owned(), NOW);
    let entry = StoredStatic { action: StaticAction::Permit, comment: Some("a b".into()), added: NOW };
    ledger.put_static("192.0.2.0/24".parse().unwrap(), entry);
    ledger.offend(nth(count + 2).address(), Offence::Exceeded, NOW, NOW);
    ledger.offend(nth(count + 3).address(), Offence::Exceeded, NOW, NOW);
    assert!(ledger.forgive(nth(count + 3).address().into(), NOW).is_some());
    ledger
}

#[test]
fn a_copy_is_a_ledger_with_everything_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup.redb");
    let ledger = filled(10_000);
    let copied = write(&path, false, &lines(&ledger)).unwrap();
    assert_eq!((copied.passes, copied.histories, copied.statics), (10_001, 1, 1));
    assert_eq!(copied.bytes, std::fs::metadata(&path).unwrap().len());
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600, "it holds personal data");
    let copy = open_well(&path);
    assert_eq!(copy.passes_after(None, usize::MAX), ledger.passes_after(None, usize::MAX));
    assert_eq!(copy.history(nth(1)), ledger.history(nth(1)));
    assert_eq!(copy.statics(), ledger.statics());
    assert_eq!((copy.offenders(), copy.offenders().len()), (ledger.offenders(), 1));
    let words = copy.offence_words(NOW);
    assert_eq!((words.len(), words), (2, ledger.offence_words(NOW)), "one stands there, and one is pardoned");
}

#[test]
fn a_copy_holds_what_came_and_went_while_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup.redb");
    let ledger = filled(10_000);
    let mut text = Vec::new();
    for (page, some) in ledger.copied().enumerate() {
        text.extend(some);
        if page == 2 {
            ledger.revoke(nth(3));
            screened(&ledger, nth(20_000), NOW.plus(DAY));
        }
    }
    let lines: Vec<_> = text.split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
    write(&path, false, &lines).unwrap();
    assert_eq!(open_well(&path).passes_after(None, usize::MAX), ledger.passes_after(None, usize::MAX));
}

#[test]
fn a_copy_that_is_not_whole_leaves_nothing_and_what_was_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup.redb");
    let whole = lines(&filled(5000));
    write(&path, false, &lines(&filled(1))).unwrap();
    let before = std::fs::read(&path).unwrap();
    let broken = |lines: &[Vec<u8>], part: &str| {
        let error = write(&path, true, lines).unwrap_err();
        assert!(matches!(error, CopyError::Broken(_)) && error.to_string().contains(part), "{error}");
        assert!(std::fs::read(&path).unwrap() == before);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    };
    broken(&[], "empty");
    broken(&whole[..1], "broke off");
    broken(&whole[..whole.len() - 1], "broke off");
    broken(&[vec![b"{\"schema\":99}".to_vec()], whole[1..].to_vec()].concat(), "schema 99");
    for line in ["", "p", "p 04", "x 00", "p zz zz", "h 00", "f 04", "p 04c0000207000000000000000000000000 ffff"] {
        let mut lines = whole.clone();
        lines[10] = line.as_bytes().to_vec();
        broken(&lines, "makes no sense");
    }
    let ends = [Ok(whole[0].clone()), Err("it went away".to_owned())];
    let error = write_copy(&path, true, ends.into_iter()).unwrap_err();
    assert!(error.to_string().contains("it went away"), "{error}");
}

#[test]
fn a_place_that_cannot_be_written_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backup.redb");
    let lines = lines(&filled(10));
    write(&path, false, &lines).unwrap();
    let refused = |path: &Path, part: &str| {
        let error = write(path, false, &lines).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&path, "--force");
    refused(&dir.path().join("no/backup.redb"), "does not exist: make it first");
    refused(dir.path(), "it is a directory");
    write(&path, true, &lines).unwrap();
}
