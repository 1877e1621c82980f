//! The rails by example, and against a model that looks at every part of a small world.

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| net(text)).collect()
}

#[test]
fn what_the_list_before_says_already_is_no_news() {
    let protected = guarding(&[
        ("192.0.2.200/32", Guarded::Permit(Source::Cli)),
        ("198.51.100.1/32", Guarded::Permit(Source::OwnAddress)),
        ("203.0.113.7/32", Guarded::Permit(Source::Cli)),
    ]);
    let before = nets(&["32.0.0.0/7", "192.0.2.0/24", "198.51.100.0/24"]);
    assert!(judge(&before, &protected).is_err());
    assert!(judge_next(&before, &before, &protected).is_ok());
    let list = nets(&["32.0.0.0/7", "192.0.2.0/24", "203.0.113.0/24"]);
    let objections = judge_next(&before, &list, &protected).unwrap_err();
    assert!(objections.too_wide.is_empty());
    assert_eq!(objections.covered.to_string(), "203.0.113.7/32 (cli) by 203.0.113.0/24");
    let wider = nets(&["32.0.0.0/7", "40.0.0.0/7", "192.0.2.0/24"]);
    assert_eq!(judge_next(&before, &wider, &protected).unwrap_err().too_wide.to_string(), "40.0.0.0/7");
}

fn guarding(items: &[(&str, Guarded)]) -> Protected {
    let mut protected = Protected::default();
    for (text, why) in items {
        protected.add(net(text), why.clone());
    }
    protected
}

#[test]
fn a_refusal_says_what_would_have_been_covered_and_what_to_do() {
    let protected = guarding(&[
        ("192.0.2.10/32", Guarded::Permit(Source::OwnAddress)),
        ("192.0.2.1/32", Guarded::Gateway),
        ("192.0.2.128/25", Guarded::Permit(Source::Config)),
        ("192.0.2.200/32", Guarded::Permit(Source::Cli)),
        ("203.0.113.0/24", Guarded::Permit(Source::Cli)),
    ]);
    let list = nets(&["192.0.2.0/24", "198.51.100.0/24", "198.51.100.7/32", "32.0.0.0/7"]);
    assert_eq!(
        judge(&list, &protected).unwrap_err().to_string(),
        "the list is refused as a whole (4 prefixes): it would deny 0.8 % of IPv4's unicast addresses (33554944); one prefix \
         is wider than /8 (IPv4) or /16 (IPv6): 32.0.0.0/7; it would cover 192.0.2.1/32 (gateway) by 192.0.2.0/24, \
         192.0.2.10/32 (own_address) by 192.0.2.0/24, 192.0.2.128/25 (config) by 192.0.2.0/24 and 1 more. Correct that, \
         or force it with --force (permits still win)"
    );
}

#[test]
fn a_quarter_of_a_family_is_taken_and_more_is_not() {
    let slash8s = |count: u8| (1..=count).map(|first| net(&format!("{first}.0.0.0/8"))).collect::<Vec<_>>();
    assert_eq!(judge(&slash8s(56), &Protected::default()).unwrap().coverage.v4, 56 << 24);
    let error = judge(&slash8s(57), &Protected::default()).unwrap_err().to_string();
    assert!(error.contains("25.4 % of IPv4's unicast addresses") && error.contains("at most 25 %"), "{error}");
    // What lies upon each other counts once, what is no unicast address not at all.
    let mut list = slash8s(56);
    list.extend(nets(&["1.2.3.0/24", "240.0.0.0/8", "255.0.0.0/8"]));
    assert_eq!(judge(&list, &Protected::default()).unwrap().coverage.v4, 56 << 24);

    let slash16s = |count: u16| (0..count).map(|low| net(&format!("{:x}::/16", 0x2000 + low))).collect::<Vec<_>>();
    assert!(judge(&slash16s(32), &Protected::default()).is_ok());
    let error = judge(&slash16s(33), &Protected::default()).unwrap_err().to_string();
    assert!(error.contains("25.7 % of the IPv6 addresses in use, where at most 25 %"), "{error}");
}

#[test]
fn a_part_of_a_permit_is_idle_and_a_part_of_an_own_network_is_an_error() {
    let list = nets(&["10.7.3.4/32", "203.0.113.9/32", "203.0.113.10/32"]);
    let permits = |own| {
        guarding(&[
            ("203.0.113.0/24", Guarded::Permit(Source::Cli)),
            ("203.0.113.8/30", Guarded::Permit(Source::Config)),
            ("10.7.0.0/16", Guarded::Permit(own)),
        ])
    };
    assert_eq!(
        judge(&list, &permits(Source::Config)).unwrap().idle.to_string(),
        "10.7.3.4/32, 203.0.113.9/32, 203.0.113.10/32"
    );
    let error = judge(&list, &permits(Source::OwnNetwork)).unwrap_err();
    assert_eq!(error.covered.to_string(), "10.7.0.0/16 (own_network) by 10.7.3.4/32");
}

/// Prefixes of 2 to 12 bits: the whole of IPv4 is then 4096 parts.
fn prefix() -> impl Strategy<Value = IpNet> {
    (0..4096_u32, 2..=12_u8)
        .prop_map(|(part, length)| IpNet::new(std::net::Ipv4Addr::from(part << 20).into(), length).unwrap().trunc())
}

fn guarded() -> impl Strategy<Value = (IpNet, Guarded)> {
    let why = vec![
        Guarded::Permit(Source::Cli),
        Guarded::Permit(Source::OwnNetwork),
        Guarded::KernelPermit,
        Guarded::Gateway,
    ];
    (prefix(), prop::sample::select(why))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rails_say_what_a_look_at_every_part_says(
        list in proptest::collection::vec(prefix(), 1..24),
        guarded in proptest::collection::vec(guarded(), 0..6),
    ) {
        let mut protected = Protected::default();
        for (net, why) in &guarded {
            protected.add(*net, why.clone());
        }
        let parts = (0..4096_u32).map(|part| std::net::IpAddr::from(std::net::Ipv4Addr::from(part << 20)));
        let unicast = parts.take(224 << 4);
        let covered = unicast.filter(|part| list.iter().any(|net| net.contains(part))).count() as u128;
        let too_wide = list.iter().filter(|net| net.prefix_len() < 8).count();
        let meets = guarded.iter().filter(|(net, why)| {
            let ours = !matches!(why, Guarded::KernelPermit | Guarded::Permit(Source::Cli));
            list.iter().any(|by| by.contains(net) || (ours && net.contains(by)))
        }).count();
        let coverage = Coverage { v4: covered << 20, v6: 0 };
        match judge(&list, &protected) {
            Ok(judgement) => {
                prop_assert_eq!((too_wide, meets), (0, 0));
                prop_assert!(covered * 4 <= 224 << 4);
                prop_assert_eq!(judgement.coverage, coverage);
                let idle = list.iter().filter(|by| guarded.iter().any(|(net, _)| net.contains(*by))).count();
                prop_assert_eq!(judgement.idle.len(), idle);
            }
            Err(objections) => {
                prop_assert!(too_wide > 0 || meets > 0 || covered * 4 > 224 << 4);
                prop_assert_eq!(objections.coverage, coverage);
                prop_assert_eq!((objections.too_wide.len(), objections.covered.len()), (too_wide, meets));
            }
        }
        let mut sorted = list.clone();
        sorted.sort_unstable();
        for (net, _) in &guarded {
            let met = list.iter().any(|other| other.contains(net) || net.contains(other));
            prop_assert_eq!(super::meets(&sorted, net), met);
        }
    }
}
