//! One list: its zone, the names to ask for, what its answers weigh, and which of its answers are not to be believed.
//!
//! Holds no state and asks nobody. The only place that knows a list's secret key: what is shown of a list is
//! [`List::name`].

use std::fmt;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::answer::{BadAnswer, Said};
use super::codes::{BadFilter, CodeFilter};
use super::points::in_family;
use crate::config::{ConfigError, DnsList, Family, ListLevel, Place};

/// A list that can be asked.
#[derive(Clone)]
pub(super) struct List {
    name: Arc<str>,
    /// What stands behind the reversed address, with dots on both ends: a complete name, no search domain applies.
    suffix: Arc<str>,
    /// What of that is secret.
    key: Option<Arc<str>>,
    families: Vec<Family>,
    weight: i32,
    codes: Vec<(CodeFilter, i32)>,
    errors: Vec<CodeFilter>,
    url: Option<Arc<str>>,
    /// What comes of its answers.
    pub(super) level: ListLevel,
    /// Its answers are kept at least and at most so long.
    pub(super) ttl: (Duration, Duration),
    /// How long it is waited for.
    pub(super) deadline: Duration,
    /// Whether its text about a listed host is asked for.
    pub(super) text: bool,
    /// Whether it has the test points of RFC 5782.
    pub(super) test_points: bool,
}

/// Without the zone as it is asked: it may hold a secret key.
impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({})", self.name)
    }
}

impl List {
    /// From the configuration.
    pub(super) fn configured(list: &DnsList) -> Result<Self, ConfigError> {
        let filter =
            |text: &str, place: &Place| text.parse().map_err(|bad: BadFilter| ConfigError::at(place, bad.to_string()));
        let codes = list.codes.iter().map(|code| Ok((filter(&code.filter, &code.place)?, code.weight)));
        let errors = list.errors.iter().map(|error| filter(&error.filter, &error.place));
        Ok(Self {
            name: list.zone.label().into(),
            suffix: format!(".{}.", list.zone.query_name()).into(),
            key: list.zone.key().map(|key| key.to_ascii_lowercase().into()),
            families: list.families.clone(),
            weight: list.weight,
            codes: codes.collect::<Result<_, ConfigError>>()?,
            errors: errors.collect::<Result<_, ConfigError>>()?,
            url: list.url.as_deref().map(Into::into),
            level: list.level,
            ttl: (list.min_ttl, list.max_ttl),
            deadline: list.deadline,
            text: list.text,
            test_points: list.test_points,
        })
    }

    /// The zone as it is asked, which may hold a secret: only to tell one zone from another.
    pub(super) fn zone(&self) -> &Arc<str> {
        &self.suffix
    }

    /// What the list says about a client, as it may be shown: some name the question, and the key is in that.
    pub(super) fn shown(&self, mut text: String) -> String {
        let Some(key) = &self.key else { return text };
        // In whatever case: as long as the text itself, to the byte.
        while let Some(at) = text.to_ascii_lowercase().find(&**key) {
            text.replace_range(at..at + key.len(), "…");
        }
        text
    }

    /// The families that it is asked about.
    pub(super) fn families(&self) -> &[Family] {
        &self.families
    }

    /// Where a listed host learns more.
    pub(super) fn url(&self, address: IpAddr) -> Option<String> {
        self.url.as_ref().map(|url| url.replace("{address}", &address.to_canonical().to_string()))
    }

    /// Whether it can only speak for clients.
    pub(super) fn is_allow(&self) -> bool {
        let (lowest, highest) = self.range();
        lowest < 0 && highest == 0
    }

    /// The zone as it may be shown.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The fully qualified name to ask for (RFC 5782 sections 2.1 and 2.4): octets or nibbles in reverse before the zone.
    /// `None`: the list does not know this family. An IPv4-mapped address is an IPv4 address.
    pub(super) fn query_name(&self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        let family = if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        self.families.contains(&family).then(|| self.name_of(address))
    }

    /// The name of a test point: in IPv6 those are IPv4-mapped, which no client is.
    pub(super) fn point_name(&self, address: Ipv4Addr, family: Family) -> Option<String> {
        self.families.contains(&family).then(|| self.name_of(in_family(address, family)))
    }

