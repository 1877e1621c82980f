//! From a domain to the addresses that its SPF record names as its senders (RFC 7208).
//!
//! A receiver asks "may this one address send"; a pool asks "which addresses may", so that every branch is followed and the
//! limits of section 4.6.4 are those of the longest way. Asks through [`Ask`]; never decides what becomes of the result.

use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;

use super::record::{BadRecord, Lengths, Mechanism, Record, Target, is_spf};
use crate::dns::{Failed, Found, Mx, Resolver};

/// Terms that ask the DNS, in all (RFC 7208 section 4.6.4).
const MOST_LOOKUPS: usize = 10;
/// Questions of `a`, `mx` and their like that may be answered with nothing (the same section).
const MOST_VOID: usize = 2;
/// Mail exchangers of one `mx` (the same section).
const MOST_EXCHANGERS: usize = 10;
/// Prefixes of one domain, after joining: the largest senders have some hundreds.
const MOST_PREFIXES: usize = 20_000;

/// What an expansion asks.
pub(super) trait Ask: Sync {
    fn texts(&self, name: &str) -> impl Future<Output = Result<Found<String>, Failed>> + Send;
    fn mx(&self, name: &str) -> impl Future<Output = Result<Found<Mx>, Failed>> + Send;
    fn addresses(&self, name: &str) -> impl Future<Output = Result<Found<IpAddr>, Failed>> + Send;
}

impl Ask for Resolver {
    fn texts(&self, name: &str) -> impl Future<Output = Result<Found<String>, Failed>> + Send {
        Self::texts(self, name)
    }

    fn mx(&self, name: &str) -> impl Future<Output = Result<Found<Mx>, Failed>> + Send {
        Self::mx(self, name)
    }

    fn addresses(&self, name: &str) -> impl Future<Output = Result<Found<IpAddr>, Failed>> + Send {
        Self::addresses(self, name)
    }
}

/// The senders of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion {
    /// Joined and in order, IPv4 first: none covers another.
    pub prefixes: Vec<IpNet>,
    /// How long the shortest-lived answer holds; `None`: none said.
    pub ttl: Option<Duration>,
    /// How many of the ten terms that ask the DNS there were.
    pub lookups: usize,
    /// What could not be expanded, a sentence each.
    pub left_out: Vec<String>,
}

/// Why there is no expansion.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExpandError {
    /// The DNS did not answer: the next try may be better. RFC 7208's temperror.
    #[error(transparent)]
    Unanswered(#[from] Failed),
    /// The domain's records are wrong: it takes its postmaster to mend that. RFC 7208's permerror, or none.
    #[error("the SPF record of {domain} cannot be used: {why}")]
    Wrong {
        /// Whose record.
        domain: String,
        /// What is wrong.
        why: String,
    },
}

/// Expands the SPF record of a domain.
pub(super) async fn expand(ask: &impl Ask, domain: &str) -> Result<Expansion, ExpandError> {
    let mut walk = Walk { ask, lookups: 0, void: 0, ttl: None, left_out: Vec::new() };
    let members = walk.domain(domain.to_owned()).await?;
    let prefixes = IpNet::aggregate(&members);
    Ok(Expansion { prefixes, ttl: walk.ttl, lookups: walk.lookups, left_out: walk.left_out })
}

struct Walk<'a, A> {
    ask: &'a A,
    lookups: usize,
    void: usize,
    ttl: Option<Duration>,
    left_out: Vec<String>,
}

type Members<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpNet>, ExpandError>> + Send + 'a>>;

