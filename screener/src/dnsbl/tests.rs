//! Lists against servers: a real rbldnsd, and a scripted one for what a real one cannot be made to do.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::*;
use crate::config::Config;
use crate::session::DnsblReport;

/// What the scripted server does with a zone's questions.
#[derive(Clone)]
enum Script {
    Listed(Vec<[u8; 4]>, u32),
    Unlisted { negative_ttl: Option<u32> },
    Fails(ResponseCode),
    Silent,
}

/// Answers by zone; the task ends with the test's runtime.
async fn scripted(zones: &[(&str, Script)]) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let zones: HashMap<String, Script> =
        zones.iter().map(|(zone, script)| (format!(".{zone}."), script.clone())).collect();
    tokio::spawn(async move {
        let mut packet = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let question = Message::from_vec(&packet[..length]).unwrap();
            let name = question.queries[0].name().to_string();
            let (zone, script) = zones.iter().find(|(zone, _)| name.ends_with(zone.as_str())).unwrap();
            if let Some(answer) = answer(&question, zone, script) {
                socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
            }
        }
    });
    address
}

fn answer(question: &Message, zone: &str, script: &Script) -> Option<Message> {
    let query = question.queries[0].clone();
    let mut answer = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    answer.metadata.recursion_available = true;
    answer.metadata.recursion_desired = true;
    match script {
        Script::Silent => return None,
        Script::Fails(code) => answer.metadata.response_code = *code,
        Script::Listed(records, ttl) => {
            for &record in records {
                answer.add_answer(Record::from_rdata(query.name().clone(), *ttl, RData::A(A(record.into()))));
            }
        }
        Script::Unlisted { negative_ttl } => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            if let Some(ttl) = *negative_ttl {
                let apex = Name::from_ascii(zone.trim_start_matches('.')).unwrap();
                let soa = SOA::new(apex.clone(), apex.clone(), 1, 60, 60, 60, ttl);
                answer.add_authority(Record::from_rdata(apex, ttl, RData::SOA(soa)));
            }
        }
    }
    answer.add_query(query);
    Some(answer)
}

/// The lists of a configuration, asked at a server.
fn dnsbl(lists: &str, server: SocketAddr) -> Dnsbl {
    let config = Config::parse(lists, "test").unwrap();
    let lists = config.tests.dnsbl.lists.iter().map(|list| List::configured(list).unwrap()).collect();
    Dnsbl::new(lists, Resolver::at(server).unwrap())
}

fn list(zone: &str, weight: i32) -> String {
    format!("[[tests.dnsbl.list]]\nzone = \"{zone}\"\nweight = {weight}\n")
}

async fn last_report(check: &mut Check) -> DnsblReport {
    let all = async {
        loop {
            let report = check.next_report().await;
            if report.complete {
                return report;
            }
        }
    };
    timeout(Duration::from_secs(20), all).await.expect("every list has answered or given up")
}

async fn report(dnsbl: &Dnsbl, address: &str) -> DnsblReport {
    last_report(&mut dnsbl.start(address.parse().unwrap())).await
}

