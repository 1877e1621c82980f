//! The set by example, and against a list that is searched from end to end.

use proptest::prelude::*;

use super::*;
use crate::feed::DenyAction;
use StaticAction::{Deny, Permit};

const NOW: UnixTime = UnixTime(1_800_000_000);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn feed(name: &str) -> Source {
    Source::Feed(name.into())
}

fn entry(prefix: &str, action: StaticAction, source: Source) -> Entry {
    Entry { prefix: net(prefix), action, source, comment: None, added: NOW }
}

fn deny(prefix: &str) -> Entry {
    entry(prefix, Deny(DenyAction::Drop), Source::Cli)
}

fn permit(prefix: &str) -> Entry {
    entry(prefix, Permit, Source::Config)
}

fn set(entries: impl IntoIterator<Item = Entry>) -> StaticSet {
    let mut set = StaticSet::new();
    for entry in entries {
        set.insert_forced(entry).unwrap();
    }
    set
}

fn decides(set: &StaticSet, address: &str) -> Option<(String, StaticAction)> {
    set.lookup(ip(address)).map(|found| (found.prefix.to_string(), found.action))
}

#[test]
fn a_permit_beats_every_deny_and_among_denies_the_longest_wins() {
    let set = set([
        deny("198.51.100.0/24"),
        entry("198.51.100.128/25", Deny(DenyAction::Tag), Source::Config),
        permit("198.51.100.192/26"),
        deny("198.51.100.200/32"),
    ]);
    let drop = Deny(DenyAction::Drop);
    assert_eq!(decides(&set, "198.51.100.1"), Some(("198.51.100.0/24".to_owned(), drop)));
    assert_eq!(decides(&set, "198.51.100.129"), Some(("198.51.100.128/25".to_owned(), Deny(DenyAction::Tag))));
    assert_eq!(decides(&set, "198.51.100.200"), Some(("198.51.100.192/26".to_owned(), Permit)));
    assert_eq!(decides(&set, "198.51.101.1"), None);
    assert_eq!(set.longest_deny(ip("198.51.100.200")).unwrap().prefix, net("198.51.100.200/32"));
    assert_eq!(set.longest_permit(ip("198.51.100.200")).unwrap().prefix, net("198.51.100.192/26"));
    assert_eq!(set.covering(ip("198.51.100.200")).len(), 4);
}

#[test]
fn ipv4_mapped_addresses_and_prefixes_are_ipv4() {
    let set = set([deny("::ffff:198.51.100.0/120"), deny("2001:db8::/32")]);
    assert_eq!(decides(&set, "198.51.100.9").unwrap().0, "198.51.100.0/24");
    assert_eq!(decides(&set, "::ffff:198.51.100.9").unwrap().0, "198.51.100.0/24");
    assert_eq!(decides(&set, "2001:db8:9::1").unwrap().0, "2001:db8::/32");
    let mut set = set;
    assert!(set.remove(net("::ffff:198.51.100.0/120"), &Source::Cli).is_some());
}

#[test]
fn bits_behind_the_length_are_refused_with_what_was_meant() {
    let mut set = StaticSet::new();
    for force in [false, true] {
        let error = set.put(deny("31.13.0.77/16"), force).unwrap_err().to_string();
        assert!(error.contains("31.13.0.0/16") && error.contains("31.13.0.77/32"), "{error}");
    }
    let error = set.insert(permit("2001:db8::1/64")).unwrap_err().to_string();
    assert!(error.contains("2001:db8::/64"), "{error}");
    assert!(set.is_empty());
}

#[test]
fn a_deny_that_covers_a_permit_is_refused_and_says_which() {
    let mut set = StaticSet::new();
    set.insert(entry("198.51.100.7/32", Permit, Source::OwnAddress)).unwrap();
    set.insert(entry("198.51.100.64/26", Permit, Source::OwnNetwork)).unwrap();
    for host in 200..203 {
        set.insert(permit(&format!("198.51.100.{host}/32"))).unwrap();
    }
    let error = set.insert(deny("198.51.100.0/24")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "denying 198.51.100.0/24 would cover 198.51.100.7/32 (own_address), 198.51.100.64/26 (own_network), \
         198.51.100.200/32 (config) and 2 more: leave those out, or use `screener deny add --force` (permits still win)"
    );
    assert!(set.insert(deny("198.51.100.7/32")).is_err(), "the same prefix is covered too");
    assert!(set.insert(deny("198.51.100.8/32")).is_ok());

    assert_eq!(set.insert_forced(deny("198.51.100.0/24")), Ok(None));
    assert_eq!(decides(&set, "198.51.100.7").unwrap().1, Permit);
    assert_eq!(decides(&set, "198.51.100.1").unwrap().1, Deny(DenyAction::Drop));
}

