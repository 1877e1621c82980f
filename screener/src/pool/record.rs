//! One SPF record as it is written: RFC 7208 section 4.6 and 12.
//!
//! Pure. Never asks anything, and drops nothing in silence: what is no SPF is an error, and what cannot be turned into
//! addresses without a mail at hand (`exists`, `ptr`, macros) is kept as such.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use crate::dns::is_domain;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// In their order, which decides: the first that matches is the answer.
    pub(super) directives: Vec<Directive>,
    /// Whose record holds if nothing has matched.
    pub(super) redirect: Option<Target>,
}

/// A mechanism and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    /// As it is written, for messages.
    pub(super) text: String,
    /// `+`, or no qualifier: these are the domain's senders. Everything else (`-`, `~`, `?`) says that they are not, or that
    /// nobody knows.
    pub(super) passes: bool,
    pub(super) mechanism: Mechanism,
}

/// Who is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Net(IpNet),
    /// The addresses of a name; `None`: of the domain itself.
    A(Option<Target>, Lengths),
    /// The addresses of the mail exchangers of a name.
    Mx(Option<Target>, Lengths),
    Include(Target),
    /// Only a mail at hand can tell: `exists` or `ptr`.
    NeedsMail,
}

/// How much of an address behind `a` and `mx` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

impl Lengths {
    const WHOLE: Self = Self { v4: 32, v6: 128 };
}

/// A domain that a term names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Name(String),
    /// With a macro in it (section 7): another one for each mail.
    Macro,
}

/// The record cannot be used: RFC 7208's permerror.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum BadRecord {
    #[error("{0:?} is no term of an SPF record")]
    Term(String),
    #[error("it has more than one redirect=")]
    TwoRedirects,
}

/// Whether a text is an SPF record at all, not somebody's other text (section 4.5).
pub(super) fn is_spf(text: &str) -> bool {
    text.get(..6).is_some_and(|version| version.eq_ignore_ascii_case("v=spf1"))
        && matches!(text.as_bytes().get(6), None | Some(b' '))
}

impl Record {
    /// Reads a text for which [`is_spf`] holds.
    pub(super) fn parse(text: &str) -> Result<Self, BadRecord> {
        let mut record = Self { directives: Vec::new(), redirect: None };
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            match modifier(term) {
                Some((name, value)) if name.eq_ignore_ascii_case("redirect") => {
                    let target = target(value).ok_or_else(|| BadRecord::Term(term.to_owned()))?;
                    if record.redirect.replace(target).is_some() {
                        return Err(BadRecord::TwoRedirects);
                    }
                }
                // `exp=`, and modifiers of a later age (section 6): they change nobody's address.
                Some(_) => {}
                None => {
                    record.directives.push(directive(term).ok_or_else(|| BadRecord::Term(term.to_owned()))?);
                }
            }
        }
        Ok(record)
    }
}

/// `name=value`, where the name is a word: a mechanism may hold an equals sign behind its colon.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let first = name.bytes().next()?.is_ascii_alphabetic();
    let rest = name.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'));
    (first && rest).then_some((name, value))
}

fn directive(term: &str) -> Option<Directive> {
    let (passes, bare) = match term.as_bytes().first()? {
        b'+' => (true, &term[1..]),
        b'-' | b'~' | b'?' => (false, &term[1..]),
        _ => (true, term),
    };
    let end = bare.find([':', '/']).unwrap_or(bare.len());
    let (name, rest) = bare.split_at(end);
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(target(rest.strip_prefix(':')?)?),
        "ip4" => Mechanism::Net(net_v4(rest.strip_prefix(':')?)?),
        "ip6" => Mechanism::Net(net_v6(rest.strip_prefix(':')?)?),
        "a" => {
            let (target, lengths) = hosts(rest)?;
            Mechanism::A(target, lengths)
        }
        "mx" => {
            let (target, lengths) = hosts(rest)?;
            Mechanism::Mx(target, lengths)
        }
        "exists" if rest.len() > 1 && rest.starts_with(':') => Mechanism::NeedsMail,
        "ptr" if rest.is_empty() || (rest.len() > 1 && rest.starts_with(':')) => Mechanism::NeedsMail,
        _ => return None,
    };
    Some(Directive { text: term.to_owned(), passes, mechanism })
}

fn target(text: &str) -> Option<Target> {
    if text.contains('%') {
        return Some(Target::Macro);
    }
    is_domain(text).then(|| Target::Name(text.trim_end_matches('.').to_ascii_lowercase()))
}

