//! A real DNS list answers about listed and unlisted addresses, and changes are seen.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::dns::Kind;
use screener_tests::dnsl::Dnsl;
use screener_tests::net::{Net, Plan};
use screener_tests::wait::until;

const SOON: Duration = Duration::from_secs(20);
const ZONE: &str = "bl.example";
const LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);

#[test]
fn a_list_answers_about_listed_and_unlisted_addresses() {
    cell::test("a_list_answers_about_listed_and_unlisted_addresses", || {
        let mut lists = start()?;
        for (prefix, inside, outside) in [
            ("203.0.113.80", "203.0.113.80", "203.0.113.81"),
            ("203.0.113.128/26", "203.0.113.130", "203.0.113.200"),
            ("2001:db8:b:80::/64", "2001:db8:b:80::5", "2001:db8:b:81::5"),
        ] {
            lists.list(ZONE, prefix, LISTED)?;
            let answer = lists.lookup(ZONE, inside.parse()?, Kind::A)?;
            ensure!(answer.code == 0 && answer.addresses == [LISTED], "{answer:?}");
            let answer = lists.lookup(ZONE, inside.parse()?, Kind::Txt)?;
            ensure!(answer.texts[0].contains(ZONE), "{answer:?}");
            let answer = lists.lookup(ZONE, outside.parse()?, Kind::A)?;
            ensure!(answer.code == 3 && answer.has_soa, "{answer:?}");
            lists.unlist(ZONE, prefix)?;
            let answer = lists.lookup(ZONE, inside.parse()?, Kind::A)?;
            ensure!(answer.code == 3, "{answer:?}");
        }
        Ok(())
    });
}

#[test]
fn a_list_has_its_test_points() {
    cell::test("a_list_has_its_test_points", || {
        let lists = start()?;
        for (point, listed) in
            [("127.0.0.2", true), ("127.0.0.1", false), ("::ffff:7f00:2", true), ("::ffff:7f00:1", false)]
        {
            let answer = lists.lookup(ZONE, point.parse()?, Kind::A)?;
            ensure!(answer.addresses.is_empty() != listed, "{point}: {answer:?}");
        }
        Ok(())
    });
}

#[test]
fn a_list_counts_who_was_asked_about_and_can_fall_silent() {
    cell::test("a_list_counts_who_was_asked_about_and_can_fall_silent", || {
        let mut lists = start()?;
        let address: IpAddr = "203.0.113.5".parse()?;
        ensure!(lists.queries(ZONE, address) == 0);
        lists.lookup(ZONE, address, Kind::A)?;
        // It notes a question when it has answered it.
        until("the question to be counted", SOON, || (lists.queries(ZONE, address) == 1).then_some(()))?;
        lists.sleep()?;
        ensure!(lists.is_silent(ZONE, address));
        lists.wake()?;
        lists.lookup(ZONE, address, Kind::A)?;
        Ok(())
    });
}

fn start() -> Result<Dnsl> {
    let host = Net::new()?.host(&Plan { name: "dns", addresses: &["192.0.2.53", "2001:db8:25::53"], prefixes: &[] })?;
    Dnsl::start(&host, &[ZONE, "other.example"])
}
