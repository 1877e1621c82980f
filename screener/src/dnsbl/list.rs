//! One list: its zone, the names to ask for, what its answers weigh, and which of its answers are not to be believed.
//!
//! Holds no state and asks nobody. The only place that knows a list's secret key: what is shown of a list is
//! [`List::name`].

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::Serialize;

use super::codes::{BadFilter, CodeFilter};
use crate::config::{ConfigError, DnsList, Family, Zone};

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
    /// Not in 127.0.0.0/8: somebody else answers, the zone is parked or rewritten.
    Outside(Ipv4Addr),
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

/// A list that can be asked.
#[derive(Clone)]
pub(super) struct List {
    name: Arc<str>,
    /// What stands behind the reversed address, with dots on both ends: a complete name, no search domain applies.
    suffix: String,
    families: Vec<Family>,
    weight: i32,
    codes: Vec<(CodeFilter, i32)>,
}

/// Without the zone as it is asked: it may hold a secret key.
impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({})", self.name)
    }
}

impl List {
    pub(super) fn new(zone: &Zone, weight: i32, codes: Vec<(CodeFilter, i32)>, families: Vec<Family>) -> Self {
        Self { name: zone.label().into(), suffix: format!(".{}.", zone.query_name()), families, weight, codes }
    }

    /// From the configuration.
    pub(super) fn configured(list: &DnsList) -> Result<Self, ConfigError> {
        let codes = list.codes.iter().map(|code| {
            let filter = code.filter.parse().map_err(|bad: BadFilter| ConfigError::at(&code.place, bad.to_string()))?;
            Ok((filter, code.weight))
        });
        Ok(Self::new(&list.zone, list.weight, codes.collect::<Result<_, ConfigError>>()?, list.families.clone()))
    }

    /// The zone as it may be shown.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The fully qualified name to ask for (RFC 5782 sections 2.1 and 2.4): octets or nibbles in reverse before the zone.
    /// `None`: the list does not know this family. An IPv4-mapped address is an IPv4 address.
    pub(super) fn query_name(&self, address: IpAddr) -> Option<String> {
        match address.to_canonical() {
            IpAddr::V4(v4) if self.families.contains(&Family::Ipv4) => {
                let [a, b, c, d] = v4.octets();
                Some(format!("{d}.{c}.{b}.{a}{}", self.suffix))
            }
            IpAddr::V6(v6) if self.families.contains(&Family::Ipv6) => {
                let mut name = String::with_capacity(64 + self.suffix.len());
                for byte in v6.octets().into_iter().rev() {
                    // Writing to a String cannot fail.
                    let _ = write!(name, "{:x}.{:x}.", byte & 15, byte >> 4);
                }
                name.pop();
                Some(name + &self.suffix)
            }
            _ => None,
        }
    }

    /// The least and the most that an answer can add to the score.
    pub(super) fn range(&self) -> (i32, i32) {
        let weights = || {
            let whole = self.codes.is_empty().then_some(self.weight);
            whole.into_iter().chain(self.codes.iter().map(|&(_, weight)| weight))
        };
        (sum(weights().filter(|&weight| weight < 0)), sum(weights().filter(|&weight| weight > 0)))
    }

    /// What the records say. One record that is not to be believed spoils the whole answer.
    pub(super) fn judge(&self, records: &[Ipv4Addr]) -> Said {
        if let Some(bad) = records.iter().copied().find_map(bad_answer) {
            return Said::Bad(bad);
        }
        if self.codes.is_empty() {
            if records.is_empty() {
                return Said::NotListed;
            }
            return self.listed(records.to_vec(), self.weight);
        }
        let met: Vec<_> =
            self.codes.iter().filter(|(filter, _)| records.iter().any(|&code| filter.matches(code))).collect();
        if met.is_empty() {
            return Said::NotListed;
        }
        let counts = |code: &Ipv4Addr| met.iter().any(|(filter, _)| filter.matches(*code));
        let codes = records.iter().copied().filter(counts).collect();
        self.listed(codes, sum(met.iter().map(|&&(_, weight)| weight)))
    }

    fn listed(&self, mut codes: Vec<Ipv4Addr>, weight: i32) -> Said {
        if weight < 0 && codes.contains(&Ipv4Addr::new(127, 0, 0, 255)) {
            return Said::Bad(BadAnswer::Overused);
        }
        codes.sort_unstable();
        codes.dedup();
        Said::Listed { codes, weight }
    }
}

/// A sum that stops at the ends.
pub(super) fn sum(weights: impl Iterator<Item = i32>) -> i32 {
    weights.fold(0, i32::saturating_add)
}

