//! Lists against servers: a scripted one for every way to fail, and a real rbldnsd.

mod faults;
mod real;

use std::net::IpAddr;
use std::time::Duration;

use screener_tests::scripted::{Fault, Scripted};
use tokio::time::timeout;

use super::*;
use crate::config::Config;
use crate::session::DnsblReport;

/// The lists of a configuration, asked at a server.
fn dnsbl(lists: &str, server: std::net::SocketAddr) -> Dnsbl {
    Dnsbl::configured(&config(lists, server)).unwrap().unwrap()
}

fn config(lists: &str, server: std::net::SocketAddr) -> DnsblTest {
    let text = format!("[tests.dnsbl]\nresolvers = [\"{server}\"]\nthreshold = 3\n{lists}");
    Config::parse(&text, "test").unwrap().tests.dnsbl
}

fn list(zone: &str, weight: i32) -> String {
    format!("[[tests.dnsbl.list]]\nzone = \"{zone}\"\nweight = {weight}\n")
}

/// What all lists say within their deadlines.
async fn report(dnsbl: &Dnsbl, address: &str) -> DnsblReport {
    let mut check = dnsbl.start(address.parse().unwrap());
    timeout(Duration::from_secs(20), check.complete()).await.expect("every list has answered or given up")
}

/// What they say in the end.
async fn everything(dnsbl: &Dnsbl, address: &str) -> DnsblReport {
    let mut check = dnsbl.start(address.parse().unwrap());
    timeout(Duration::from_secs(20), check.everything()).await.expect("every question ends")
}

fn status_of(dnsbl: &Dnsbl, name: &str) -> ListStatus {
    dnsbl.status().lists.into_iter().find(|list| list.name == name).expect("the list")
}

/// Waits until the lists stand so.
async fn until(what: &str, dnsbl: &Dnsbl, holds: impl Fn(&Dnsbl) -> bool) {
    let wait = async {
        while !holds(dnsbl) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("waited for {what}: {:?}", dnsbl.status()));
}

fn names(hits: &[crate::session::DnsblHit]) -> Vec<(&str, i32)> {
    hits.iter().map(|hit| (hit.list.as_str(), hit.weight)).collect()
}

#[tokio::test]
async fn scores_add_up_and_the_shortest_ttl_holds() {
    let server = Scripted::start(&["zen.test", "wl.test"]).unwrap();
    server.list("zen.test", "203.0.113.5", &[[127, 0, 0, 2], [127, 0, 0, 4]]);
    server.hold("zen.test", 500, None);
    server.list("wl.test", "203.0.113.5", &[[127, 0, 5, 1]]);
    server.hold("wl.test", 200, None);
    let zen = "[[tests.dnsbl.list]]\nzone = \"zen.test\"\ncodes = { \"127.0.0.2\" = 3, \"127.0.0.[4..7]\" = 4 }\n";
    let dnsbl = dnsbl(&(zen.to_owned() + &list("wl.test", -2)), server.address());
    let report = report(&dnsbl, "203.0.113.5").await;
    assert_eq!((report.score, report.lowest, report.highest, report.without_best_ally), (5, 5, 5, 7));
    assert!(report.unknown.is_empty());
    assert_eq!(names(&report.hits), [("zen.test", 7), ("wl.test", -2)]);
    assert_eq!(report.arithmetic(), "zen.test +7 (127.0.0.2, 127.0.0.4), wl.test -2 (127.0.5.1)");
    let ttl = report.ttl.unwrap().as_secs();
    assert!((150..=200).contains(&ttl), "{ttl}");
    let counts = dnsbl.status().counts;
    assert_eq!((counts.clients, counts.failed, counts.lists[0].alone, counts.lists[0].with[1]), (1, 1, 1, 1));
}

#[tokio::test]
async fn answers_are_kept_within_the_clamps_and_asked_for_once() {
    let server = Scripted::start(&["soa.test", "bare.test", "long.test", "short.test"]).unwrap();
    server.hold("soa.test", 60, Some(120));
    server.hold("bare.test", 60, None);
    server.hold("long.test", 86_400, Some(86_400));
    server.hold("short.test", 0, Some(0));
    for zone in ["long.test", "short.test"] {
        server.list(zone, "203.0.113.6", &[[127, 0, 0, 2]]);
    }
    for (zone, unlisted, listed) in
        [("soa.test", 120, None), ("bare.test", 60, None), ("long.test", 900, Some(3600)), ("short.test", 60, Some(60))]
    {
        let dnsbl = dnsbl(&list(zone, 1), server.address());
        for (address, expected) in [("203.0.113.5", Some(unlisted)), ("203.0.113.6", listed)] {
            let Some(expected) = expected else { continue };
            let first = report(&dnsbl, address).await;
            assert_eq!(first.ttl, Some(Duration::from_secs(expected)), "{zone} {address}");
            let second = report(&dnsbl, address).await;
            assert_eq!((second.score, server.asked(zone, address)), (first.score, 1), "{zone} {address}");
            assert!(second.ttl.unwrap().as_secs().abs_diff(expected) <= 1);
        }
        assert!(status_of(&dnsbl, zone).cached > 0);
    }
}

