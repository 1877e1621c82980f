//! kill -9 under load: what was acknowledged is there, and the file always opens.
//!
//! The child is this test binary run again: it runs [`a_child_that_writes_until_it_is_killed`] with a file to write to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::*;

const FILE: &str = "SCREENER_TEST_KILL_LEDGER";
const FROM: &str = "SCREENER_TEST_KILL_FROM";

/// In the child: grants and flushes for as long as it lives, and says after each flush how far it came. Without a file
/// to write to, as when the tests run, there is nothing to do.
#[test]
fn a_child_that_writes_until_it_is_killed() {
    let (Some(path), Ok(from)) = (std::env::var_os(FILE), std::env::var(FROM)) else { return };
    let ledger = open_well(Path::new(&path));
    let mut next: u32 = from.parse().unwrap();
    loop {
        // Uneven steps, so that batches of many sizes are cut off, some of them by their size and not by the flush.
        for _ in 0..=(next % 1700) {
            screened(&ledger, nth(next), NOW.plus(DAY));
            if next.is_multiple_of(3) {
                ledger.note(nth(next), What::Passed, format!("client {next}"), NOW);
            }
            if next.is_multiple_of(7) {
                ledger.revoke(nth(next));
            }
            next += 1;
        }
        ledger.flush().unwrap();
        let mut out = std::io::stdout().lock();
        if writeln!(out, "flushed {next}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[test]
fn what_was_flushed_survives_a_kill_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let mut acknowledged = 0_u32;
    for round in 0..12_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::tests::kill::a_child_that_writes_until_it_is_killed", "--nocapture"])
            .env(FILE, &path)
            .env(FROM, acknowledged.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut flushes = 0;
        while flushes <= round % 4 {
            let line = lines.next().expect("the child must live until it is killed").unwrap();
            if let Some(next) = line.rsplit_once("flushed ").and_then(|(_, next)| next.parse().ok()) {
                acknowledged = next;
                flushes += 1;
            }
        }
        // In the middle of whatever it does by now.
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between the last line read and its end counts too.
        for line in lines.map_while(Result::ok) {
            if let Some(next) = line.rsplit_once("flushed ").and_then(|(_, next)| next.parse().ok()) {
                acknowledged = next;
            }
        }

        let ledger = open_well(&path);
        for n in 0..acknowledged {
            assert_eq!(ledger.pass(nth(n)).is_some(), !n.is_multiple_of(7), "round {round}, client {n}");
            assert_eq!(ledger.history(nth(n)).is_some(), n.is_multiple_of(3), "round {round}, client {n}");
        }
    }
    assert!(acknowledged > 0);
}