#[test]
fn a_deny_that_is_too_wide_needs_force_and_a_permit_does_not() {
    let mut set = StaticSet::new();
    assert_eq!(set.insert(deny("10.0.0.0/8")), Ok(None));
    assert_eq!(set.insert(deny("2001::/16")), Ok(None));
    assert_eq!(set.insert(deny("12.0.0.0/7")), Err(Refused::TooWide { prefix: net("12.0.0.0/7"), widest: 8 }));
    assert_eq!(set.insert(deny("::/0")), Err(Refused::TooWide { prefix: net("::/0"), widest: 16 }));
    assert_eq!(set.insert_forced(deny("12.0.0.0/7")), Ok(None));
    assert_eq!(set.insert(permit("0.0.0.0/0")), Ok(None));
}

#[test]
fn what_one_source_says_goes_without_what_another_says() {
    let mut set = StaticSet::new();
    let prefix = "198.51.100.0/24";
    set.insert(entry(prefix, Deny(DenyAction::Drop), feed("drop-v4"))).unwrap();
    set.insert(entry(prefix, Deny(DenyAction::Reject), feed("level1"))).unwrap();
    set.insert(entry(prefix, Deny(DenyAction::Tag), Source::Cli)).unwrap();
    let action = |set: &StaticSet| decides(set, "198.51.100.1").map(|(_, action)| action);
    assert_eq!((set.len(), action(&set)), (3, Some(Deny(DenyAction::Tag))), "the operator's word");

    assert!(set.remove(net(prefix), &Source::Cli).is_some());
    assert_eq!(action(&set), Some(Deny(DenyAction::Drop)), "the harder of two feeds");
    assert_eq!(set.remove(net(prefix), &Source::Cli), None);
    let removed = set.remove(net(prefix), &feed("drop-v4"));
    assert_eq!(removed, Some(entry(prefix, Deny(DenyAction::Drop), feed("drop-v4"))));
    assert_eq!(action(&set), Some(Deny(DenyAction::Reject)));
    set.remove(net(prefix), &feed("level1"));
    assert_eq!((set.len(), action(&set), set.entries().count()), (0, None, 0));
}

#[test]
fn an_entry_of_the_same_source_is_replaced_and_its_prefix_keeps_its_hits() {
    let mut set = set([deny("198.51.100.0/24")]);
    set.hit(ip("198.51.100.1"), 5, NOW, |_| {});
    let new = Entry { comment: Some("again".to_owned()), ..deny("198.51.100.0/24") };
    assert_eq!(set.insert(new.clone()), Ok(Some(deny("198.51.100.0/24"))));
    let found = set.lookup(ip("198.51.100.1")).unwrap();
    assert_eq!((found.to_entry(), found.hits, found.last_seen), (new, 5, Some(NOW)));
    assert_eq!(set.len(), 1);
}

#[test]
fn a_hit_counts_for_the_prefix_that_decides() {
    let set = set([deny("198.51.100.0/24"), deny("198.51.100.128/25"), permit("203.0.113.0/24")]);
    assert_eq!(set.hit(ip("198.51.100.130"), 16, NOW, |_| {}), Some(net("198.51.100.128/25")));
    assert_eq!(set.hit(ip("198.51.100.131"), 16, UnixTime(NOW.0 - 9), |_| {}), Some(net("198.51.100.128/25")));
    assert_eq!(set.hit(ip("198.51.100.1"), 1, NOW, |_| {}), Some(net("198.51.100.0/24")));
    assert_eq!(set.hit(ip("192.0.2.1"), 1, NOW, |_| {}), None);
    let counters: Vec<_> = set.entries().map(|entry| (entry.prefix.to_string(), entry.hits, entry.last_seen)).collect();
    assert_eq!(
        counters,
        [
            ("198.51.100.0/24".to_owned(), 1, Some(NOW)),
            ("198.51.100.128/25".to_owned(), 32, Some(NOW)),
            ("203.0.113.0/24".to_owned(), 0, None),
        ]
    );
}

