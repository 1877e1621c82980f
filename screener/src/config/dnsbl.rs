//! The rules about `[tests.dnsbl]`: its lists, and the lists that are written as postscreen writes them.
//!
//! Knows what a code filter looks like; what it means is known to `dnsbl/`.

use std::ops::Range;
use std::time::Duration;

use super::check::{Judge, LONGEST_WAIT, SECOND, YEARS, resolver_address};
use super::raw::{At, DnsList as RawList, Dnsbl as RawDnsbl, Tests};
use super::tree::{Code, DnsList, DnsblTest, ErrorCode};
use super::value::{Family, ListLevel, Zone};

/// Matches whatever a list can answer: what a site of postscreen's without a filter means.
const ANY: &str = "127.0.0.0/8";

/// The zones before whose names each customer has a key.
const WITH_KEYS: [&str; 2] = [".dq.spamhaus.net", ".mail.abusix.zone"];

/// What is worth knowing about the lists though nothing is wrong.
pub(super) fn notes(test: &DnsblTest) -> Vec<String> {
    let mut notes = Vec::new();
    let most = |list: &DnsList| {
        let all = list.codes.iter().map(|code| code.weight).filter(|&weight| weight > 0);
        if list.codes.is_empty() { list.weight.max(0) } else { all.fold(0, i32::saturating_add) }
    };
    let scoring = || test.lists.iter().filter(|list| list.level == ListLevel::Score);
    let reach = scoring().map(most).fold(0, i32::saturating_add);
    if scoring().next().is_some() && reach < test.threshold {
        notes.push(format!(
            "tests.dnsbl: nobody can fail: all lists together reach {reach}, the threshold is {}",
            test.threshold
        ));
    }
    // What `dnsbl/` believes of no list, whatever the filter says.
    let never = |code: &&Code| code.filter == "127.0.0.1" || code.filter.starts_with("127.255.255.");
    for list in &test.lists {
        for code in list.codes.iter().filter(never) {
            notes.push(format!(
                "tests.dnsbl: {}: {} counts nothing: it is an error, not a listing",
                list.zone, code.filter
            ));
        }
    }
    for list in test.lists.iter().filter(|list| list.zone.key().is_none()) {
        let label = list.zone.label();
        let rest = label.split_once('.').map(|(_, rest)| rest);
        if let Some(rest) = rest.filter(|rest| WITH_KEYS.iter().any(|zone| rest.ends_with(zone))) {
            notes.push(format!(
                "tests.dnsbl: ….{rest}: what stands before that is a key, and everybody who is refused gets to see it: write \
                 zone = \"{{key}}.{rest}\" and key = \"…\""
            ));
        }
    }
    for list in test.lists.iter().filter(|list| list.level != ListLevel::Score) {
        let what = if list.level == ListLevel::Count { "counted and not scored" } else { "not asked" };
        notes.push(format!("tests.dnsbl: {} is {what}: level = \"{}\"", list.zone, list.level));
    }
    notes
}

impl Judge<'_, '_> {
    pub(super) fn dnsbl(&mut self, raw: &Tests) -> DnsblTest {
        let raw = &raw.dnsbl;
        let allow: i32 = self.number(&raw.allow_threshold, -1_000..=0, "; 0 excuses nobody");
        let mut test = DnsblTest {
            action: self.word(&raw.action),
            threshold: self.number(&raw.threshold, 1..=1_000, ": a client without any listing must not fail"),
            allow_threshold: (allow < 0).then_some(allow),
            deadline: self.duration(&raw.deadline, Duration::from_millis(100)..=LONGEST_WAIT),
            min_ttl: self.duration(&raw.min_ttl, SECOND..=YEARS),
            max_ttl: self.duration(&raw.max_ttl, SECOND..=YEARS),
            resolvers: self.each(&raw.resolvers, resolver_address),
            cache: self.number(
                &raw.cache,
                1_000..=100_000_000,
                " answers: \"not listed\" takes about 50 bytes, a listing with its text about 500",
            ),
            lists: Vec::new(),
        };
        let mut lists: Vec<_> = raw.list.iter().filter_map(|list| self.dns_list(list, &test)).collect();
        lists.extend(self.sites(raw, &test));
        self.twice(lists.iter().map(|(span, list)| (list.zone.label(), span.clone())), |zone| {
            format!("the list {zone} stands here twice: put its weights into one `codes` table")
        });
        test.lists = lists.into_iter().map(|(_, list)| list).collect();
        test
    }

