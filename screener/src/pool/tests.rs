//! Pools without the DNS: expansions are made up.

use super::*;

const NOW: UnixTime = UnixTime(1_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

fn config(domain: &str) -> config::Pool {
    let (min_refresh, max_refresh) = (Duration::from_secs(300), 24 * HOUR);
    config::Pool { domain: domain.to_owned(), min_refresh, max_refresh, growth: 4 }
}

fn expansion(prefixes: &[&str]) -> Expansion {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect();
    Expansion { prefixes, ttl: Some(HOUR), ..Expansion::default() }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two pools in a file of their own; the first has members.
fn pools(directory: &tempfile::TempDir) -> Pools {
    let pools = Pools::open(directory.path().join("pools.json"), &[config("a.example"), config("b.example")]);
    let found = expansion(&["192.0.2.0/24", "2001:db8::/32"]);
    pools.pool("a.example").unwrap().adopt(found, false, NOW).unwrap();
    pools.touch();
    pools
}

fn refuse(pools: &Pools, domain: &str, found: Expansion) -> Implausible {
    let pool = pools.pool(domain).unwrap();
    let why = pool.adopt(found, false, NOW).unwrap_err();
    pool.failed(&RefreshError::Implausible { domain: domain.to_owned(), why: why.clone() }, NOW);
    why
}

#[test]
fn what_one_member_has_passed_all_have() {
    let directory = tempfile::tempdir().unwrap();
    let pools = pools(&directory);
    let stamps = Stamps::all_until(NOW.plus(HOUR));
    assert_eq!(pools.grant(address("203.0.113.1"), &stamps), None, "no member");
    assert_eq!(pools.find(address("2001:db8:9::1")).unwrap().stamps, Stamps::default());
    pools.grant(address("192.0.2.1"), &stamps).unwrap();
    let other = pools.find(address("2001:db8:9::1")).unwrap();
    assert_eq!((&*other.domain, other.stamps, other.passed_by), ("a.example", stamps, Some(address("192.0.2.1"))));
    assert!(pools.vouches_for(address("192.0.2.9").into(), TestSet::FULL, NOW));
    pools.withdraw(address("192.0.2.7"), Test::Dnsbl).unwrap();
    assert!(!pools.vouches_for(address("192.0.2.9").into(), TestSet::FULL, NOW));
    assert_eq!(pools.forget("a.example"), Some(true));
    assert_eq!((pools.forget("a.example"), pools.forget("c.example")), (Some(false), None));
}

#[test]
fn members_and_pass_outlive_the_daemon() {
    let directory = tempfile::tempdir().unwrap();
    let stamps = Stamps::all_until(NOW.plus(HOUR));
    {
        let pools = pools(&directory);
        pools.grant(address("192.0.2.1"), &stamps);
        assert!(pools.save());
        assert!(!pools.unsaved.load(Ordering::Relaxed));
    }
    let again = Pools::open(directory.path().join("pools.json"), &[config("a.example")]);
    assert_eq!(again.find(address("192.0.2.2")).unwrap().stamps, stamps);
    assert_eq!(again.status()[0].learned, Some(NOW));
    assert_eq!(again.due(NOW).len(), 1, "a start looks them up at once");
    std::fs::write(directory.path().join("pools.json"), "{").unwrap();
    let damaged = Pools::open(directory.path().join("pools.json"), &[config("a.example")]);
    assert!(damaged.troubles()[0].contains("was damaged"), "{:?}", damaged.troubles());
    assert_eq!(damaged.find(address("192.0.2.2")), None);
}

#[test]
fn a_file_that_cannot_be_written_is_told_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let pools = Pools { file: directory.path().join("pools.json"), ..pools(&directory) };
    std::fs::create_dir(&pools.file).unwrap();
    assert!(!pools.save());
    assert!(pools.troubles()[0].contains("not on the disk"), "{:?}", pools.troubles());
    std::fs::remove_dir(&pools.file).unwrap();
    assert!(pools.save());
    assert!(pools.troubles().is_empty());
}

#[test]
fn what_is_implausible_is_refused_and_the_last_good_members_stay() {
    let directory = tempfile::tempdir().unwrap();
    let pools = pools(&directory);
    assert_eq!(refuse(&pools, "a.example", expansion(&[])), Implausible::Empty);
    let told = pools.troubles().remove(0);
    assert!(told.contains("names no address") && told.contains("the members of 1970-01-12T13:46:40Z stay"), "{told}");
    let grown = ["192.0.2.0/24", "198.51.0.0/16", "2001:db8::/32"];
    assert!(matches!(refuse(&pools, "a.example", expansion(&grown)), Implausible::Grown { .. }));
    assert!(pools.troubles()[0].contains("screener pool refresh a.example --accept"), "{:?}", pools.troubles());
    assert!(pools.find(address("192.0.2.2")).is_some() && pools.find(address("198.51.0.1")).is_none());
    // An operator can say that growth is meant, and nothing else.
    let pool = pools.pool("a.example").unwrap();
    assert_eq!(
        pool.adopt(expansion(&["0.0.0.0/0"]), true, NOW),
        Err(Implausible::TooWide("0.0.0.0/0".parse().unwrap()))
    );
    let refreshed = pool.adopt(expansion(&grown), true, NOW).unwrap();
    assert_eq!((refreshed.added, refreshed.removed, refreshed.prefixes), (1, 0, 3));
    assert!(pools.troubles().is_empty());
    assert!(pools.find(address("198.51.0.1")).is_some());
}

#[test]
fn a_refresh_follows_the_ttl_within_its_clamps_and_failures_wait_longer_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let pools = pools(&directory);
    let pool = pools.pool("a.example").unwrap();
    for (ttl, expected) in [(Some(1), 300), (Some(3_600), 3_600), (Some(10_000_000), 86_400), (None, 300)] {
        let found = Expansion { ttl: ttl.map(Duration::from_secs), ..expansion(&["192.0.2.0/24"]) };
        pool.adopt(found, false, NOW).unwrap();
        assert_eq!(pool.state().next, NOW.plus(Duration::from_secs(expected)), "{ttl:?}");
    }
    for expected in [60, 120, 240] {
        refuse(&pools, "a.example", expansion(&[]));
        assert_eq!(pool.state().next, NOW.plus(Duration::from_secs(expected)));
    }
    for _ in 0..100 {
        refuse(&pools, "a.example", expansion(&[]));
    }
    assert_eq!(pool.state().next, NOW.plus(24 * HOUR));
    let due = |at| pools.due(at).iter().any(|domain| **domain == *"a.example");
    assert!(!due(NOW) && due(NOW.plus(24 * HOUR)) && due(UnixTime(NOW.0 - 1)), "the clock was set back");
}

#[test]
fn a_pool_that_stays_in_the_configuration_keeps_what_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let pools = pools(&directory);
    let stamps = Stamps::all_until(NOW.plus(HOUR));
    pools.grant(address("192.0.2.1"), &stamps);
    pools.reconfigure(&[config::Pool { growth: 9, ..config("a.example") }]);
    assert_eq!(pools.find(address("192.0.2.2")).unwrap().stamps, stamps);
    assert_eq!(pools.status().len(), 1);
    pools.reconfigure(&[]);
    assert_eq!((pools.find(address("192.0.2.2")), pools.next()), (None, None));
}