/// What follows `a` and `mx`: `:domain`, `/24`, `//64`, in this order, each optional.
fn hosts(rest: &str) -> Option<(Option<Target>, Lengths)> {
    let (domain, lengths) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let domain = match domain {
        "" => None,
        domain => Some(target(domain.strip_prefix(':')?)?),
    };
    let mut found = Lengths::WHOLE;
    let (v4, v6) = lengths.split_once("//").map_or((lengths, None), |(v4, v6)| (v4, Some(v6)));
    if !v4.is_empty() {
        found.v4 = length(v4.strip_prefix('/')?, 32)?;
    }
    if let Some(v6) = v6 {
        found.v6 = length(v6, 128)?;
    }
    Some((domain, found))
}

/// Without the signs and zeros that a number would be forgiven elsewhere.
fn length(text: &str, most: u8) -> Option<u8> {
    let plain = text.bytes().all(|c| c.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|&length| plain && length <= most)
}

fn net_v4(text: &str) -> Option<IpNet> {
    let (address, bits) = text.split_once('/').map_or((text, Some(32)), |(a, l)| (a, length(l, 32)));
    Some(Ipv4Net::new(address.parse::<Ipv4Addr>().ok()?, bits?).ok()?.trunc().into())
}

fn net_v6(text: &str) -> Option<IpNet> {
    let (address, bits) = text.split_once('/').map_or((text, Some(128)), |(a, l)| (a, length(l, 128)));
    Some(Ipv6Net::new(address.parse::<Ipv6Addr>().ok()?, bits?).ok()?.trunc().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Record, BadRecord> {
        assert!(is_spf(text), "{text}");
        Record::parse(text)
    }

    fn name(text: &str) -> Target {
        Target::Name(text.to_owned())
    }

    #[test]
    fn every_mechanism_is_understood() {
        let text = "v=spf1 ip4:192.0.2.7/24  ip6:2001:db8::/32 a a/24//64 a:Mail.Example.net. mx:example.net//48 \
                    +include:_spf.example.net ~include:%{d}.x exists:%{i}.bl.example ptr -all exp=why.%{d}";
        let found: Vec<_> = parse(text).unwrap().directives.into_iter().map(|it| (it.passes, it.mechanism)).collect();
        let expected = [
            (true, Mechanism::Net("192.0.2.0/24".parse().unwrap())),
            (true, Mechanism::Net("2001:db8::/32".parse().unwrap())),
            (true, Mechanism::A(None, Lengths::WHOLE)),
            (true, Mechanism::A(None, Lengths { v4: 24, v6: 64 })),
            (true, Mechanism::A(Some(name("mail.example.net")), Lengths::WHOLE)),
            (true, Mechanism::Mx(Some(name("example.net")), Lengths { v4: 32, v6: 48 })),
            (true, Mechanism::Include(name("_spf.example.net"))),
            (false, Mechanism::Include(Target::Macro)),
            (true, Mechanism::NeedsMail),
            (true, Mechanism::NeedsMail),
            (false, Mechanism::All),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_redirect_is_a_modifier_and_there_is_one() {
        let record = parse("V=SPF1 unknown=thing redirect=_spf.example.net").unwrap();
        assert_eq!((record.directives.len(), record.redirect), (0, Some(name("_spf.example.net"))));
        assert_eq!(parse("v=spf1 redirect=a.example redirect=b.example"), Err(BadRecord::TwoRedirects));
    }

    #[test]
    fn what_is_no_term_is_refused() {
        for term in [
            "ip4:192.0.2.256",
            "ip4:192.0.2.0/33",
            "ip4:192.0.2.0/024",
            "ip4:192.0.2.0/+8",
            "ip4",
            "ip6:192.0.2.1",
            "ip4:2001:db8::1",
            "include:",
            "include",
            "a:",
            "a/",
            "a//",
            "mx/24/64",
            "all:x",
            "ptr:",
            "frobnicate",
            "-",
            "ipv4:192.0.2.1",
            "redirect=",
            "include:no_dot",
        ] {
            assert_eq!(parse(&format!("v=spf1 {term}")), Err(BadRecord::Term(term.to_owned())), "{term}");
        }
    }

    #[test]
    fn other_texts_of_the_name_are_not_taken_for_spf() {
        for other in ["v=spf10 all", "v=spf", "google-site-verification=x", "", "v=spf1+all", "ü=spf1"] {
            assert!(!is_spf(other), "{other}");
        }
        assert!(is_spf("v=spf1") && is_spf("v=spf1 -all"));
    }
}
