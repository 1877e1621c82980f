//! Feeds of a daemon at its start and at a reload, without a network.

use super::*;
use crate::config::Config;
use crate::feed::DenyAction;
use crate::fetch::Head;

const NOW: UnixTime = UnixTime(1_800_000_000);

fn configured(keys: &str) -> Vec<config::Feed> {
    let feed = "[[feed]]\nname = \"a\"\nsource = \"https://a.example/list\"\nformat = \"cidr\"\n";
    Config::parse(&format!("{feed}{keys}"), "test.toml").unwrap().feeds
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A directory with the copy of a feed, checked so many seconds ago.
fn copied(wanted: &config::Feed, permits: bool, ago: u64) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let validators = Validators { etag: Some("\"x\"".to_owned()), last_modified: None };
    let head = Head::new(wanted.source.identity(), permits, UnixTime(NOW.0 - 9_000), validators);
    let entries = nets(&["192.0.2.0/24", "2001:db8::/32"]).into_iter().map(|net| (net, UnixTime(NOW.0 - 9_999)));
    let checked = UnixTime(NOW.0 - ago);
    head.write(&copy_of(directory.path(), wanted.name.as_str()), entries, checked).unwrap();
    directory
}

#[test]
fn a_copy_is_in_force_at_once_with_all_that_was_known_of_it() {
    let wanted = configured("");
    let directory = copied(&wanted[0], false, 600);
    let mut set = StaticSet::new();
    let feeds = Feeds::open(directory.path().to_owned(), &wanted, &mut set, NOW);
    let found: Vec<_> = set.entries().map(|found| (found.prefix, found.added, found.source.to_string())).collect();
    let since = UnixTime(NOW.0 - 9_999);
    let expected = nets(&["192.0.2.0/24", "2001:db8::/32"]).into_iter().map(|net| (net, since, "feed:a".to_owned()));
    assert_eq!(found, expected.collect::<Vec<_>>());
    let state = feeds.find("a").unwrap().state().clone();
    let list = state.list.unwrap();
    assert_eq!((list.entries, list.taken, list.checked), (2, UnixTime(NOW.0 - 9_000), UnixTime(NOW.0 - 600)));
    assert_eq!(list.validators.etag.as_deref(), Some("\"x\""));
    // Twelve hours after it was checked, and up to a tenth of that later.
    let hours = 12 * 3600;
    assert!((hours - 600..=hours * 11 / 10 - 600).contains(&(state.next.0 - NOW.0)), "{:?}", state.next);
    assert!(feeds.due(NOW).is_empty() && feeds.troubles().is_empty());
}

#[test]
fn a_copy_that_is_out_of_date_or_of_another_source_is_asked_for_soon() {
    let wanted = configured("");
    let directory = copied(&wanted[0], false, 100_000);
    let mut set = StaticSet::new();
    let feeds = Feeds::open(directory.path().to_owned(), &wanted, &mut set, NOW);
    let next = feeds.find("a").unwrap().state().next;
    assert!(next >= NOW && next <= NOW.plus(START_SPREAD), "{next}");
    let other = configured("timeout = \"9s\"");
    let directory =
        copied(&config::Feed { source: FeedSource::Spf("b.example".to_owned()), ..other[0].clone() }, false, 1);
    let feeds = Feeds::open(directory.path().to_owned(), &other, &mut StaticSet::new(), NOW);
    assert_eq!(feeds.due(NOW).len(), 1);
    let feed = feeds.find("a").unwrap();
    assert_eq!(feed.state().list.as_ref().map(|list| list.entries), Some(2), "until there is another");
}

