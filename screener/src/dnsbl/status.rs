//! How the lists stand, for `screener dnsbl status`, `status` and the metrics.

use std::time::{Duration, Instant};

use super::Dnsbl;
use super::answer::Failure;
use super::health::Why;
use super::points::is_the_resolvers;
use super::stats::{Times, get};
use super::tally::Counts;
use super::watched::Watched;
use crate::config::ListLevel;
use crate::dns::SickServer;

/// How everything stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// List by list, in the order of the configuration.
    pub lists: Vec<ListStatus>,
    /// What each contributed, in the same order.
    pub counts: Counts,
    /// The cache.
    pub cache: CacheStatus,
    /// Whether no list answers at all, so that the resolver is to be looked at and not the lists.
    pub resolver_is_silent: bool,
    /// Resolvers that are passed over while another one is well.
    pub sick_resolvers: Vec<SickServer>,
}

/// The cache of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Answers kept.
    pub answers: usize,
    /// Answers that had to go before their time.
    pub evicted: u64,
}

/// How a list stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ListStatus {
    /// Its public name.
    pub name: String,
    /// What comes of its answers.
    pub level: ListLevel,
    /// `asked`, `untested`, `parked` or `off`.
    pub state: &'static str,
    /// Why it is parked: a name, and a sentence.
    pub why: Option<(&'static str, String)>,
    /// How long it has been parked, and how long until its test points are asked again.
    pub parked: Option<(Duration, Duration)>,
    /// How often it was parked.
    pub parkings: u64,
    /// Whether it turned out to know IPv4 only.
    pub ipv4_only: bool,
    /// Questions asked.
    pub questions: u64,
    /// Questions a second, over the last minute.
    pub rate: f64,
    /// Questions that the cache answered.
    pub cached: u64,
    /// Questions that joined one that was open.
    pub shared: u64,
    /// Questions that are open now.
    pub open: usize,
    /// Listings.
    pub hits: u64,
    /// The share of listings among the answers of late.
    pub hit_rate: f64,
    /// Answers that are no listing.
    pub misses: u64,
    /// Answers that are none: the list is at fault.
    pub errors: u64,
    /// Questions without an answer.
    pub unknown: u64,
    /// How long answers took.
    pub times: Times,
    /// The last error.
    pub last_error: Option<String>,
}

impl Dnsbl {
    /// How the lists stand.
    pub fn status(&self) -> Status {
        let now = Instant::now();
        let lists: Vec<_> = self.lists.iter().map(|watched| of(watched, now)).collect();
        let asked = || self.lists.iter().filter(|watched| watched.list.level != ListLevel::Off);
        let silent = |watched: &Watched| match watched.zone.parked().map(|parked| parked.why) {
            Some(Why::Fails(failure)) => is_the_resolvers(failure) || failure == Failure::ServFail,
            _ => false,
        };
        let cache = CacheStatus { answers: self.shared.cache.len(), evicted: self.shared.cache.evicted() };
        let resolver_is_silent = asked().next().is_some() && asked().all(silent);
        let sick_resolvers = self.shared.resolver.servers().sick();
        Status { lists, counts: self.tally.counts(), cache, resolver_is_silent, sick_resolvers }
    }
}

fn of(Watched { list, zone }: &Watched, now: Instant) -> ListStatus {
    // Of a list that is not asked any more nobody says when it is tested again: never.
    let parked = zone.parked().filter(|_| list.level != ListLevel::Off);
    let state = match parked {
        _ if list.level == ListLevel::Off => "off",
        Some(_) => "parked",
        None if !zone.is_tested() => "untested",
        None => "asked",
    };
    let stats = &zone.stats;
    ListStatus {
        name: list.name().to_string(),
        level: list.level,
        state,
        why: parked.map(|parked| (parked.why.name(), parked.why.to_string())),
        parked: parked
            .map(|parked| (now.saturating_duration_since(parked.since), parked.until.saturating_duration_since(now))),
        parkings: get(&stats.parkings),
        ipv4_only: zone.has_no_v6(),
        questions: get(&stats.questions),
        rate: stats.rate(now),
        cached: get(&stats.cached),
        shared: get(&stats.shared),
        open: zone.open_questions(),
        hits: get(&stats.hits),
        hit_rate: zone.hit_rate(),
        misses: get(&stats.misses),
        errors: get(&stats.errors),
        unknown: get(&stats.failures),
        times: stats.times(),
        last_error: stats.last_error(),
    }
}