#[test]
fn a_dry_run_lifts_nothing_that_it_lies_upon_and_is_credited_all_the_same() {
    let count = |prefix| entry(prefix, Deny(DenyAction::Count), Source::Cli);
    let drop = Deny(DenyAction::Drop);
    let from_feed = |prefix| entry(prefix, drop, feed("drop-v4"));
    let set = set([from_feed("198.51.100.0/24"), count("198.51.100.128/25"), count("203.0.113.0/24")]);
    assert_eq!(decides(&set, "198.51.100.130"), Some(("198.51.100.0/24".to_owned(), drop)));
    assert_eq!(decides(&set, "203.0.113.1").map(|(_, action)| action), Some(Deny(DenyAction::Count)));
    set.hit(ip("198.51.100.130"), 2, NOW, |_| {});
    assert_eq!(set.entries().map(|entry| entry.hits).collect::<Vec<_>>(), [2, 2, 0]);
}

#[test]
fn sources_are_written_as_lists_show_them() {
    let sources = [Source::Cli, Source::OwnNetwork, feed("drop-v4")];
    assert_eq!(serde_json::to_string(&sources).unwrap(), r#"["cli","own_network","feed:drop-v4"]"#);
}

/// Prefixes that meet each other often: a few bits of one /24, or of one /32 of IPv6.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u8>(), 20..=32_u8).prop_map(|(last, length)| IpNet::new(ip(&format!("198.51.100.{last}")), length));
    let v6 = (0..16_u16, 28..=64_u8).prop_map(|(bits, length)| IpNet::new(ip(&format!("2001:db8:{bits:x}::")), length));
    prop_oneof![3 => v4, 1 => v6].prop_map(|prefix| prefix.unwrap().trunc())
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        3 => any::<u8>().prop_map(|last| ip(&format!("198.51.100.{last}"))),
        1 => any::<u8>().prop_map(|last| ip(&format!("::ffff:198.51.100.{last}"))),
        1 => (0..16_u16).prop_map(|bits| ip(&format!("2001:db8:{bits:x}::5"))),
    ]
}

fn action() -> impl Strategy<Value = StaticAction> {
    prop::sample::select(vec![
        Permit,
        Deny(DenyAction::Drop),
        Deny(DenyAction::Reject),
        Deny(DenyAction::Tag),
        Deny(DenyAction::Count),
    ])
}

fn source() -> impl Strategy<Value = Source> {
    prop::sample::select(vec![Source::Cli, Source::Config, Source::OwnNetwork, feed("a"), feed("b")])
}

#[derive(Clone, Debug)]
enum Step {
    Insert(IpNet, StaticAction, Source),
    Force(IpNet, StaticAction, Source),
    Remove(IpNet, Source),
    Hit(IpAddr, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (prefix(), action(), source()).prop_map(|(prefix, action, source)| Step::Insert(prefix, action, source)),
        3 => (prefix(), action(), source()).prop_map(|(prefix, action, source)| Step::Force(prefix, action, source)),
        3 => (prefix(), source()).prop_map(|(prefix, source)| Step::Remove(prefix, source)),
        1 => (address(), any::<u8>()).prop_map(|(address, weight)| Step::Hit(address, weight)),
    ]
}

/// The same set as a list.
#[derive(Default)]
struct Model {
    entries: Vec<(IpNet, StaticAction, Source)>,
}

impl Model {
    fn insert(&mut self, prefix: IpNet, action: StaticAction, source: &Source) {
        self.remove(prefix, source);
        self.entries.push((prefix, action, source.clone()));
    }

