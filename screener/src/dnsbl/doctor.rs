//! What is wrong around the DNS lists, and what to do about it: for `screener doctor`.
//!
//! Looks at each resolver itself (alive, public, rewriting, validating) and at each list's test points. Changes nothing.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use serde::Serialize;

use super::answer::Failure;
use super::health::Why;
use super::list::List;
use super::points;
use super::probe::{self, Reply};
use super::resolver::Resolver;
use crate::config::{DnsblTest, ListLevel};
use crate::dns::system;
use crate::host::own_addresses;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// All is well.
    Good,
    /// Worth knowing.
    Note,
    /// It will hurt.
    Warning,
    /// It hurts.
    Problem,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub finding: String,
    /// What to do; empty when all is well.
    pub remedy: String,
}

fn finding(severity: Severity, finding: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { severity, finding: finding.into(), remedy: remedy.into() }
}

/// Resolvers that everybody uses: most lists refuse to answer them, or answer them wrongly.
const PUBLIC: [(&str, &[&str]); 7] = [
    ("Google", &["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"]),
    ("Cloudflare", &["1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"]),
    ("Quad9", &["9.9.9.9", "149.112.112.112", "9.9.9.10", "2620:fe::fe", "2620:fe::9"]),
    ("OpenDNS", &["208.67.222.222", "208.67.220.220", "2620:119:35::35", "2620:119:53::53"]),
    ("AdGuard", &["94.140.14.14", "94.140.15.15", "2a10:50c0::ad1:ff", "2a10:50c0::ad2:ff"]),
    ("DNS4EU", &["86.54.11.1", "86.54.11.13", "86.54.11.100", "86.54.11.200"]),
    ("Level 3", &["4.2.2.1", "4.2.2.2", "4.2.2.3", "4.2.2.4"]),
];

const OWN_RESOLVER: &str =
    "run a resolver of this host's own (unbound on 127.0.0.1) and name it in /etc/resolv.conf or tests.dnsbl.resolvers";

/// Where systemd-resolved listens, and where it says whom it asks: it finds out nothing itself.
const STUBS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];
const UPLINKS: &str = "/run/systemd/resolve/resolv.conf";

/// Above this an answer eats into the greet wait.
const SLOW: Duration = Duration::from_millis(500);

/// Looks at everything.
pub async fn examine(config: &DnsblTest) -> Vec<Finding> {
    let asked: Vec<_> = config.lists.iter().filter(|list| list.level != ListLevel::Off).collect();
    if asked.is_empty() {
        return vec![finding(
            Severity::Note,
            "no DNS list is asked",
            "add a [[tests.dnsbl.list]]: lists keep out most junk at once",
        )];
    }
    let servers = match config.resolvers.is_empty() {
        true => system::servers(),
        false => Ok(config.resolvers.clone()),
    };
    let servers = match servers {
        Ok(servers) => servers,
        Err(why) => return vec![finding(Severity::Problem, why.to_string(), OWN_RESOLVER)],
    };
    let mut findings = Vec::new();
    for &server in &servers {
        findings.extend(examine_resolver(server).await);
    }
    let resolver = match Resolver::new(&config.resolvers) {
        Ok(resolver) => resolver,
        Err(why) => {
            findings.push(finding(Severity::Problem, why.to_string(), OWN_RESOLVER));
            return findings;
        }
    };
    for list in asked {
        match List::configured(list) {
            Ok(list) => findings.extend(examine_list(&resolver, &list).await),
            Err(error) => {
                findings.push(finding(Severity::Problem, error.to_string(), "correct the configuration"));
            }
        }
    }
    findings
}