#[tokio::test]
async fn scores_add_up_and_the_shortest_ttl_holds() {
    let listed = Script::Listed(vec![[127, 0, 0, 2], [127, 0, 0, 4]], 500);
    let zones = [("zen.test", listed), ("wl.test", Script::Listed(vec![[127, 0, 5, 1]], 200))];
    let server = scripted(&zones).await;
    let zen = "[[tests.dnsbl.list]]\nzone = \"zen.test\"\ncodes = { \"127.0.0.2\" = 3, \"127.0.0.[4..7]\" = 4 }\n";
    let report = report(&dnsbl(&(zen.to_owned() + &list("wl.test", -2)), server), "203.0.113.5").await;
    assert_eq!((report.score, report.lowest, report.highest, report.unknown), (5, 5, 5, 0));
    assert_eq!(report.hits, [("zen.test".to_owned(), 7), ("wl.test".to_owned(), -2)]);
    let ttl = report.ttl.unwrap().as_secs();
    assert!((150..=200).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn not_listed_holds_as_long_as_the_list_says_or_a_minute() {
    let zones = [
        ("soa.test", Script::Unlisted { negative_ttl: Some(120) }),
        ("bare.test", Script::Unlisted { negative_ttl: None }),
    ];
    let server = scripted(&zones).await;
    let with_soa = report(&dnsbl(&list("soa.test", 1), server), "203.0.113.5").await;
    assert_eq!((with_soa.score, with_soa.unknown, with_soa.hits.len()), (0, 0, 0));
    assert_eq!(with_soa.ttl, Some(Duration::from_secs(120)));
    let bare = report(&dnsbl(&list("bare.test", 1), server), "203.0.113.5").await;
    assert_eq!((bare.score, bare.unknown, bare.ttl), (0, 0, None));
}

#[tokio::test]
async fn a_list_that_fails_or_is_silent_counts_for_nothing_and_delays_no_other() {
    let zones = [
        ("good.test", Script::Listed(vec![[127, 0, 0, 2]], 60)),
        ("failing.test", Script::Fails(ResponseCode::ServFail)),
        ("refusing.test", Script::Fails(ResponseCode::Refused)),
        ("silent.test", Script::Silent),
    ];
    let server = scripted(&zones).await;
    let lists: String = zones.iter().map(|(zone, _)| list(zone, 2)).collect();
    let dnsbl = dnsbl(&lists, server);
    let mut check = dnsbl.start("203.0.113.5".parse().unwrap());
    let soon = async {
        loop {
            let report = check.next_report().await;
            if !report.hits.is_empty() {
                return report;
            }
        }
    };
    let early = timeout(Duration::from_secs(10), soon).await.unwrap();
    assert!(!early.complete, "the silent list is still awaited");
    assert_eq!((early.score, early.lowest), (2, 2));
    let last = last_report(&mut check).await;
    assert_eq!((last.score, last.unknown), (2, 3));
    for status in dnsbl.status() {
        let unknown = u64::from(status.name != "good.test");
        assert_eq!((status.queries, status.unknown, status.errors), (1, unknown, 0), "{status:?}");
        assert_eq!(status.last_error.is_some(), unknown == 1, "{status:?}");
    }
}

#[tokio::test]
async fn a_secret_key_is_in_no_error() {
    let zones =
        [("s3cr3t.failing.test", Script::Fails(ResponseCode::ServFail)), ("s3cr3t.silent.test", Script::Silent)];
    let server = scripted(&zones).await;
    let keyed = |zone: &str| format!("[[tests.dnsbl.list]]\nzone = \"{{key}}.{zone}\"\nkey = \"s3cr3t\"\n");
    let dnsbl = dnsbl(&(keyed("failing.test") + &keyed("silent.test")), server);
    assert_eq!(report(&dnsbl, "203.0.113.5").await.unknown, 2);
    let shown = format!("{:?}", dnsbl.status());
    assert!(!shown.contains("s3cr3t"), "{shown}");
    assert!(shown.contains("no answer in time") && shown.contains("Server Failure"), "{shown}");
}

#[tokio::test]
async fn an_answer_that_is_no_listing_is_never_taken_for_one_and_the_list_is_left_alone() {
    for lie in [[127, 255, 255, 254], [127, 0, 0, 1], [10, 0, 0, 1], [127, 255, 255, 1]] {
        let server = scripted(&[("bl.test", Script::Listed(vec![lie, [127, 0, 0, 2]], 60))]).await;
        let dnsbl = dnsbl(&list("bl.test", 5), server);
        let first = report(&dnsbl, "203.0.113.5").await;
        assert_eq!((first.score, first.unknown, first.hits.len()), (0, 1, 0), "{lie:?}");
        let second = report(&dnsbl, "203.0.113.6").await;
        assert_eq!((second.score, second.unknown), (0, 1), "{lie:?}");
        let [status] = &dnsbl.status()[..] else { panic!("one list") };
        assert_eq!((status.queries, status.errors, status.hits), (1, 1, 0));
        assert!(status.parked && status.last_error.is_some());
    }
}

#[tokio::test]
async fn an_allow_list_cannot_let_in_by_an_error_code() {
    let server = scripted(&[("wl.test", Script::Listed(vec![[127, 0, 0, 255]], 60))]).await;
    let report = report(&dnsbl(&list("wl.test", -5), server), "203.0.113.5").await;
    assert_eq!((report.score, report.unknown), (0, 1));
}

#[tokio::test]
async fn an_ipv4_list_is_not_asked_about_ipv6_and_nothing_is_awaited() {
    let server = scripted(&[("bl.test", Script::Silent)]).await;
    let four = list("bl.test", 1) + "families = [\"ipv4\"]\n";
    let mut check = dnsbl(&four, server).start("2001:db8::1".parse().unwrap());
    let report = check.next_report().await;
    assert!(report.complete && report.unknown == 0);
}

/// The real thing, on a port of its own.
struct Rbldnsd {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Rbldnsd {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn rbldnsd() -> (Rbldnsd, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let soa = "$SOA 300 ns.bl.test. admin.bl.test. 0 600 300 86400 300\n";
    std::fs::write(directory.path().join("v4"), format!("{soa}127.0.0.2\n:127.0.0.4:listed\n203.0.113.0/25\n"))
        .unwrap();
    std::fs::write(directory.path().join("v6"), ":127.0.0.3:listed\n2001:db8:bad::/48\n").unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Another process may take the port between our look and rbldnsd's bind; then it ends, and the next port is tried.
    for _ in 0..10 {
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("rbldnsd");
        command.args(["-n", "-r", "/", "-w"]).arg(directory.path());
        command.args(["-b", &format!("127.0.0.1/{port}"), "bl.test:ip4set:v4", "bl.test:ip6trie:v6"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("rbldnsd is not installed: run cargo xtask setup");
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        for _ in 0..50 {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            let looked = Resolver::at(server).unwrap().a("2.0.0.127.bl.test.".to_owned()).await;
            if matches!(looked, resolver::Looked::Records(..)) {
                return (Rbldnsd { child, _directory: directory }, server);
            }
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!("rbldnsd does not start");
}

#[tokio::test]
async fn a_real_list_knows_who_is_listed_in_both_families() {
    let (_server, address) = rbldnsd().await;
    let dnsbl = dnsbl(&list("bl.test", 3), address);
    for (client, score) in [
        ("203.0.113.5", 3),
        ("203.0.113.200", 0),
        ("2001:db8:bad::5", 3),
        ("2001:db8::5", 0),
        ("::ffff:203.0.113.5", 3),
    ] {
        let report = report(&dnsbl, client).await;
        assert_eq!((report.score, report.unknown), (score, 0), "{client}: {:?}", dnsbl.status());
        assert!(report.ttl.is_some(), "{client}");
    }
}
