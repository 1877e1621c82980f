//! What a list can answer, and which of it is not to be believed.
//!
//! Holds types and their words. None of these words holds the name that was asked: it may hold a list's secret key.

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// Why an answer is not believed. It is never a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BadAnswer {
    /// 127.255.255.0/24: the list refuses this resolver or this key.
    Refused(Ipv4Addr),
    /// 127.0.0.1 can never be listed (RFC 5782 section 5); resolvers that rewrite NXDOMAIN say it.
    Loopback,
    /// 127.0.0.255 from a list that speaks for clients: how allow lists tell a resolver that asks too much.
    Overused,
    /// 127.0.10.3 from a list that speaks for clients: how one of them answers about everybody when it is asked too much.
    Everybody,
    /// What the configuration says is an error of this list.
    Configured(Ipv4Addr),
    /// 127.0.1.255: a list of domains that was asked about an address (reference/peers.md section 4.2).
    OfDomains,
    /// Not in 127.0.0.0/8: somebody else answers, the zone is parked or rewritten.
    Outside(Ipv4Addr),
}

impl BadAnswer {
    /// Whether the list says so about itself, whoever is asked about.
    pub(super) fn is_refusal(self) -> bool {
        matches!(self, Self::Refused(_) | Self::Overused | Self::Configured(_) | Self::OfDomains)
    }
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => {
                let why = match code.octets()[3] {
                    250 => "the key is disabled",
                    251 => "the key is used unlawfully",
                    252 => "the zone's name is mistyped",
                    254 => "the resolver is public or has no name of its own",
                    255 => "too many queries",
                    _ => "the list refuses to answer",
                };
                write!(f, "{code}: {why}")
            }
            Self::Loopback => f.write_str("127.0.0.1: no list lists that; does the resolver rewrite NXDOMAIN?"),
            Self::Overused => f.write_str("127.0.0.255: the allow list refuses this resolver, too many queries"),
            Self::Everybody => f.write_str("127.0.10.3: an allow list that is asked too much says so of everybody"),
            Self::Configured(code) => write!(f, "{code} is an error code of this list"),
            Self::OfDomains => f.write_str("127.0.1.255: this is a list of domains, not of addresses: remove it"),
            Self::Outside(code) => write!(f, "{code} is outside 127.0.0.0/8: the zone or the resolver lies"),
        }
    }
}

/// What a list's records say about a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Listed, with the codes that count and their sum.
    Listed { codes: Vec<Ipv4Addr>, weight: i32 },
    /// There is a record, but none that counts here.
    NotListed,
    /// The answer is not to be believed.
    Bad(BadAnswer),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    /// Nobody answered in time.
    Silent,
    /// The resolver could not find out (SERVFAIL).
    ServFail,
    /// The resolver or the list refuses (REFUSED).
    Refused,
    /// The resolver cannot be reached.
    Unreachable,
    /// Something that is no answer to the question.
    Unusable,
    /// As many questions to this list are open as may be.
    Busy,
    /// The list is left alone for the moment.
    Parked,
}

impl Failure {
    /// Its name in JSON and metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::ServFail => "servfail",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Unusable => "unusable",
            Self::Busy => "busy",
            Self::Parked => "parked",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "no answer in time",
            Self::ServFail => "the resolver answers: Server Failure",
            Self::Refused => "the resolver answers: Query Refused",
            Self::Unreachable => "the resolver cannot be reached",
            Self::Unusable => "the resolver gives no usable answer",
            Self::Busy => "too many questions are open",
            Self::Parked => "the list is left alone for the moment",
        })
    }
}

/// What came of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// A records, and how long they hold.
    Records(Vec<Ipv4Addr>, Duration),
    /// There are none (NXDOMAIN or no data), and how long that holds, if it was said.
    Nothing(Option<Duration>),
    /// Nobody can say.
    Failed(Failure),
}

/// What is known about one address on one list: what the cache keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Its records, and the list's text about it.
    Records(Arc<Records>),
    /// It has none.
    Nothing,
    /// It could not be found out, so many times in a row.
    Failed(Failure, u8),
}

/// The records of a listed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) codes: Box<[Ipv4Addr]>,
    pub(super) text: Option<Box<str>>,
}