#[tokio::test]
async fn a_list_has_clamps_of_its_own() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.list("bl.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    let own = list("bl.test", 1) + "min_ttl = \"5s\"\nmax_ttl = \"10s\"\n";
    let dnsbl = dnsbl(&own, server.address());
    assert_eq!(report(&dnsbl, "203.0.113.5").await.ttl, Some(Duration::from_secs(10)));
    assert_eq!(report(&dnsbl, "203.0.113.6").await.ttl, Some(Duration::from_secs(10)));
}

#[tokio::test]
async fn identical_questions_in_flight_are_one() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.list("bl.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    server.fail("bl.test", Fault::Delay(Duration::from_millis(300)));
    let dnsbl = dnsbl(&list("bl.test", 3), server.address());
    let mut checks: Vec<_> = (0..100).map(|_| dnsbl.start("203.0.113.5".parse().unwrap())).collect();
    for check in &mut checks {
        assert_eq!(check.complete().await.score, 3);
    }
    assert_eq!(server.asked("bl.test", "203.0.113.5"), 1);
    assert_eq!(status_of(&dnsbl, "bl.test").shared, 99);
}

#[tokio::test]
async fn a_text_is_asked_for_after_a_hit_only() {
    let server = Scripted::start(&["bl.test", "mute.test"]).unwrap();
    server.say("bl.test", "Listed, see https://bl.test/");
    server.list("bl.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    server.list("mute.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    let lists = list("bl.test", 3) + "url = \"https://bl.test/{address}\"\n" + &list("mute.test", 1) + "text = false\n";
    let dnsbl = dnsbl(&lists, server.address());
    assert_eq!(everything(&dnsbl, "203.0.113.6").await.score, 0);
    assert_eq!(server.texts("bl.test"), 0);
    for _ in 0..2 {
        let hits = everything(&dnsbl, "203.0.113.5").await.hits;
        assert_eq!(hits[0].text.as_deref(), Some("Listed, see https://bl.test/"));
        assert_eq!(hits[0].url.as_deref(), Some("https://bl.test/203.0.113.5"));
        assert_eq!(hits[1].text, None);
    }
    assert_eq!((server.texts("bl.test"), server.texts("mute.test")), (1, 0));
}

#[tokio::test]
async fn levels_ask_and_score_count_without_scoring_or_do_not_ask() {
    let server = Scripted::start(&["score.test", "count.test", "off.test"]).unwrap();
    let mut lists = String::new();
    for level in ["score", "count", "off"] {
        server.list(&format!("{level}.test"), "203.0.113.5", &[[127, 0, 0, 2]]);
        lists += &(list(&format!("{level}.test"), 3) + &format!("level = \"{level}\"\n"));
    }
    let dnsbl = dnsbl(&lists, server.address());
    let report = everything(&dnsbl, "203.0.113.5").await;
    assert_eq!(
        (report.score, names(&report.hits), names(&report.counted)),
        (3, vec![("score.test", 3)], vec![("count.test", 3)])
    );
    assert_eq!(server.questions("off.test"), 0);
    let counts = dnsbl.status().counts;
    assert_eq!((counts.lists[0].decisive, counts.lists[1].hits, counts.lists[1].decisive), (1, 1, 0));
    // A list that is only counted is not waited for.
    server.fail("count.test", Fault::Drop);
    let mut check = dnsbl.start("203.0.113.9".parse().unwrap());
    assert_eq!(timeout(Duration::from_millis(1000), check.complete()).await.expect("no wait").score, 0);
}

#[tokio::test]
async fn a_list_that_is_only_counted_changes_nothing() {
    let server = Scripted::start(&["score.test", "count.test", "dead.test"]).unwrap();
    server.hold("score.test", 500, Some(500));
    server.hold("count.test", 70, Some(70));
    server.fail("dead.test", Fault::Code(2));
    let counted = |zone: &str| list(zone, 3) + "level = \"count\"\n";
    let lists = list("score.test", 3) + &counted("count.test") + &counted("dead.test");
    let dnsbl = dnsbl(&lists, server.address());
    let said = everything(&dnsbl, "203.0.113.5").await;
    assert_eq!(said.ttl, Some(Duration::from_secs(500)), "{said:?}");
    assert!(!said.blind, "a pass is renewed without it: {said:?}");
    assert_eq!(said.unknown.len(), 1, "it is told of all the same: {said:?}");
    server.fail("score.test", Fault::Code(2));
    assert!(everything(&dnsbl, "203.0.113.6").await.blind);
}

#[tokio::test]
async fn more_clients_than_may_be_asked_about_at_once_wait_for_their_turn() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.fail("bl.test", Fault::Delay(Duration::from_millis(200)));
    let dnsbl = dnsbl(&(list("bl.test", 3) + "families = [\"ipv4\"]\n"), server.address());
    let client = |number: u32| std::net::Ipv4Addr::from_bits(0xc633_6400 + number);
    let mut checks: Vec<_> = (0..1500).map(|number| dnsbl.start(client(number).into())).collect();
    for check in &mut checks {
        let said = check.complete().await;
        assert!(said.unknown.is_empty(), "{said:?}");
    }
    assert_eq!(status_of(&dnsbl, "bl.test").questions, 1500);
}