    fn dns_list(&mut self, list: &At<RawList>, test: &DnsblTest) -> Option<(Range<usize>, DnsList)> {
        let raw = list.get_ref();
        let weight: i32 = self.number(&raw.weight, -1_000..=1_000, "");
        if *raw.weight.get_ref() == 0 {
            self.refuse(raw.weight.span(), "a weight of 0 counts nothing: remove the list or give it a weight");
        }
        let mut codes: Vec<_> = raw.codes.iter().filter_map(|(filter, weight)| self.code(filter, weight)).collect();
        codes.sort_by_key(|code| (code.place.line, code.place.column));
        if raw.families.get_ref().is_empty() {
            self.refuse(raw.families.span(), "empty: name \"ipv4\", \"ipv6\" or both");
        }
        let families = raw.families.get_ref().iter().map(|family| self.word(family)).collect();
        let mut errors = Vec::new();
        for filter in raw.errors.get_ref() {
            if self.filter(filter) {
                let place = self.source.place(&filter.span());
                errors.push(ErrorCode { filter: filter.get_ref().clone(), place });
            }
        }
        let mut span_of = |value: &Option<At<String>>, range, default| {
            value.as_ref().map_or(default, |value| self.duration(value, range))
        };
        let min_ttl = span_of(&raw.min_ttl, SECOND..=YEARS, test.min_ttl);
        let max_ttl = span_of(&raw.max_ttl, SECOND..=YEARS, test.max_ttl);
        let deadline = span_of(&raw.deadline, Duration::from_millis(100)..=LONGEST_WAIT, test.deadline);
        let content = self.is_content();
        let ttls = raw.min_ttl.as_ref().or(raw.max_ttl.as_ref());
        if let Some(ttl) = ttls.filter(|_| content && min_ttl > max_ttl) {
            let [least, most] = [min_ttl, max_ttl].map(humantime::format_duration);
            self.refuse(ttl.span(), format!("min_ttl ({least}) is longer than max_ttl ({most}): swap or change them"));
        }
        if let Some(longer) = raw.deadline.as_ref().filter(|_| content && deadline > test.deadline) {
            let most = humantime::format_duration(test.deadline);
            self.refuse(longer.span(), format!("longer than tests.dnsbl.deadline ({most}), after which nobody waits"));
        }
        let url = raw.url.as_ref().and_then(|url| self.with(url, url_template));
        let level = self.word(&raw.level);
        if let Some(key) = raw.key.as_ref().filter(|key| !Zone::is_key(key.get_ref())) {
            // Not what stands there: it is secret all the same.
            self.refuse(
                key.span(),
                "this cannot be a key: it stands in a name, so write letters, digits and hyphens only",
            );
            return None;
        }
        let zone = self.with(&raw.zone, |zone| Zone::new(zone, raw.key.as_ref().map(|key| key.get_ref().clone())))?;
        let span = raw.zone.span();
        let place = self.source.place(&span);
        let list = DnsList {
            zone,
            weight,
            codes,
            families,
            level,
            errors,
            min_ttl,
            max_ttl,
            deadline,
            url,
            text: raw.text,
            test_points: raw.test_points,
            place,
        };
        Some((span, list))
    }

    /// `domain=filter*weight`, one or several in a text. A zone that stands here more than once is one list: postscreen
    /// asks it once and counts each entry once.
    fn sites(&mut self, raw: &RawDnsbl, test: &DnsblTest) -> Vec<(Range<usize>, DnsList)> {
        let mut lists: Vec<(Range<usize>, DnsList)> = Vec::new();
        for text in raw.sites.get_ref() {
            let entries = text.get_ref().split(|c: char| c == ',' || c.is_whitespace());
            for entry in entries.filter(|entry| !entry.is_empty()) {
                let Some((zone, filter, weight)) = self.with(text, |_| site(entry)) else { continue };
                let place = self.source.place(&text.span());
                let whole = filter.is_none();
                let code = Code { filter: filter.unwrap_or(ANY).to_owned(), weight, place: place.clone() };
                match lists.iter_mut().find(|(_, list)| list.zone == zone) {
                    Some((_, list)) => {
                        if list.codes.is_empty() {
                            let place = list.place.clone();
                            list.codes.push(Code { filter: ANY.to_owned(), weight: list.weight, place });
                        }
                        list.codes.push(code);
                    }
                    None => lists.push((
                        text.span(),
                        DnsList {
                            zone,
                            weight,
                            codes: if whole { Vec::new() } else { vec![code] },
                            families: vec![Family::Ipv4, Family::Ipv6],
                            level: ListLevel::Score,
                            errors: Vec::new(),
                            min_ttl: test.min_ttl,
                            max_ttl: test.max_ttl,
                            deadline: test.deadline,
                            url: None,
                            text: true,
                            test_points: true,
                            place,
                        },
                    )),
                }
            }
        }
        lists
    }

    fn code(&mut self, filter: &At<String>, weight: &At<i64>) -> Option<Code> {
        let weight = self.number(weight, -1_000..=1_000, "");
        let place = self.source.place(&filter.span());
        self.filter(filter).then(|| Code { filter: filter.get_ref().clone(), weight, place })
    }

    fn filter(&mut self, filter: &At<String>) -> bool {
        let text = filter.get_ref();
        let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b".[];,&/".contains(&b));
        if !good {
            let message =
                format!("{text:?} is no answer of a DNS list: write it like \"127.0.0.2\" or \"127.0.0.[4..7]\"");
            self.refuse(filter.span(), message);
        }
        good
    }
}

/// The parts of `domain=filter*weight`: split at the first `*`, then at the first `=`, as postscreen does.
fn site(entry: &str) -> Result<(Zone, Option<&str>, i32), String> {
    let (rest, weight) = match entry.split_once('*') {
        None => (entry, 1),
        Some((rest, weight)) => {
            let number = weight.parse().ok().filter(|number| (-1_000..=1_000).contains(number) && *number != 0);
            (rest, number.ok_or_else(|| format!("{entry:?}: the weight is a number from -1000 to 1000, and not 0"))?)
        }
    };
    let (domain, filter) = rest.split_once('=').map_or((rest, None), |(domain, filter)| (domain, Some(filter)));
    if domain.contains(Zone::SLOT) {
        return Err(format!(
            "{entry:?}: a list with a key is a [[tests.dnsbl.list]] with zone = {domain:?} and key = \"…\""
        ));
    }
    Ok((Zone::new(domain, None)?, filter, weight))
}

/// A URL to be shown in replies and logs.
fn url_template(text: &str) -> Result<String, String> {
    let is_url = text.starts_with("https://") || text.starts_with("http://");
    let one_word = text.bytes().all(|b| b.is_ascii_graphic() && b != b';' && b != b'"');
    let rest = text.replacen("{address}", "", 1);
    if is_url && one_word && text.len() <= 200 && !rest.contains(['{', '}']) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is no URL to show: write it like \"https://check.example.org/{{address}}\""))
    }
}
