//! Clients in numbers: several at once, each from the next address.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::Result;

use crate::host::Host;

/// How many wrong answers are kept in words.
const SHOWN: usize = 5;

/// What came of a number of sessions.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// How many did not go as they should have.
    failed: u32,
    /// The first of them in words.
    words: Vec<String>,
}

impl Outcome {
    /// A sentence, if anything was wrong.
    pub(super) fn wrong(&self, what: &str, of: u32) -> Option<String> {
        (self.failed > 0).then(|| format!("{what}: {} of {of} went wrong: {}", self.failed, self.words.join("; ")))
    }
}

/// Plays a session `count` times on the host `clients`, `at_once` at a time; it is told its number.
pub(super) fn play(
    clients: &Host,
    count: u32,
    at_once: usize,
    session: impl Fn(u32) -> Result<()> + Sync,
) -> Result<Outcome> {
    let next = AtomicU32::new(0);
    let outcome = Mutex::new(Outcome::default());
    let one = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return;
        }
        if let Err(error) = session(number)
            && let Ok(mut outcome) = outcome.lock()
        {
            outcome.failed += 1;
            if outcome.words.len() < SHOWN {
                outcome.words.push(format!("{error:#}"));
            }
        }
    };
    // Threads are in the namespace of the one that starts them.
    clients.in_ns(|| {
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(one);
            }
        });
        Ok(())
    })?;
    Ok(outcome.into_inner().unwrap_or_default())
}