#[test]
fn a_test_without_an_answer_is_repeated_soon_and_a_parked_list_left_alone_for_as_long_as_is_said() {
    let spread = Duration::from_secs(7);
    let pauses: Vec<_> = (0..6).map(|unanswered| pause(unanswered, spread).as_secs()).collect();
    assert_eq!(pauses, [607, 1, 2, 4, 8, 16]);
    assert_eq!(pause(u32::MAX, spread), BETWEEN_TESTS);
    let now = Instant::now();
    let (again, until) = (now + BETWEEN_TESTS, now + Duration::from_secs(3600));
    let parked = Parked { why: health::Why::Empty, since: now, until };
    assert_eq!(next_test(None, again), again);
    assert_eq!(next_test(Some(parked), again), until);
}

#[tokio::test]
async fn an_ipv4_list_is_not_asked_about_ipv6_and_nothing_is_awaited() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    let four = list("bl.test", 1) + "families = [\"ipv4\"]\n";
    let dnsbl = dnsbl(&four, server.address());
    let report = dnsbl.start("2001:db8::1".parse().unwrap()).report();
    assert!(report.complete && report.unknown.is_empty());
    assert_eq!(server.questions("bl.test"), 0);
}

#[tokio::test]
async fn what_is_known_stays_over_a_reload() {
    let server = Scripted::start(&["old.test", "new.test"]).unwrap();
    server.list("old.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    let before = dnsbl(&list("old.test", 3), server.address());
    assert_eq!(report(&before, "203.0.113.5").await.score, 3);
    let changed = config(&(list("new.test", 1) + &list("old.test", 5)), server.address());
    let after = before.reconfigured(&changed).unwrap().unwrap();
    assert_eq!(report(&after, "203.0.113.5").await.score, 5, "the answer is old, the weight new");
    assert_eq!(server.asked("old.test", "203.0.113.5"), 1);
    assert_eq!(status_of(&after, "old.test").questions, 1);
    let counts = after.status().counts;
    assert_eq!((counts.clients, counts.lists[0].answered, counts.lists[1].hits), (2, 1, 2));
}

#[tokio::test]
async fn a_list_that_is_switched_off_while_it_is_parked_is_off_and_nothing_else() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.list("bl.test", "203.0.113.5", &[[127, 255, 255, 254]]);
    let before = dnsbl(&list("bl.test", 3), server.address());
    report(&before, "203.0.113.5").await;
    assert_eq!(status_of(&before, "bl.test").state, "parked");
    let off = config(&(list("bl.test", 3) + "level = \"off\"\n"), server.address());
    let status = status_of(&before.reconfigured(&off).unwrap().unwrap(), "bl.test");
    assert_eq!((status.state, status.why, status.parked), ("off", None, None));
    assert!(status.last_error.is_some(), "what was wrong last is still known");
}