impl<A: Ask> Walk<'_, A> {
    /// The members that one domain's record names. The count of lookups ends a record that includes itself.
    fn domain(&mut self, domain: String) -> Members<'_> {
        Box::pin(async move {
            let record = self.record(&domain).await?;
            let (mut members, mut others) = (Vec::new(), Vec::new());
            let mut ended = false;
            for directive in record.directives {
                let nets = match directive.mechanism {
                    Mechanism::All if directive.passes => {
                        return Err(wrong(&domain, "it ends in +all: everybody is its sender"));
                    }
                    Mechanism::All => {
                        ended = true;
                        break;
                    }
                    Mechanism::Net(net) => vec![net],
                    Mechanism::A(target, lengths) => {
                        self.count(&domain)?;
                        match self.known(target, &domain, &directive.text) {
                            Some(name) => self.hosts(&domain, &[name], lengths).await?,
                            None => continue,
                        }
                    }
                    Mechanism::Mx(target, lengths) => {
                        self.count(&domain)?;
                        match self.known(target, &domain, &directive.text) {
                            Some(name) => self.exchangers(&domain, &name, lengths).await?,
                            None => continue,
                        }
                    }
                    Mechanism::Include(target) => {
                        self.count(&domain)?;
                        match self.known(Some(target), &domain, &directive.text) {
                            Some(name) => self.domain(name).await?,
                            None => continue,
                        }
                    }
                    Mechanism::NeedsMail => {
                        self.count(&domain)?;
                        self.leave_out(&domain, &directive.text);
                        continue;
                    }
                };
                if directive.passes {
                    for net in nets {
                        without(net, &others, &mut members);
                    }
                    if members.len() > MOST_PREFIXES {
                        return Err(wrong(&domain, &format!("it has more than {MOST_PREFIXES} prefixes")));
                    }
                } else {
                    // What was answered with no before is not answered with yes behind it.
                    others.extend(nets);
                }
            }
            if let Some(target) = record.redirect.filter(|_| !ended) {
                self.count(&domain)?;
                if let Some(name) = self.known(Some(target), &domain, "redirect=") {
                    for net in self.domain(name).await? {
                        without(net, &others, &mut members);
                    }
                }
            }
            Ok(members)
        })
    }

    async fn record(&mut self, domain: &str) -> Result<Record, ExpandError> {
        let found = self.ask.texts(domain).await?;
        let mut records = found.records.iter().filter(|text| is_spf(text));
        let Some(text) = records.next() else { return Err(wrong(domain, "there is none")) };
        if records.next().is_some() {
            return Err(wrong(domain, "there is more than one (RFC 7208 section 4.5)"));
        }
        let parsed = Record::parse(text).map_err(|bad: BadRecord| wrong(domain, &bad.to_string()))?;
        self.holds(found.ttl);
        Ok(parsed)
    }

    async fn exchangers(&mut self, domain: &str, name: &str, lengths: Lengths) -> Result<Vec<IpNet>, ExpandError> {
        let found = self.ask.mx(name).await?;
        self.holds(found.ttl);
        if found.records.is_empty() {
            self.nothing(domain)?;
        }
        if found.records.len() > MOST_EXCHANGERS {
            return Err(wrong(domain, &format!("{name} has more than {MOST_EXCHANGERS} mail exchangers")));
        }
        let hosts: Vec<_> = found.records.into_iter().map(|mx| mx.host).filter(|host| !host.is_empty()).collect();
        self.hosts(domain, &hosts, lengths).await
    }

    async fn hosts(&mut self, domain: &str, names: &[String], lengths: Lengths) -> Result<Vec<IpNet>, ExpandError> {
        let mut nets = Vec::new();
        for name in names {
            let found = self.ask.addresses(name).await?;
            self.holds(found.ttl);
            // A receiver asks for the family of its client only; to be void, a name has to have neither.
            if found.records.is_empty() {
                self.nothing(domain)?;
            }
            nets.extend(found.records.into_iter().filter_map(|address| {
                let length = if address.is_ipv4() { lengths.v4 } else { lengths.v6 };
                IpNet::new(address, length).ok().map(|net| net.trunc())
            }));
        }
        Ok(nets)
    }

    /// The name that a term means; `None`, and said, if that depends on the mail.
    fn known(&mut self, target: Option<Target>, domain: &str, term: &str) -> Option<String> {
        match target {
            None => Some(domain.to_owned()),
            Some(Target::Name(name)) => Some(name),
            Some(Target::Macro) => {
                self.leave_out(domain, term);
                None
            }
        }
    }

    fn leave_out(&mut self, domain: &str, term: &str) {
        self.left_out.push(format!("{term} of {domain} depends on the mail and cannot be expanded"));
    }

    fn count(&mut self, domain: &str) -> Result<(), ExpandError> {
        self.lookups += 1;
        let too_many = || wrong(domain, "it takes more than 10 lookups (RFC 7208 section 4.6.4)");
        if self.lookups > MOST_LOOKUPS { Err(too_many()) } else { Ok(()) }
    }

    fn nothing(&mut self, domain: &str) -> Result<(), ExpandError> {
        self.void += 1;
        let too_many = || wrong(domain, "more than 2 of its lookups find nothing (RFC 7208 section 4.6.4)");
        if self.void > MOST_VOID { Err(too_many()) } else { Ok(()) }
    }

    fn holds(&mut self, ttl: Option<Duration>) {
        self.ttl = self.ttl.into_iter().chain(ttl).min();
    }
}