    fn remove(&mut self, prefix: IpNet, source: &Source) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(other, _, by)| (other, by) != (&prefix, source));
        self.entries.len() < before
    }

    fn covers_permit(&self, prefix: IpNet) -> bool {
        self.entries.iter().any(|(other, action, _)| *action == Permit && prefix.contains(other))
    }

    fn lookup(&self, address: IpAddr) -> Option<(IpNet, StaticAction)> {
        let severity = |action| match action {
            Deny(DenyAction::Drop) => 4,
            Deny(DenyAction::Reject) => 3,
            Deny(DenyAction::Tag) => 2,
            _ => 1,
        };
        let trust = |source: &Source| match source {
            Source::Cli => 4,
            Source::Config => 3,
            Source::OwnNetwork | Source::OwnAddress => 2,
            Source::Feed(_) => 1,
        };
        let covering = self.entries.iter().filter(|(prefix, ..)| prefix.contains(&address.to_canonical()));
        let best = covering.max_by_key(|(prefix, action, source)| {
            let dry_run = *action == Deny(DenyAction::Count);
            (*action == Permit, !dry_run, prefix.prefix_len(), trust(source), severity(*action))
        });
        best.map(|(prefix, action, _)| (*prefix, *action))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_set_says_what_a_search_through_a_list_says(
        steps in proptest::collection::vec(step(), 1..80),
        addresses in proptest::collection::vec(address(), 40),
    ) {
        let mut set = StaticSet::new();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Insert(prefix, action, source) => {
                    let entry = Entry { prefix, action, source: source.clone(), comment: None, added: NOW };
                    let refused = action != Permit && model.covers_permit(prefix);
                    prop_assert_eq!(set.insert(entry).is_err(), refused);
                    if !refused {
                        model.insert(prefix, action, &source);
                    }
                }
                Step::Force(prefix, action, source) => {
                    let entry = Entry { prefix, action, source: source.clone(), comment: None, added: NOW };
                    prop_assert!(set.insert_forced(entry).is_ok());
                    model.insert(prefix, action, &source);
                }
                Step::Remove(prefix, source) => {
                    prop_assert_eq!(set.remove(prefix, &source).is_some(), model.remove(prefix, &source));
                }
                Step::Hit(address, weight) => {
                    let credited = set.hit(address, weight.into(), NOW, |_| {});
                    prop_assert_eq!(credited, model.lookup(address).map(|(prefix, _)| prefix));
                }
            }
        }
        prop_assert_eq!(set.len(), model.entries.len());
        prop_assert_eq!(set.entries().count(), model.entries.len());
        let effective: Vec<_> = set.effective().collect();
        for address in addresses {
            let found = set.lookup(address).map(|found| (found.prefix, found.action));
            prop_assert_eq!(found, model.lookup(address), "{}", address);
            let covering = effective.iter().filter(|(prefix, _)| prefix.contains(&address.to_canonical()));
            let dry_run = |action: StaticAction| action == Deny(DenyAction::Count);
            let first = covering.max_by_key(|(prefix, action)| (*action == Permit, !dry_run(*action), prefix.prefix_len()));
            prop_assert_eq!(first.map(|(_, action)| *action), found.map(|(_, action)| action), "{}", address);
        }
        let mut mirrored: Vec<_> = effective.iter().map(|(prefix, action)| (*prefix, *action == Permit)).collect();
        for (prefix, action) in &effective {
            let exactly = if *action == Permit { set.permits_exactly(*prefix).then_some(Permit) } else { set.denies_exactly(*prefix) };
            prop_assert_eq!(exactly, Some(*action));
        }
        mirrored.sort_unstable();
        mirrored.dedup();
        prop_assert_eq!(mirrored.len(), effective.len());
        let denies = set.entries().filter(|entry| entry.action != Permit).count();
        prop_assert_eq!(set.denies(), denies);
    }
}

#[test]
fn a_gateway_is_guarded_like_a_permit() {
    let mut set = StaticSet::new();
    set.guard_gateways(vec![ip("192.0.2.1"), ip("fe80::1")]);
    let error = set.insert(deny("192.0.2.0/24")).unwrap_err().to_string();
    assert!(error.contains("would cover 192.0.2.1 (gateway): leave"), "{error}");
    assert!(set.insert(deny("192.0.2.128/25")).is_ok());
    let error = set.judge(&[net("198.51.100.0/24"), net("192.0.2.1/32")]).unwrap_err().to_string();
    assert!(error.contains("192.0.2.1/32 (gateway) by 192.0.2.1/32"), "{error}");
}

#[test]
fn a_list_shares_what_its_entries_have_in_common_and_can_be_taken_back() {
    let mut set = set([deny("198.51.100.0/24"), permit("192.0.2.0/24")]);
    let origin = Arc::new(Origin { source: Source::Cli, comment: Some("list".into()), added: NOW });
    let list = ["198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"].map(net);
    let say = |set: &mut StaticSet| -> Vec<_> {
        let said =
            list.iter().filter_map(|&net| Some((net, set.say(net, Deny(DenyAction::Reject), &origin).unwrap()?)));
        said.collect()
    };
    let before: Vec<_> = set.entries().map(|entry| entry.to_entry()).collect();
    let said = say(&mut set);
    let old: Vec<_> = said.iter().map(|(_, said)| said.action()).collect();
    assert_eq!(old, [Some(Deny(DenyAction::Drop)), None, None]);
    assert_eq!((set.len(), set.denies(), Arc::strong_count(&origin)), (4, 3, 4));
    assert_eq!(say(&mut set), [], "the same again changes nothing");
    for (net, said) in said {
        set.unsay(net, &Source::Cli, said);
    }
    assert_eq!(set.entries().map(|entry| entry.to_entry()).collect::<Vec<_>>(), before);
    assert_eq!((set.len(), set.denies()), (2, 1));
}