#[tokio::test]
async fn one_address_asked_once_shows_every_answer() {
    let server = Scripted::start(&["bl.test", "clean.test", "dead.test", "world.test"]).unwrap();
    server.list("bl.test", "203.0.113.5", &[[127, 0, 0, 4]]);
    server.say("bl.test", "spam");
    server.fail("dead.test", Fault::Code(2));
    server.fail("world.test", Fault::Everything([127, 0, 0, 2].into()));
    let lists: String = ["bl.test", "clean.test", "dead.test", "world.test"].iter().map(|zone| list(zone, 2)).collect();
    let config = config(&lists, server.address());
    let single = ask_once(&config, "203.0.113.5".parse::<IpAddr>().unwrap()).await.unwrap();
    let said: Vec<_> = single.lists.iter().map(|asked| (asked.said, asked.counts)).collect();
    assert_eq!(said, [("listed", true), ("not_listed", false), ("unknown", false), ("listed", false)]);
    assert_eq!(single.score, 2, "a list that lists the world does not count");
    assert_eq!(single.lists[0].text.as_deref(), Some("spam"));
    assert!(single.lists[3].wrong.as_ref().unwrap().contains("at random"));
}

#[tokio::test]
async fn a_test_point_without_an_answer_parks_no_list_and_takes_no_listing_away() {
    let server = Scripted::start(&["bl.test"]).unwrap();
    server.list("bl.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    let flood: Vec<_> = (2..100).map(|last| [127, 0, 0, last]).collect();
    server.list("bl.test", "127.0.0.2", &flood);
    let single =
        ask_once(&config(&list("bl.test", 3), server.address()), "203.0.113.5".parse().unwrap()).await.unwrap();
    let bl = &single.lists[0];
    assert_eq!((single.score, bl.counts), (3, true), "{bl:?}");
    assert_eq!(bl.wrong.as_deref(), Some("the resolver gives no usable answer"));
    // As the daemon has it.
    let dnsbl = dnsbl(&list("bl.test", 3), server.address());
    dnsbl.watch(&CancellationToken::new());
    assert_eq!(report(&dnsbl, "203.0.113.5").await.score, 3);
    assert_eq!(status_of(&dnsbl, "bl.test").state, "asked");
}

#[tokio::test]
async fn a_secret_key_is_in_no_error_and_no_status() {
    let server = Scripted::start(&["s3cr3t.failing.test", "s3cr3t.silent.test", "s3cr3t.well.test"]).unwrap();
    server.fail("s3cr3t.failing.test", Fault::Code(2));
    server.fail("s3cr3t.silent.test", Fault::Drop);
    server.list("s3cr3t.well.test", "203.0.113.5", &[[127, 0, 0, 2]]);
    server.say("s3cr3t.well.test", "5.113.0.203.S3cr3t.well.test is listed, S3CR3T");
    let keyed = |zone: &str| format!("[[tests.dnsbl.list]]\nzone = \"{{key}}.{zone}\"\nkey = \"s3cr3t\"\n");
    let lists = keyed("failing.test") + &keyed("silent.test") + &keyed("well.test");
    let dnsbl = dnsbl(&lists, server.address());
    let said = everything(&dnsbl, "203.0.113.5").await;
    assert_eq!((said.score, said.unknown.len()), (1, 2));
    let single = ask_once(&config(&lists, server.address()), "203.0.113.5".parse::<IpAddr>().unwrap()).await.unwrap();
    let examined = doctor::examine(&config(&lists, server.address())).await;
    let shown = format!("{:?} {said:?} {single:?} {examined:?}", dnsbl.status());
    assert!(!shown.to_ascii_lowercase().contains("s3cr3t"), "{shown}");
    assert_eq!(shown.matches("5.113.0.203.….well.test is listed, …").count(), 2, "{shown}");
    assert!(shown.contains("no answer in time") && shown.contains("Server Failure"), "{shown}");
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong_with_each_list_and_the_resolver() {
    let server = Scripted::start(&["well.test", "world.test", "empty.test", "com"]).unwrap();
    server.fail("world.test", Fault::Everything([127, 0, 0, 2].into()));
    server.fail("empty.test", Fault::Nothing);
    server.fail("com", Fault::Everything([192, 0, 2, 80].into()));
    let lists: String = ["well.test", "world.test", "empty.test"].iter().map(|zone| list(zone, 2)).collect();
    let findings = doctor::examine(&config(&lists, server.address())).await;
    let found = |part: &str| {
        let found = findings.iter().find(|it| it.finding.contains(part)).map(|it| it.severity);
        found.unwrap_or_else(|| panic!("no {part:?} in {findings:?}"))
    };
    assert_eq!(found("well.test is alive"), doctor::Severity::Good);
    assert_eq!(found("world.test: it lists"), doctor::Severity::Problem);
    assert_eq!(found("empty.test: it does not list 127.0.0.2"), doctor::Severity::Problem);
    assert_eq!(found("makes up answers"), doctor::Severity::Problem);
    assert_eq!(found("about the root"), doctor::Severity::Problem);
    assert!(findings.iter().all(|it| it.severity == doctor::Severity::Good || !it.remedy.is_empty()));
}