    fn name_of(&self, address: IpAddr) -> String {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                format!("{d}.{c}.{b}.{a}{}", self.suffix)
            }
            IpAddr::V6(v6) => {
                let mut name = String::with_capacity(64 + self.suffix.len());
                for byte in v6.octets().into_iter().rev() {
                    // Writing to a String cannot fail.
                    let _ = write!(name, "{:x}.{:x}.", byte & 15, byte >> 4);
                }
                name.pop();
                name + &*self.suffix
            }
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
        if let Some(bad) = records.iter().find_map(|&code| self.bad_answer(code)) {
            return Said::Bad(bad);
        }
        if self.codes.is_empty() {
            if records.is_empty() {
                return Said::NotListed;
            }
            return listed(records.to_vec(), self.weight);
        }
        let met: Vec<_> =
            self.codes.iter().filter(|(filter, _)| records.iter().any(|&code| filter.matches(code))).collect();
        if met.is_empty() {
            return Said::NotListed;
        }
        let counts = |code: &Ipv4Addr| met.iter().any(|(filter, _)| filter.matches(*code));
        let codes = records.iter().copied().filter(counts).collect();
        listed(codes, sum(met.iter().map(|&&(_, weight)| weight)))
    }

    /// Whether one answer that is not to be believed is enough to leave the list alone. One host may be in 127.0.10.3 rightly,
    /// and a list without test points may mean something by 127.0.0.1; if it says so of everybody, its test points tell.
    pub(super) fn is_parked_for(&self, bad: BadAnswer) -> bool {
        match bad {
            BadAnswer::Everybody => false,
            BadAnswer::Loopback => self.test_points,
            _ => true,
        }
    }

    /// Whether an answer would speak for a client. A list that speaks against others as well is no allow list, and its answer
    /// lets in all the same.
    fn speaks_for_clients_by(&self, code: Ipv4Addr) -> bool {
        self.is_allow() || self.codes.iter().any(|(filter, weight)| *weight < 0 && filter.matches(code))
    }

    fn bad_answer(&self, code: Ipv4Addr) -> Option<BadAnswer> {
        match code.octets() {
            [127, 255, 255, _] => Some(BadAnswer::Refused(code)),
            [127, 0, 0, 1] => Some(BadAnswer::Loopback),
            [127, 0, 0, 255] if self.speaks_for_clients_by(code) => Some(BadAnswer::Overused),
            [127, 0, 10, 3] if self.speaks_for_clients_by(code) => Some(BadAnswer::Everybody),
            [127, 0, 1, 255] => Some(BadAnswer::OfDomains),
            [127, ..] if self.errors.iter().any(|filter| filter.matches(code)) => Some(BadAnswer::Configured(code)),
            [127, ..] => None,
            _ => Some(BadAnswer::Outside(code)),
        }
    }
}

fn listed(mut codes: Vec<Ipv4Addr>, weight: i32) -> Said {
    codes.sort_unstable();
    codes.dedup();
    Said::Listed { codes, weight }
}

