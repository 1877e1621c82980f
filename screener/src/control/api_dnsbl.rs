//! What goes over the control socket about the DNS lists.

use serde::{Deserialize, Serialize};

/// `GET /v1/dnsbl`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dnsbl {
    /// List by list, in the order of the configuration.
    pub lists: Vec<List>,
    /// Clients that lists have said something about.
    pub clients: u64,
    /// Clients whose score reached the threshold.
    pub failed: u64,
    /// How many clients two lists had together, each pair once.
    pub overlap: Vec<Overlap>,
    /// Answers that are kept.
    pub cached_answers: usize,
    /// Answers that had to go before their time, since there was no room.
    pub evicted_answers: u64,
    /// Whether no list answers at all: then the resolver is to be looked at.
    pub resolver_is_silent: bool,
    /// Resolvers that do not answer while another one does, a sentence each.
    #[serde(default)]
    pub sick_resolvers: Vec<String>,
}

/// One list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// Its public name.
    pub list: String,
    /// `score`, `count` or `off`.
    pub level: String,
    /// `asked`, `untested`, `parked` or `off`.
    pub state: String,
    /// Why it is parked: a word.
    pub reason: Option<String>,
    /// Why it is parked: a sentence.
    pub why: Option<String>,
    /// For how long it has been parked.
    pub parked_seconds: Option<u64>,
    /// When its test points are asked again.
    pub again_in_seconds: Option<u64>,
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
    /// Listings among the answers.
    pub hits: u64,
    /// The share of listings among the answers of late.
    pub hit_rate: f64,
    /// Answers that are no listing.
    pub misses: u64,
    /// Answers that are none: the list is at fault.
    pub errors: u64,
    /// Questions without an answer.
    pub unknown: u64,
    /// Half of the answers took at most so many seconds.
    pub p50: Option<f64>,
    /// Nine of ten.
    pub p90: Option<f64>,
    /// Ninety-nine of a hundred.
    pub p99: Option<f64>,
    /// Answers by how long they took, in seconds: the upper bound, and how many took longer than the bound before and not
    /// longer than this one. `null`: without a bound.
    pub times: Vec<(Option<f64>, u64)>,
    /// Seconds waited for answers, in all.
    pub times_sum: f64,
    /// The last error.
    pub last_error: Option<String>,
    /// Clients that it answered about.
    pub clients: u64,
    /// Clients that it listed.
    pub listed: u64,
    /// Clients that it listed and no other list on its side did.
    pub alone: u64,
    /// Clients that would have gone the other way without it (or, if it is only counted, with it).
    pub decisive: u64,
}

/// What two lists have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// One.
    pub first: String,
    /// The other.
    pub second: String,
    /// Clients that both listed.
    pub clients: u64,
}
