//! DNS lists: what they are asked, what their answers mean, and what that adds up to.
//!
//! Every list is asked at once and on its own: a sick one delays no other, and counts for nothing. What is no listing is
//! never taken for one: error codes, answers outside 127/8 and silence are counted and shown, and a list that gives such
//! answers is parked until its test points are right again. Never decides about a client: the engine compares the score
//! with its thresholds and has the deadline.

mod answer;
mod cache;
mod check;
mod codes;
pub mod doctor;
mod health;
mod list;
mod points;
mod probe;
mod resolver;
mod single;
mod stats;
mod status;
mod tally;
mod watched;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio_util::sync::CancellationToken;

pub use check::Check;
pub use codes::{BadFilter, CodeFilter};
pub use single::{Asked, Single, ask as ask_once};
pub use stats::Times;
pub use status::{CacheStatus, ListStatus, Status};
pub use tally::{Contribution, Counts};

pub use crate::dns::NoResolver;

use crate::config::{ConfigError, DnsblTest, ListLevel};

use cache::Cache;
use health::Parked;
use list::List;
use resolver::Resolver;
use tally::Tally;
use watched::{Shared, Watched, Zone};

/// How often the test points of a list that is well are asked, and by how much that varies from list to list.
const BETWEEN_TESTS: Duration = Duration::from_secs(600);
const SPREAD: u64 = 120;
/// How soon again after a test without an answer; twice as long each time.
const TEST_AGAIN: Duration = Duration::from_secs(1);

/// The lists and the resolver.
#[derive(Clone)]
pub struct Dnsbl {
    lists: Arc<[Watched]>,
    shared: Arc<Shared>,
    tally: Arc<Tally>,
    threshold: i32,
}

/// The lists cannot be asked.
#[derive(Debug, Error)]
pub enum DnsblError {
    /// One of them is not well configured.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is nobody to ask.
    #[error(transparent)]
    Resolver(#[from] NoResolver),
}

impl Dnsbl {
    /// The lists of a configuration; `None`: there are no lists.
    ///
    /// # Errors
    /// When a code filter is wrong, or there is no resolver.
    pub fn configured(config: &DnsblTest) -> Result<Option<Self>, DnsblError> {
        Self::build(config, None)
    }

    /// The lists of a new configuration, with everything that is known about those that were there before: their answers,
    /// their health, their counts. Whoever watched the old ones ends that and watches the new ones.
    ///
    /// # Errors
    /// As [`Dnsbl::configured`]; then the old ones are to stay.
    pub fn reconfigured(&self, config: &DnsblTest) -> Result<Option<Self>, DnsblError> {
        Self::build(config, Some(self))
    }

    fn build(config: &DnsblTest, old: Option<&Self>) -> Result<Option<Self>, DnsblError> {
        let lists: Vec<_> = config.lists.iter().map(List::configured).collect::<Result<_, _>>()?;
        if lists.is_empty() {
            return Ok(None);
        }
        let resolver = Resolver::new(&config.resolvers)?;
        let numbers = old.map_or_else(Arc::default, |old| Arc::clone(&old.shared.numbers));
        let cache = old.map_or_else(|| Arc::new(Cache::new(config.cache)), |old| Arc::clone(&old.shared.cache));
        cache.set_most(config.cache);
        let shared = Arc::new(Shared { resolver, cache, numbers });
        let now = Instant::now();
        let watched = lists.into_iter().map(|list| {
            let known = old.and_then(|old| old.lists.iter().find(|known| known.list.zone() == list.zone()));
            let zone = known
                .map_or_else(|| Arc::new(Zone::new(shared.next_number(), &list, now)), |known| Arc::clone(&known.zone));
            Watched { list: Arc::new(list), zone }
        });
        let lists: Arc<[Watched]> = watched.collect();
        // What lists contribute is counted by their places.
        let tally = old.map_or_else(
            || Arc::new(Tally::new(lists.len())),
            |old| {
                let stood = |list: &Watched| old.lists.iter().position(|was| was.list.zone() == list.list.zone());
                let stood: Vec<_> = lists.iter().map(stood).collect();
                match stood.iter().copied().eq((0..old.lists.len()).map(Some)) {
                    true => Arc::clone(&old.tally),
                    false => Arc::new(old.tally.carried_on(&stood)),
                }
            },
        );
        Ok(Some(Self { lists, shared, tally, threshold: config.threshold }))
    }

    /// Asks the same resolvers about names.
    pub fn names(&self) -> crate::dns::Resolver {
        crate::dns::Resolver::of(self.shared.resolver.servers().clone())
    }

    /// Starts asking every list about an address.
    pub fn start(&self, address: IpAddr) -> Check {
        Check::start(self, address, false)
    }

    /// The same, whatever is known already: to renew what is about to expire.
    pub fn start_fresh(&self, address: IpAddr) -> Check {
        Check::start(self, address, true)
    }

    /// Asks the test points of every list, at once and from time to time, until `end`. From the call on no answer of a list
    /// is given out before its test points have been asked, and have answered, unless they stay silent.
    pub fn watch(&self, end: &CancellationToken) {
        for watched in self.lists.iter().filter(|watched| watched.list.level != ListLevel::Off) {
            if watched.zone.parked().is_none() && watched.zone.stats.times().count == 0 {
                watched.zone.distrust();
            }
            let (dnsbl, watched, end) = (self.clone(), watched.clone(), end.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = dnsbl.keep_testing(&watched) => {}
                    () = end.cancelled() => {}
                }
            });
        }
    }

    async fn keep_testing(&self, watched: &Watched) {
        loop {
            watched.test(&self.shared).await;
            let spread = Duration::from_secs(RandomState::new().hash_one(0) % SPREAD);
            let again = Instant::now() + pause(watched.zone.unanswered(), spread);
            // A list may be parked while this waits; then its pause counts.
            loop {
                let next = next_test(watched.zone.parked(), again);
                tokio::select! {
                    () = tokio::time::sleep_until(next.into()) => break,
                    () = watched.zone.test_now.notified() => {
                        if watched.zone.parked().is_none() {
                            break;
                        }
                    }
                }
            }
        }
    }
}

/// How long after a test the next one comes, if so many in a row have had no answer.
fn pause(unanswered: u32, spread: Duration) -> Duration {
    match unanswered.checked_sub(1) {
        None => BETWEEN_TESTS + spread,
        Some(more) => TEST_AGAIN.saturating_mul(1 << more.min(16)).min(BETWEEN_TESTS),
    }
}

/// When the test points are asked next: a list that is parked is left alone for as long as that says.
fn next_test(parked: Option<Parked>, again: Instant) -> Instant {
    parked.map_or(again, |parked| parked.until)
}

#[cfg(test)]
mod tests;