fn bad_answer(code: Ipv4Addr) -> Option<BadAnswer> {
    match code.octets() {
        [127, 255, 255, _] => Some(BadAnswer::Refused(code)),
        [127, 0, 0, 1] => Some(BadAnswer::Loopback),
        [127, ..] => None,
        _ => Some(BadAnswer::Outside(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const BOTH: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    fn list(weight: i32, codes: Vec<(CodeFilter, i32)>, families: &[Family]) -> List {
        List::new(&Zone::new("bl.example", None).unwrap(), weight, codes, families.to_vec())
    }

    fn plain(weight: i32) -> List {
        list(weight, Vec::new(), &BOTH)
    }

    fn codes(codes: &[(&str, i32)]) -> Vec<(CodeFilter, i32)> {
        codes.iter().map(|(filter, weight)| (filter.parse().unwrap(), *weight)).collect()
    }

    fn name(list: &List, address: &str) -> Option<String> {
        list.query_name(address.parse().unwrap())
    }

    fn zen() -> List {
        let codes = codes(&[("127.0.0.[2..3]", 3), ("127.0.0.[4..7]", 4), ("127.0.0.[10..11]", 2), ("127.0.0.30", 5)]);
        list(1, codes, &BOTH)
    }

    fn judge(list: &List, records: &[[u8; 4]]) -> Said {
        let records: Vec<Ipv4Addr> = records.iter().copied().map(Ipv4Addr::from).collect();
        list.judge(&records)
    }

    #[test]
    fn names_are_those_of_rfc_5782() {
        assert_eq!(name(&plain(1), "192.0.2.99").unwrap(), "99.2.0.192.bl.example.");
        assert_eq!(
            name(&plain(1), "2001:db8:1:2:3:4:567:89ab").unwrap(),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.example."
        );
        assert_eq!(name(&plain(1), "::ffff:192.0.2.99").unwrap(), "99.2.0.192.bl.example.");
    }

    #[test]
    fn a_list_of_one_family_is_never_asked_about_the_other() {
        let only = |family| list(1, Vec::new(), &[family]);
        assert_eq!(name(&only(Family::Ipv4), "2001:db8::1"), None);
        assert!(name(&only(Family::Ipv4), "::ffff:192.0.2.1").is_some());
        assert_eq!(name(&only(Family::Ipv6), "192.0.2.1"), None);
    }

    #[test]
    fn the_key_is_in_the_question_and_nowhere_else() {
        let text = "[[tests.dnsbl.list]]\nzone = \"{key}.Zen.dq.example.net\"\nkey = \"s3cr3t\"\n";
        let config = Config::parse(text, "test").unwrap();
        let list = List::configured(&config.tests.dnsbl.lists[0]).unwrap();
        assert_eq!(&**list.name(), "zen.dq.example.net");
        assert_eq!(list.query_name([192, 0, 2, 1].into()).unwrap(), "1.2.0.192.s3cr3t.zen.dq.example.net.");
        assert!(!format!("{list:?}").contains("s3cr3t"));
    }

    #[test]
    fn a_bad_filter_is_reported_where_it_stands() {
        let text = "[[tests.dnsbl.list]]\nzone = \"bl.example\"\ncodes = { \"127.0.0.[7..3]\" = 1 }\n";
        let config = Config::parse(text, "test.toml").unwrap();
        let error = List::configured(&config.tests.dnsbl.lists[0]).unwrap_err().to_string();
        assert!(error.starts_with("test.toml:3:"), "{error}");
    }

    #[test]
    fn each_filter_counts_once_and_several_records_all_count() {
        let zen = zen();
        assert_eq!(
            judge(&zen, &[[127, 0, 0, 3], [127, 0, 0, 2], [127, 0, 0, 4]]),
            Said::Listed {
                codes: vec![[127, 0, 0, 2].into(), [127, 0, 0, 3].into(), [127, 0, 0, 4].into()],
                weight: 7
            }
        );
        // 127.0.0.9 counts nothing here, but does not hurt either.
        assert_eq!(
            judge(&zen, &[[127, 0, 0, 9], [127, 0, 0, 2]]),
            Said::Listed { codes: vec![[127, 0, 0, 2].into()], weight: 3 }
        );
        assert_eq!(judge(&zen, &[[127, 0, 0, 9]]), Said::NotListed);
        assert_eq!(zen.range(), (0, 14));
    }

    #[test]
    fn without_filters_any_valid_answer_weighs_the_same() {
        let listed = judge(&plain(2), &[[127, 0, 0, 2], [127, 0, 0, 3]]);
        assert!(matches!(listed, Said::Listed { weight: 2, codes } if codes.len() == 2));
        assert_eq!(judge(&plain(2), &[]), Said::NotListed);
        assert_eq!(plain(2).range(), (0, 2));
        assert_eq!(plain(-2).range(), (-2, 0));
    }

    #[test]
    fn an_answer_that_cannot_be_a_listing_is_an_error_even_beside_a_good_one() {
        let filtered = list(1, codes(&[("127.[0..255].[0..255].[0..255]", 1)]), &BOTH);
        for wide in [plain(1), filtered] {
            let bad = |code| judge(&wide, &[[127, 0, 0, 2], code]);
            assert_eq!(bad([127, 255, 255, 254]), Said::Bad(BadAnswer::Refused([127, 255, 255, 254].into())));
            assert_eq!(bad([127, 255, 255, 0]), Said::Bad(BadAnswer::Refused([127, 255, 255, 0].into())));
            assert_eq!(bad([127, 0, 0, 1]), Said::Bad(BadAnswer::Loopback));
            assert_eq!(bad([10, 0, 0, 1]), Said::Bad(BadAnswer::Outside([10, 0, 0, 1].into())));
        }
    }

    #[test]
    fn an_allow_list_that_refuses_lets_nobody_in() {
        let allow = plain(-5);
        assert_eq!(judge(&allow, &[[127, 0, 0, 255]]), Said::Bad(BadAnswer::Overused));
        assert!(matches!(judge(&allow, &[[127, 0, 5, 2]]), Said::Listed { weight: -5, .. }));
        let deny = plain(1);
        assert!(matches!(judge(&deny, &[[127, 0, 0, 255]]), Said::Listed { weight: 1, .. }));
    }

    #[test]
    fn weights_stop_at_the_ends() {
        let greedy = codes(&[("127.0.0.2", i32::MAX), ("127.0.0.[2..3]", i32::MAX)]);
        let greedy = list(1, greedy, &BOTH);
        assert!(matches!(judge(&greedy, &[[127, 0, 0, 2]]), Said::Listed { weight: i32::MAX, .. }));
        assert_eq!(greedy.range(), (0, i32::MAX));
    }
}
