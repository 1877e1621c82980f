//! What other people's names say: addresses, mail exchangers, texts. For SPF pools, for linking a sender's two families, and for
//! `check-mx`.
//!
//! Holds how a resolver is made, for the DNS lists too, which ask in their own way ([`crate::dnsbl`]). Keeps no answers, and
//! never decides what follows from one.

mod servers;
pub(crate) mod system;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use thiserror::Error;

pub(crate) use servers::Servers;
pub use servers::SickServer;

/// How long one question waits for its answer; it is asked once more.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1500);
/// The longest name, RFC 1035 section 2.3.4, as it is written.
const LONGEST_NAME: usize = 253;

/// There is nobody to ask.
#[derive(Debug, Error)]
#[error("no resolver: {0}; name one in /etc/resolv.conf, best of all one of this host's own")]
pub struct NoResolver(pub(crate) String);

/// A question got no answer that says anything.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{name} {what}: {why}")]
pub struct Failed {
    /// What was asked about.
    pub name: String,
    /// The kind of record.
    pub what: &'static str,
    /// What happened instead.
    pub why: String,
}

/// What a name has of a kind. No records: it has none, or there is no such name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// The records.
    pub records: Vec<T>,
    /// How long that holds; `None`: the answer does not say.
    pub ttl: Option<Duration>,
}

/// One record of a domain's mail exchangers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mx {
    /// The lower, the sooner.
    pub preference: u16,
    /// The host, lower case, without the last dot; empty: RFC 7505's "no mail".
    pub host: String,
}

/// Asks the resolvers of the configuration or of the system.
#[derive(Clone)]
pub struct Resolver(Servers);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// Asks these servers, or the system's where there are none.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, NoResolver> {
        Servers::new(servers).map(Self)
    }

    /// Asks these.
    pub(crate) fn of(servers: Servers) -> Self {
        Self(servers)
    }

    /// The IPv4 and IPv6 addresses of a name, asked for at once.
    ///
    /// # Errors
    /// When either question has no answer.
    pub async fn addresses(&self, name: &str) -> Result<Found<IpAddr>, Failed> {
        let (v4, v6) = tokio::join!(
            self.ask(name, RecordType::A, "A", |data| match data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                _ => None,
            }),
            self.ask(name, RecordType::AAAA, "AAAA", |data| match data {
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            })
        );
        let (mut found, v6) = (v4?, v6?);
        found.records.extend(v6.records);
        found.ttl = [found.ttl, v6.ttl].into_iter().flatten().min();
        Ok(found)
    }

    /// The mail exchangers of a domain, in the order in which a client takes them.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn mx(&self, domain: &str) -> Result<Found<Mx>, Failed> {
        let mut found = self
            .ask(domain, RecordType::MX, "MX", |data| match data {
                RData::MX(mx) => Some(Mx { preference: mx.preference, host: plain(&mx.exchange) }),
                _ => None,
            })
            .await?;
        found.records.sort_unstable();
        Ok(found)
    }

    /// The texts of a name, each in one piece.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn texts(&self, name: &str) -> Result<Found<String>, Failed> {
        self.ask(name, RecordType::TXT, "TXT", |data| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        })
        .await
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        what: &'static str,
        take: impl Fn(&RData) -> Option<T>,
    ) -> Result<Found<T>, Failed> {
        let failed = |why: String| Failed { name: name.to_owned(), what, why };
        // From the root: a search domain of the system's has no say in what somebody else's record means.
        let mut complete = Name::from_ascii(name).map_err(|error| failed(error.to_string()))?;
        complete.set_fqdn(true);
        match self.0.lookup(complete, kind).await {
            Ok(found) => Ok(Found {
                records: found.answers().iter().filter_map(|record| take(&record.data)).collect(),
                ttl: Some(found.valid_until().saturating_duration_since(Instant::now())),
            }),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) if is_an_answer(none.response_code) => {
                Ok(Found { records: Vec::new(), ttl: none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())) })
            }
            Err(error) => Err(failed(reason(&error))),
        }
    }
}

/// NXDOMAIN and "no such data" say that there is nothing; every other code says nothing.
pub(crate) fn is_an_answer(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn reason(error: &NetError) -> String {
    match error {
        NetError::Timeout => "no answer in time".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the resolver answers {code}"),
        NetError::Dns(DnsError::NoRecordsFound(none)) => format!("the resolver answers {}", none.response_code),
        // Its own words hold the name that was asked, and that may hold the secret key of a DNS list.
        NetError::ForeignClassRecord { .. } => "the resolver answers with records of another class".to_owned(),
        error => error.to_string(),
    }
}

fn plain(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// Whether a text is a domain name with at least two labels that can be asked about: letters, digits, hyphens and
/// underscores.
pub fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= LONGEST_NAME
        && text.contains('.')
        && text.split('.').all(label)
        // An address is none.
        && !last.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::DNSClass;

    use super::*;

    #[test]
    fn why_there_is_no_answer_does_not_show_what_was_asked() {
        let record_name = Name::from_ascii("1.2.0.192.s3cr3t.zen.test.").unwrap();
        let (record_class, record_type) = (DNSClass::CH, RecordType::A);
        let foreign = reason(&NetError::ForeignClassRecord { record_name, record_class, record_type });
        assert_eq!(foreign, "the resolver answers with records of another class");
    }

    #[test]
    fn a_domain_is_told_from_what_clients_and_records_hold_in_its_place() {
        for good in ["example.com", "_spf.google.com", "a.b.c.d.", "xn--bcher-kva.example"] {
            assert!(is_domain(good), "{good}");
        }
        let long = format!("{}.example", "a".repeat(64));
        let longer = "abc.".repeat(64) + "example";
        for bad in ["", ".", "localhost", "192.0.2.1", "[192.0.2.1]", "a..b", "a b.c", "%{i}.example", &long, &longer] {
            assert!(!is_domain(bad), "{bad}");
        }
    }
}
