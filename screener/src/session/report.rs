//! What the DNS lists have said so far, as the engine hears it, and its arithmetic as JSON events show it.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::Serialize;

/// One list's hit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DnsblHit {
    /// The list's public name.
    pub list: String,
    /// What it adds to the score.
    pub weight: i32,
    /// The answers that count.
    pub codes: Vec<Ipv4Addr>,
    /// What the list says about the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Where the client's postmaster learns more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A list that could not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DnsblUnknown {
    /// The list's public name.
    pub list: String,
    /// Why.
    pub why: String,
}

/// What the DNS lists have said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DnsblReport {
    /// The sum of the weights of the hits so far.
    pub score: i32,
    /// The lowest score that is still possible with the answers that are missing.
    pub lowest: i32,
    /// The highest score that is still possible with the answers that are missing.
    pub highest: i32,
    /// The score without the one list that speaks most for the client: what is remembered must not rest on that alone.
    pub without_best_ally: i32,
    /// Whether every list that is waited for has answered or given up.
    pub complete: bool,
    /// The hits, heaviest first.
    pub hits: Vec<DnsblHit>,
    /// The hits of lists that are only counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<DnsblHit>,
    /// The lists that could not say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<DnsblUnknown>,
    /// Whether one of them goes into the score: what the others say is not all that there is to say.
    #[serde(skip)]
    pub blind: bool,
    /// How long the verdict may be kept, before the clamps of the policy.
    #[serde(skip)]
    pub ttl: Option<Duration>,
}

impl DnsblReport {
    /// `zen.test +4 (127.0.0.2, 127.0.0.4), wl.test -1 (127.0.5.1)`
    pub fn arithmetic(&self) -> String {
        let hit = |hit: &DnsblHit| {
            let codes: Vec<_> = hit.codes.iter().map(ToString::to_string).collect();
            let codes = if codes.is_empty() { String::new() } else { format!(" ({})", codes.join(", ")) };
            format!("{} {:+}{codes}", hit.list, hit.weight)
        };
        self.hits.iter().map(hit).collect::<Vec<_>>().join(", ")
    }
}