fn wrong(domain: &str, why: &str) -> ExpandError {
    ExpandError::Wrong { domain: domain.to_owned(), why: why.to_owned() }
}

/// The parts of a prefix that lie in none of `others`.
fn without(net: IpNet, others: &[IpNet], parts: &mut Vec<IpNet>) {
    if others.iter().any(|other| other.contains(&net)) {
        return;
    }
    if !others.iter().any(|other| net.contains(other)) {
        return parts.push(net);
    }
    // One of them is longer, so there is a bit to split at.
    if let Ok(halves) = net.subnets(net.prefix_len() + 1) {
        halves.for_each(|half| without(half, others, parts));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Records in memory: what is tested here is what is made of them.
    #[derive(Default)]
    struct Zone {
        texts: HashMap<String, Vec<String>>,
        mx: HashMap<String, Vec<&'static str>>,
        addresses: HashMap<String, Vec<IpAddr>>,
    }

    impl Zone {
        fn spf(records: &[(&str, &str)]) -> Self {
            let mut zone = Self::default();
            for (name, text) in records {
                zone.texts.entry((*name).to_owned()).or_default().push((*text).to_owned());
            }
            zone
        }
    }

    fn found<T>(records: Vec<T>) -> Result<Found<T>, Failed> {
        Ok(Found { records, ttl: Some(Duration::from_secs(300)) })
    }

    impl Ask for Zone {
        async fn texts(&self, name: &str) -> Result<Found<String>, Failed> {
            if name == "silent.example" {
                return Err(Failed { name: name.to_owned(), what: "TXT", why: "no answer in time".to_owned() });
            }
            found(self.texts.get(name).cloned().unwrap_or_default())
        }

        async fn mx(&self, name: &str) -> Result<Found<Mx>, Failed> {
            let hosts = self.mx.get(name).cloned().unwrap_or_default();
            found(hosts.into_iter().map(|host| Mx { preference: 10, host: host.to_owned() }).collect())
        }

        async fn addresses(&self, name: &str) -> Result<Found<IpAddr>, Failed> {
            found(self.addresses.get(name).cloned().unwrap_or_default())
        }
    }

    async fn members(zone: &Zone) -> Vec<String> {
        let expansion = expand(zone, "a.example").await.unwrap();
        expansion.prefixes.iter().map(ToString::to_string).collect()
    }

    async fn error(records: &[(&str, &str)]) -> String {
        expand(&Zone::spf(records), "a.example").await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn includes_redirects_and_hosts_are_followed_and_neighbours_joined() {
        let mut zone = Zone::spf(&[
            ("a.example", "v=spf1 include:b.example mx/24 a:host.example -all"),
            ("a.example", "some other text"),
            ("b.example", "v=spf1 ip4:192.0.2.0/25 ip4:192.0.2.128/25 redirect=c.example"),
            ("c.example", "v=spf1 ip6:2001:db8::/32 ?all"),
        ]);
        zone.mx.insert("a.example".to_owned(), vec!["mx.example"]);
        zone.addresses.insert("mx.example".to_owned(), vec!["203.0.113.9".parse().unwrap()]);
        zone.addresses.insert("host.example".to_owned(), vec!["198.51.100.1".parse().unwrap()]);
        let expected = ["192.0.2.0/24", "198.51.100.1/32", "203.0.113.0/24", "2001:db8::/32"];
        assert_eq!(members(&zone).await, expected);
        let expansion = expand(&zone, "a.example").await.unwrap();
        // include, mx, a, redirect.
        assert_eq!((expansion.lookups, expansion.ttl), (4, Some(Duration::from_secs(300))));
    }

    #[tokio::test]
    async fn what_stands_behind_all_counts_for_nothing() {
        let records = [("a.example", "v=spf1 ip4:192.0.2.1 ~all ip4:192.0.2.9 redirect=b.example")];
        assert_eq!(members(&Zone::spf(&records)).await, ["192.0.2.1/32"]);
    }

    #[tokio::test]
    async fn what_is_no_sender_before_is_none_behind() {
        let records = [
            (
                "a.example",
                "v=spf1 ip4:192.0.2.1 -ip4:192.0.2.0/30 ?include:b.example ip4:192.0.2.0/29 ip4:203.0.113.0/30 -all",
            ),
            ("b.example", "v=spf1 ip4:203.0.113.2"),
        ];
        let expected = ["192.0.2.1/32", "192.0.2.4/30", "203.0.113.0/31", "203.0.113.3/32"];
        assert_eq!(members(&Zone::spf(&records)).await, expected);
    }

    #[tokio::test]
    async fn what_depends_on_the_mail_is_said() {
        let records = [("a.example", "v=spf1 exists:%{i}.x.example include:%{d}.y.example ptr ip4:192.0.2.1 -all")];
        let expansion = expand(&Zone::spf(&records), "a.example").await.unwrap();
        assert_eq!(expansion.prefixes.len(), 1);
        assert_eq!(expansion.lookups, 3);
        let expected = [
            "exists:%{i}.x.example of a.example depends on the mail and cannot be expanded",
            "include:%{d}.y.example of a.example depends on the mail and cannot be expanded",
            "ptr of a.example depends on the mail and cannot be expanded",
        ];
        assert_eq!(expansion.left_out, expected);
    }

    #[tokio::test]
    async fn the_limits_of_the_rfc_are_kept() {
        assert!(error(&[("a.example", "v=spf1 include:a.example")]).await.contains("more than 10 lookups"));
        let eleven = format!("v=spf1{}", " exists:%{i}.x.example".repeat(11));
        assert!(error(&[("a.example", &eleven)]).await.contains("more than 10 lookups"));
        let void = "v=spf1 a:x.example a:y.example ip4:192.0.2.1";
        assert_eq!(members(&Zone::spf(&[("a.example", void)])).await, ["192.0.2.1/32"]);
        let void = "v=spf1 a:x.example a:y.example mx:z.example";
        assert!(error(&[("a.example", void)]).await.contains("more than 2 of its lookups find nothing"));
        let mut zone = Zone::spf(&[("a.example", "v=spf1 mx -all")]);
        zone.mx.insert("a.example".to_owned(), vec!["mx.example"; 11]);
        let error = expand(&zone, "a.example").await.unwrap_err().to_string();
        assert!(error.contains("more than 10 mail exchangers"), "{error}");
    }

    #[tokio::test]
    async fn wrong_records_say_whose_they_are_and_silence_is_no_wrong_record() {
        let whose = error(&[("a.example", "v=spf1 include:b.example"), ("b.example", "v=spf1 ipv4:1.2.3.4")]).await;
        assert_eq!(whose, "the SPF record of b.example cannot be used: \"ipv4:1.2.3.4\" is no term of an SPF record");
        assert!(error(&[]).await.ends_with("a.example cannot be used: there is none"));
        assert!(error(&[("a.example", "v=spf1 -all"), ("a.example", "v=spf1 -all")]).await.contains("more than one"));
        assert!(error(&[("a.example", "v=spf1 +all")]).await.contains("everybody is its sender"));
        let silent = expand(&Zone::spf(&[("a.example", "v=spf1 include:silent.example")]), "a.example").await;
        assert!(matches!(silent, Err(ExpandError::Unanswered(_))), "{silent:?}");
    }

    #[test]
    fn a_prefix_without_others_is_what_is_left() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let left = |of: &str, others: &[&str]| {
            let others: Vec<_> = others.iter().map(|other| net(other)).collect();
            let mut parts = Vec::new();
            without(net(of), &others, &mut parts);
            parts.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(left("10.0.0.0/30", &["10.0.0.3/32"]), ["10.0.0.0/31", "10.0.0.2/32"]);
        assert!(left("10.0.0.0/30", &["10.0.0.0/8"]).is_empty());
        assert_eq!(left("2001:db8::/126", &["10.0.0.0/8"]), ["2001:db8::/126"]);
        assert_eq!(left("0.0.0.0/0", &["0.0.0.0/1", "128.0.0.0/1"]), Vec::<String>::new());
    }
}