async fn examine_resolver(server: SocketAddr) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(whose(&server.to_string(), server.ip()));
    if STUBS.contains(&server.ip())
        && let Ok(text) = tokio::fs::read(UPLINKS).await
    {
        let of_stub = |uplink: IpAddr| whose(&format!("{uplink}, which {server} (systemd-resolved) asks,"), uplink);
        findings.extend(system::named_in(&text).into_iter().filter_map(of_stub));
    }
    // The root's keys: every validating resolver has them.
    match probe::ask(server, ".", RecordType::SOA).await {
        // About this name a resolver asks nobody (RFC 6761 section 6.3).
        Err(_) if probe::ask(server, "localhost.", RecordType::A).await.is_ok() => findings.push(finding(
            Severity::Problem,
            format!("{server} answers, but cannot find the root: it does not reach the Internet"),
            "look at its log, and at the way to port 53 outside",
        )),
        Err(error) => {
            findings.push(finding(
                Severity::Problem,
                format!("the resolver {server} does not answer: {error}"),
                "start it, or remove it from /etc/resolv.conf or tests.dnsbl.resolvers",
            ));
            return findings;
        }
        Ok(reply) => findings.extend(of_root(server, &reply)),
    }
    // No such name exists, and none of its ancestors has a wildcard; under `com` since rewriters look for such names.
    let name = format!("screener-{:016x}.com.", RandomState::new().hash_one(0));
    if let Ok(reply) = probe::ask(server, &name, RecordType::A).await {
        findings.extend(of_missing(server, &reply));
    }
    findings
}

/// Whether lists take the questions of a resolver for this host's own.
fn whose(resolver: &str, address: IpAddr) -> Option<Finding> {
    if let Some(owner) = public_owner(address) {
        let what = format!("{resolver} is a public resolver of {owner}: many lists refuse it or answer it wrongly");
        return Some(finding(Severity::Warning, what, OWN_RESOLVER));
    }
    let what =
        format!("{resolver} is a resolver somewhere else: lists count its questions together with those of others");
    (!is_own(address)).then(|| finding(Severity::Note, what, OWN_RESOLVER))
}

fn of_root(server: SocketAddr, reply: &Reply) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !reply.recursion {
        findings.push(finding(
            Severity::Problem,
            format!("{server} does not ask other servers (no recursion): it cannot find the lists"),
            OWN_RESOLVER,
        ));
    }
    if reply.code != ResponseCode::NoError {
        findings.push(finding(
            Severity::Problem,
            format!("{server} answers {} about the root: it does not reach the Internet", reply.code),
            "look at its log, and at the way to port 53 outside",
        ));
        return findings;
    }
    findings.push(if reply.authentic {
        finding(Severity::Good, format!("{server} validates DNSSEC"), "")
    } else {
        finding(
            Severity::Note,
            format!("{server} does not validate DNSSEC"),
            "switch validation on (unbound: auto-trust-anchor-file): a forged answer could list or excuse a client",
        )
    });
    if reply.took > SLOW {
        let ms = reply.took.as_millis();
        findings.push(finding(Severity::Warning, format!("{server} takes {ms} ms for an answer"), OWN_RESOLVER));
    }
    findings
}

fn of_missing(server: SocketAddr, reply: &Reply) -> Option<Finding> {
    match (reply.code, reply.answers) {
        (ResponseCode::NXDomain, _) => {
            Some(finding(Severity::Good, format!("{server} says so when a name does not exist"), ""))
        }
        (ResponseCode::NoError, 1..) => Some(finding(
            Severity::Problem,
            format!("{server} makes up answers for names that do not exist: with it every client is listed"),
            OWN_RESOLVER,
        )),
        // It could not find out; that it does not reach the Internet was said already.
        _ => None,
    }
}

async fn examine_list(resolver: &Resolver, list: &List) -> Vec<Finding> {
    let began = std::time::Instant::now();
    let tested = points::test(resolver, list).await;
    let (took, name) = (began.elapsed(), list.name());
    let mut findings = Vec::new();
    match tested.wrong {
        None => {
            findings.push(finding(Severity::Good, format!("{name} is alive ({} ms)", took.as_millis()), ""));
            if took > SLOW {
                findings.push(finding(
                    Severity::Warning,
                    format!("{name} takes {} ms for an answer", took.as_millis()),
                    "ask it from a resolver that is nearer, or mirror the zone with rbldnsd",
                ));
            }
        }
        Some(why) => findings.push(finding(Severity::Problem, format!("{name}: {why}"), remedy(why))),
    }
    if tested.knows_v6 == Some(false) {
        findings.push(finding(
            Severity::Note,
            format!("{name} knows no IPv6"),
            "say families = [\"ipv4\"], and it is not tried",
        ));
    }
    findings
}

