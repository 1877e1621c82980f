//! `[tests.dnsbl]`: the lists, what they weigh, and the keys in their names.

use std::collections::BTreeMap;

use super::super::lines::words;
use super::draft::{self, Setting, list, quoted};
use super::reply_map::Shown;
use super::values::{self, Kind};
use super::{Import, Taken};

/// How long we wait for the lists at the least.
const SHORTEST_DEADLINE: u64 = 1;

impl Import<'_> {
    pub(super) fn lists(&mut self) {
        let name = "postscreen_dnsbl_sites";
        let Some(sites) = self.value(name) else { return };
        let shown = self.reply_map();
        let sites = words(&sites);
        if sites.is_empty() {
            // Without a list there is no test, here as there.
            return OF_LISTS.iter().for_each(|name| self.see(name));
        }
        self.same("postscreen_dnsbl_action", Kind::Action, "tests.dnsbl", "action");
        self.same("postscreen_dnsbl_threshold", Kind::Number, "tests.dnsbl", "threshold");
        self.allow_threshold();
        let ttls = [
            self.setting("postscreen_dnsbl_min_ttl", Kind::Time('s'), "tests.dnsbl", "min_ttl"),
            self.setting("postscreen_dnsbl_max_ttl", Kind::Time('h'), "tests.dnsbl", "max_ttl"),
        ];
        // One may lie beyond the other's default.
        self.take("postscreen_dnsbl_min_ttl, postscreen_dnsbl_max_ttl", ttls.into_iter().flatten().collect());
        self.deadline();
        OF_LISTS.iter().for_each(|name| self.see(name));
        self.sites(&sites, &shown);
    }

    /// The lists wait for their answers as long as for the greeting.
    fn deadline(&mut self) {
        let name = "postscreen_greet_wait";
        let Ok(wait) = self.parameters.value(name) else { return };
        if let Ok(seconds) = values::seconds(wait.trim(), 's') {
            let value = quoted(&format!("{}s", seconds.max(SHORTEST_DEADLINE)));
            self.take(name, vec![Setting { table: "tests.dnsbl", key: "deadline", value, from: name.to_owned() }]);
        }
    }

    fn allow_threshold(&mut self) {
        let name = "postscreen_dnsbl_allowlist_threshold";
        let Some(value) = self.value(name) else { return };
        match values::number(&value) {
            // Only what is below zero excuses anybody.
            Ok(number) => {
                let value = number.min(0).to_string();
                self.take(
                    name,
                    vec![Setting { table: "tests.dnsbl", key: "allow_threshold", value, from: name.to_owned() }],
                );
            }
            Err(why) => {
                let nobody = Setting {
                    table: "tests.dnsbl",
                    key: "allow_threshold",
                    value: "0".to_owned(),
                    from: name.to_owned(),
                };
                self.take(name, vec![nobody]);
                self.leave(
                    name,
                    format!("'{value}' {why}, and Postfix itself would refuse it: no allow list excuses anybody now"),
                );
            }
        }
    }

    /// Which name is shown for which.
    fn reply_map(&mut self) -> Shown {
        let name = "postscreen_dnsbl_reply_map";
        let mut shown = Shown::default();
        let Some(map) = self.value(name) else { return shown };
        for word in words(&map) {
            if let Err(why) = shown.read(word, self.host.files) {
                self.leave(
                    name,
                    format!(
                        "'{}': {why}. Until then secret names of lists are shown as they are: write such a list as a \
                         [[tests.dnsbl.list]] with zone = \"{{key}}.…\" and key = \"…\"",
                        named(word)
                    ),
                );
            }
        }
        shown
    }

    fn sites(&mut self, sites: &[&str], shown: &Shown) {
        let name = "postscreen_dnsbl_sites";
        let mut plain: Vec<String> = Vec::new();
        let mut keyed: BTreeMap<String, Vec<Site>> = BTreeMap::new();
        for &text in sites {
            let Some(site) = Site::read(text) else {
                let weight = text.split_once('*').map_or("", |(_, weight)| weight);
                self.leave(name, format!("'{weight}' is a weight and no number, and Postfix itself would refuse it"));
                continue;
            };
            let zone = site.zone.to_ascii_lowercase();
            let secret = shown.of(&zone).is_some_and(|shown| !shown.eq_ignore_ascii_case(&zone));
            if site.weight == 0 {
                let which = if secret { "a list with a key" } else { text };
                self.leave(name, format!("{which} weighs 0 and decides nothing: leave it out"));
            } else if secret {
                keyed.entry(zone).or_default().push(site);
            } else {
                match draft::check(&format!("[tests.dnsbl]\nsites = [{}]\n", quoted(text))) {
                    Ok(()) => plain.push(text.to_owned()),
                    Err(why) => self.leave(name, format!("{why}; write it as a [[tests.dnsbl.list]]")),
                }
            }
        }
        if !plain.is_empty() {
            let value = list(plain);
            self.take(name, vec![Setting { table: "tests.dnsbl", key: "sites", value, from: name.to_owned() }]);
        }
        for (zone, sites) in keyed {
            self.keyed(&zone, &sites, &shown.of(&zone).unwrap_or_default());
        }
    }

    /// A list with a secret in its name.
    fn keyed(&mut self, zone: &str, sites: &[Site], shown: &str) {
        let name = "postscreen_dnsbl_sites";
        // The key is what stands before the name that is shown, or else the first label.
        let rest = zone.strip_suffix(shown).and_then(|before| before.strip_suffix('.'));
        let (key, rest) = match rest {
            Some(key) if !key.is_empty() => (key, shown),
            _ => zone.split_once('.').unwrap_or((zone, "")),
        };
        let mut block = format!(
            "[[tests.dnsbl.list]]  # {name}, postscreen_dnsbl_reply_map\nzone = {}\nkey = {}\n",
            quoted(&format!("{{key}}.{rest}")),
            quoted(key)
        );
        match sites {
            [Site { filter: None, weight, .. }] => block += &format!("weight = {weight}\n"),
            several => {
                let codes = several.iter().map(|site| {
                    format!("{} = {}", quoted(site.filter.as_deref().unwrap_or("127.0.0.0/8")), site.weight)
                });
                block += &format!("codes = {{ {} }}\n", codes.collect::<Vec<_>>().join(", "));
            }
        }
        match self.draft.block(block) {
            Ok(()) => {
                self.taken.push(Taken {
                    parameter: name.to_owned(),
                    setting: format!("[[tests.dnsbl.list]] {{key}}.{rest}"),
                });
                if !shown.eq_ignore_ascii_case(rest) {
                    self.note(format!("replies and logs show {rest} for {shown}: the name without its key"));
                }
            }
            Err(why) => self.leave(name, format!("the list {rest} with its key: {why}")),
        }
    }
}