/// A sum that stops at the ends.
pub(super) fn sum(weights: impl Iterator<Item = i32>) -> i32 {
    weights.fold(0, i32::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const BOTH: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    fn list(weight: i32, codes: Vec<(CodeFilter, i32)>, families: &[Family]) -> List {
        let plain = configured("[[tests.dnsbl.list]]\nzone = \"bl.example\"\n");
        List { weight, codes, families: families.to_vec(), ..plain }
    }

    fn configured(text: &str) -> List {
        List::configured(&Config::parse(text, "test").unwrap().tests.dnsbl.lists[0]).unwrap()
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
        let point = plain(1).point_name(Ipv4Addr::new(127, 0, 0, 2), Family::Ipv6).unwrap();
        assert!(point.starts_with("2.0.0.0.0.0.f.7.f.f.f.f.0.0."), "{point}");
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
        assert_eq!(judge(&allow, &[[127, 0, 10, 3]]), Said::Bad(BadAnswer::Everybody));
        let filtered = list(1, codes(&[("127.0.[2..20].[1..3]", -5)]), &BOTH);
        assert_eq!(judge(&filtered, &[[127, 0, 0, 255]]), Said::Bad(BadAnswer::Overused));
        assert!(matches!(judge(&allow, &[[127, 0, 5, 2]]), Said::Listed { weight: -5, .. }));
        let deny = plain(1);
        assert!(matches!(judge(&deny, &[[127, 0, 0, 255]]), Said::Listed { weight: 1, .. }));
        let both = list(1, codes(&[("127.0.[0..255].[0..255]", -2), ("127.0.0.2", 5)]), &BOTH);
        assert_eq!(judge(&both, &[[127, 0, 0, 255]]), Said::Bad(BadAnswer::Overused), "it speaks against others too");
        assert_eq!(judge(&both, &[[127, 0, 10, 3]]), Said::Bad(BadAnswer::Everybody));
        assert!(matches!(judge(&both, &[[127, 0, 0, 2]]), Said::Listed { weight: 3, .. }));
    }

    #[test]
    fn a_list_can_have_error_codes_and_a_url_of_its_own() {
        let list = configured(
            "[[tests.dnsbl.list]]\nzone = \"bl.example\"\nerrors = [\"127.0.0.&1\"]\n\
             url = \"https://bl.example/?a={address}\"\n",
        );
        assert_eq!(judge(&list, &[[127, 0, 0, 3]]), Said::Bad(BadAnswer::Configured([127, 0, 0, 3].into())));
        assert!(matches!(judge(&list, &[[127, 0, 0, 2]]), Said::Listed { .. }));
        let url = list.url("::ffff:192.0.2.7".parse().unwrap());
        assert_eq!(url.as_deref(), Some("https://bl.example/?a=192.0.2.7"));
    }

    #[test]
    fn a_list_of_domains_is_told_from_a_listing() {
        assert_eq!(judge(&plain(3), &[[127, 0, 1, 255]]), Said::Bad(BadAnswer::OfDomains));
        assert!(plain(3).is_parked_for(BadAnswer::OfDomains));
    }

    #[test]
    fn a_list_without_test_points_is_not_parked_for_one_127_0_0_1() {
        let with = plain(3);
        assert!(with.is_parked_for(BadAnswer::Loopback) && !with.is_parked_for(BadAnswer::Everybody));
        let without = configured("[[tests.dnsbl.list]]\nzone = \"bl.example\"\ntest_points = false\n");
        assert!(!without.is_parked_for(BadAnswer::Loopback));
        assert_eq!(judge(&without, &[[127, 0, 0, 1]]), Said::Bad(BadAnswer::Loopback), "and it is no listing");
    }

    #[test]
    fn postscreens_syntax_makes_one_list_of_a_zone() {
        let text = "[tests.dnsbl]\nsites = [\"zen.example=127.0.0.[2..3]*3, zen.example=127.0.0.[10;11]\", \
                    \"wl.example*-2\", \"any.example*2\", \"any.example=127.0.0.4\"]\n";
        let config = Config::parse(text, "test").unwrap();
        let lists: Vec<_> = config.tests.dnsbl.lists.iter().map(|list| List::configured(list).unwrap()).collect();
        assert_eq!(
            lists.iter().map(|list| &**list.name()).collect::<Vec<_>>(),
            ["zen.example", "wl.example", "any.example"]
        );
        assert!(matches!(judge(&lists[0], &[[127, 0, 0, 2], [127, 0, 0, 10]]), Said::Listed { weight: 4, .. }));
        assert_eq!(judge(&lists[0], &[[127, 0, 0, 4]]), Said::NotListed);
        assert!(matches!(judge(&lists[1], &[[127, 0, 0, 4]]), Said::Listed { weight: -2, .. }));
        assert!(matches!(judge(&lists[2], &[[127, 0, 0, 4]]), Said::Listed { weight: 3, .. }));
        for bad in ["zen.example*x", "zen.example*0", "=127.0.0.2", "a b=*3", "zen_example=127.0.0.[3..2]*2"] {
            let config = Config::parse(&format!("[tests.dnsbl]\nsites = [\"{bad}\"]\n"), "s.toml");
            let made = config.and_then(|config| {
                config.tests.dnsbl.lists.iter().try_for_each(|list| List::configured(list).map(drop))
            });
            let error = made.unwrap_err();
            assert!(error.to_string().starts_with("s.toml:2:"), "{bad}: {error}");
        }
    }

    #[test]
    fn weights_stop_at_the_ends() {
        let greedy = codes(&[("127.0.0.2", i32::MAX), ("127.0.0.[2..3]", i32::MAX)]);
        let greedy = list(1, greedy, &BOTH);
        assert!(matches!(judge(&greedy, &[[127, 0, 0, 2]]), Said::Listed { weight: i32::MAX, .. }));
        assert_eq!(greedy.range(), (0, i32::MAX));
    }
}