fn remedy(why: Why) -> &'static str {
    match why {
        Why::Fails(Failure::Silent | Failure::Unreachable) => "if every list says so, the resolver is at fault",
        Why::Fails(Failure::Refused) => "the list or the resolver refuses this host: look at the list's terms of use",
        Why::Fails(_) => "ask again later; if it stays so, the list may be gone: remove it",
        Why::Bad(_) => {
            "look at the list's terms of use: from a public resolver or above a limit it wants a key or a contract"
        }
        Why::ListsTheWorld => "remove the list if it says so from other resolvers too: it is dead",
        Why::Empty => "remove the list if it is gone; if it never had test points, say test_points = false",
        Why::HitRate { .. } => "look at what it lists",
    }
}

fn public_owner(address: IpAddr) -> Option<&'static str> {
    let is = |text: &&str| text.parse::<IpAddr>().is_ok_and(|known| known == address.to_canonical());
    PUBLIC.iter().find(|(_, addresses)| addresses.iter().any(is)).map(|(owner, _)| *owner)
}

/// Of this host, or of this site as far as the address tells.
fn is_own(address: IpAddr) -> bool {
    let of_this_site = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    of_this_site || own_addresses().is_ok_and(|own| own.contains(&address.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: ResponseCode, answers: usize) -> Reply {
        Reply { code, answers, authentic: false, recursion: true, took: Duration::from_millis(3) }
    }

    #[test]
    fn public_resolvers_are_known_and_own_ones_are_not_taken_for_them() {
        assert_eq!(public_owner("8.8.8.8".parse().unwrap()), Some("Google"));
        assert_eq!(public_owner("2620:fe::fe".parse().unwrap()), Some("Quad9"));
        assert_eq!(public_owner("::ffff:1.1.1.1".parse().unwrap()), Some("Cloudflare"));
        assert_eq!(public_owner("127.0.0.53".parse().unwrap()), None);
        let listed: Vec<_> = PUBLIC.iter().flat_map(|(_, addresses)| *addresses).collect();
        assert!(listed.iter().all(|text| text.parse::<IpAddr>().is_ok()));
        assert!(is_own("127.0.0.1".parse().unwrap()) && is_own("10.1.1.1".parse().unwrap()));
        assert!(!is_own("203.0.113.53".parse().unwrap()));
    }

    #[test]
    fn whom_a_stub_asks_is_looked_at_like_a_resolver() {
        let asked = ["8.8.8.8", "fe80::1", "203.0.113.53"].map(|it| it.parse::<IpAddr>().unwrap());
        let severities = asked.map(|it| whose("it", it).map(|found| found.severity));
        assert_eq!(severities, [Some(Severity::Warning), None, Some(Severity::Note)]);
    }

    #[test]
    fn a_resolver_that_makes_up_answers_is_a_problem() {
        let server = "192.0.2.53:53".parse().unwrap();
        let severity = |code, answers| of_missing(server, &reply(code, answers)).map(|found| found.severity);
        assert_eq!(severity(ResponseCode::NXDomain, 0), Some(Severity::Good));
        assert_eq!(severity(ResponseCode::NoError, 1), Some(Severity::Problem));
        assert_eq!(severity(ResponseCode::ServFail, 0), None);
    }

    #[test]
    fn what_is_wrong_comes_with_what_to_do() {
        let server = "192.0.2.53:53".parse().unwrap();
        for found in of_root(server, &Reply { recursion: false, ..reply(ResponseCode::ServFail, 0) }) {
            assert!(!found.remedy.is_empty() || found.severity == Severity::Good, "{found:?}");
        }
        let good = of_root(server, &Reply { authentic: true, ..reply(ResponseCode::NoError, 1) });
        assert!(good.iter().all(|found| found.severity == Severity::Good), "{good:?}");
    }
}