/// A table as it may be shown. What is no file is the table itself, and holds the names that it is to hide.
fn named(table: &str) -> String {
    match table.split_once(':') {
        Some((_, path)) if path.starts_with('/') => crate::feed::quoted(table),
        Some((kind, _)) => format!("{}:…", crate::feed::quoted(kind)),
        None => "…".to_owned(),
    }
}

/// The parameters that mean nothing without a list.
const OF_LISTS: [&str; 6] = [
    "postscreen_dnsbl_action",
    "postscreen_dnsbl_threshold",
    "postscreen_dnsbl_allowlist_threshold",
    "postscreen_dnsbl_min_ttl",
    "postscreen_dnsbl_max_ttl",
    "postscreen_dnsbl_reply_map",
];

/// `domain=filter*weight`.
struct Site {
    zone: String,
    filter: Option<String>,
    weight: i64,
}

impl Site {
    /// `None`: the weight is no number.
    fn read(text: &str) -> Option<Self> {
        let (rest, weight) = match text.split_once('*') {
            Some((rest, weight)) => (rest, weight.parse().ok()?),
            None => (text, 1),
        };
        let (zone, filter) =
            rest.split_once('=').map_or((rest, None), |(zone, filter)| (zone, Some(filter.to_owned())));
        Some(Self { zone: zone.to_owned(), filter, weight })
    }
}