#[test]
fn a_time_that_a_wrong_clock_has_set_puts_nobody_off() {
    let wanted = configured("");
    let directory = tempfile::tempdir().unwrap();
    let head = Head::new(wanted[0].source.identity(), false, NOW, Validators::default());
    let in_a_month = UnixTime(NOW.0 + 30 * 86_400);
    head.write(&copy_of(directory.path(), "a"), std::iter::empty(), in_a_month).unwrap();
    let feeds = Feeds::open(directory.path().to_owned(), &wanted, &mut StaticSet::new(), NOW);
    assert_eq!(feeds.due(NOW).len(), 1, "it is asked when that clock gets there");
    assert_eq!(feeds.find("a").unwrap().state().list.as_ref().map(|list| list.checked), Some(NOW));
    // The clock is set back while the daemon runs.
    let feed = feeds.find("a").unwrap();
    feed.state().next = NOW.plus(spread(feed.config.refresh));
    assert!(feeds.due(NOW).is_empty());
    assert_eq!(feeds.due(UnixTime(NOW.0 - 30 * 86_400)).len(), 1);
}

#[test]
fn a_copy_of_the_other_kind_a_damaged_one_and_one_of_no_feed_are_not_in_force() {
    let wanted = configured("");
    let directory = copied(&wanted[0], true, 600);
    let mut set = StaticSet::new();
    let feeds = Feeds::open(directory.path().to_owned(), &wanted, &mut set, NOW);
    assert!(set.is_empty() && feeds.due(NOW).len() == 1, "what was permitted is not denied");
    let path = copy_of(directory.path(), "a");
    fs::write(&path, "something").unwrap();
    let feeds = Feeds::open(directory.path().to_owned(), &wanted, &mut set, NOW);
    assert!(set.is_empty() && !path.exists());
    assert!(feeds.troubles()[0].starts_with("feed a: its last good copy cannot be used: "), "{:?}", feeds.troubles());
    let directory = copied(&wanted[0], false, 600);
    Feeds::open(directory.path().to_owned(), &[], &mut set, NOW).sweep();
    assert!(set.is_empty() && !copy_of(directory.path(), "a").exists());
}

#[test]
fn a_reload_keeps_what_is_known_of_feeds_that_stay_and_can_be_taken_back() {
    let wanted = configured("");
    let directory = copied(&wanted[0], false, 600);
    let feeds = Feeds::open(directory.path().to_owned(), &wanted, &mut StaticSet::new(), NOW);
    feeds.hit("a", 7, NOW);
    let first = feeds.find("a").unwrap();
    let before = feeds.reconfigure(&configured("refresh = \"2h\"\naction = \"count\""), NOW);
    let second = feeds.find("a").unwrap();
    assert!(!feeds.has(&first) && feeds.has(&second), "nothing comes in for the one before");
    assert_eq!(second.config.action, StaticAction::Deny(DenyAction::Count));
    assert_eq!(second.state().list.as_ref().map(|list| list.entries), Some(2));
    assert_eq!((second.counts.hits.load(Ordering::Relaxed), second.state().next), (7, NOW));
    feeds.give_back(before);
    assert!(feeds.has(&first));
    feeds.reconfigure(&configured("action = \"permit\""), NOW);
    assert!(feeds.find("a").unwrap().state().list.is_none(), "what was denied is not permitted");
    feeds.reconfigure(&[], NOW);
    feeds.reconfigured();
    assert!(!copy_of(directory.path(), "a").exists());
}

#[test]
fn a_feed_that_is_being_asked_is_asked_by_nobody_else() {
    let feeds =
        Feeds::open(tempfile::tempdir().unwrap().path().to_owned(), &configured(""), &mut StaticSet::new(), NOW);
    let due = feeds.due(NOW);
    assert_eq!((due.len(), feeds.due(NOW).len(), feeds.next()), (1, 0, None));
    drop(due);
    assert_eq!(feeds.next(), Some(NOW));
}

#[test]
fn who_answered_is_left_alone_for_longer_than_who_was_not_reached() {
    let [url, file] = ["", "[[feed]]\nname = \"b\"\nsource = \"/b\"\nformat = \"cidr\"\n"]
        .map(|keys| configured(keys).pop().unwrap());
    let within =
        |time: Duration, least: u64| time >= Duration::from_secs(least) && time <= Duration::from_secs(least * 11 / 10);
    assert!(within(pause(&url, 0, false), 60) && within(pause(&url, 3, false), 480));
    assert!(within(pause(&url, 0, true), 3600) && within(pause(&url, 99, true), 12 * 3600));
    assert!(within(pause(&file, 9, true), 10));
}
