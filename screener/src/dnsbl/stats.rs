//! What each list has answered, and whether it is asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a list that answered with an error code is left alone: it refuses us, and asking on makes it worse.
const PARKED: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Stats {
    queries: AtomicU64,
    hits: AtomicU64,
    errors: AtomicU64,
    unknown: AtomicU64,
    trouble: Mutex<Trouble>,
}

#[derive(Debug, Default)]
struct Trouble {
    last_error: Option<String>,
    parked_until: Option<Instant>,
}

/// How a list stands, for `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListStatus {
    /// Its public name.
    pub name: String,
    /// Questions asked.
    pub queries: u64,
    /// Listings.
    pub hits: u64,
    /// Answers that are none: the list is at fault.
    pub errors: u64,
    /// Questions without an answer.
    pub unknown: u64,
    /// Whether it is left alone for the moment.
    pub parked: bool,
    /// The last error.
    pub last_error: Option<String>,
}

impl Stats {
    /// Whether the list may be asked now; counts the question if so.
    pub(super) fn ask(&self) -> bool {
        let asked = self.trouble().parked_until.is_none_or(|until| until <= Instant::now());
        if asked {
            self.queries.fetch_add(1, Ordering::Relaxed);
        }
        asked
    }

    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// The list answered with something that is no answer. True: it was not parked before.
    pub(super) fn error(&self, what: &impl ToString) -> bool {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut trouble = self.trouble();
        let fresh = trouble.parked_until.is_none_or(|until| until <= now);
        trouble.last_error = Some(what.to_string());
        trouble.parked_until = Some(now + PARKED);
        fresh
    }

    pub(super) fn unknown(&self, why: String) {
        self.unknown.fetch_add(1, Ordering::Relaxed);
        self.trouble().last_error = Some(why);
    }

    pub(super) fn status(&self, name: &str) -> ListStatus {
        let trouble = self.trouble();
        ListStatus {
            name: name.to_owned(),
            queries: self.queries.load(Ordering::Relaxed),
            hits: self.hits.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
            parked: trouble.parked_until.is_some_and(|until| until > Instant::now()),
            last_error: trouble.last_error.clone(),
        }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
