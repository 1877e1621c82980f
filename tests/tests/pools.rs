//! Pools of senders: members by SPF record from a real name server, one pass for all of them, and what is refused.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use screener_tests::cell;
use screener_tests::cli::{expect, expect_all};
use screener_tests::client::{Client, Reply};
use screener_tests::host::Host;
use screener_tests::mta::{BOB, DIRECT, Mta, RELAY};
use screener_tests::names::Names;
use screener_tests::net::{INTERNET, MX, Net, Plan};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::wait::until_or_show;

const SOON: Duration = Duration::from_secs(20);

struct Lab {
    mx: Host,
    internet: Host,
    names: Names,
    mta: Mta,
}

impl Lab {
    fn build(records: &[&str]) -> Result<Self> {
        let net = Net::new()?;
        let (mx, internet) = (net.host(&MX)?, net.host(&INTERNET)?);
        let dns = net.host(&Plan { name: "dns", addresses: &["192.0.2.53"], prefixes: &[] })?;
        let names = Names::start(&dns, "192.0.2.53".parse()?, records)?;
        mx.resolve_at(names.address())?;
        let mta = Mta::start(&mx, "")?;
        Ok(Self { mx, internet, names, mta })
    }

    /// A session up to its first recipient, and the reply to that.
    fn recipient(&self, source: &str) -> Result<(Client, Reply)> {
        let source: IpAddr = source.parse()?;
        let server = SocketAddr::new(if source.is_ipv4() { "192.0.2.10" } else { "2001:db8:25::10" }.parse()?, 25);
        let mut client = Client::connect(&self.internet, source, server)?;
        client.expect(220)?;
        client.ask("EHLO sender.example.net", 250)?;
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        client.send_line(&format!("RCPT TO:<{BOB}>"))?;
        let reply = client.read_reply()?;
        Ok((client, reply))
    }

    fn expect(&self, source: &str, code: u16) -> Result<()> {
        let (mut client, reply) = self.recipient(source)?;
        ensure!(reply.code == code, "{source}: {code} expected:\n{}", client.transcript());
        client.ask("QUIT", 221)?;
        Ok(())
    }
}

fn config(domains: &[&str]) -> String {
    let pools = domains.iter().map(|domain| format!("[[pool]]\ndomain = \"{domain}\"\nmin_refresh = \"1s\"\n"));
    format!("{USUAL}[backend]\nafter_tests = \"defer\"\n{}", pools.collect::<String>())
}

fn pool(screener: &Screener, domain: &str) -> Result<Value> {
    screener.json(&["pool", "show", domain, "--json"])
}

/// Waits until a pool has so many prefixes.
fn wait_for_prefixes(screener: &Screener, domain: &str, count: usize) -> Result<Value> {
    until_or_show(
        &format!("{domain} to have {count} prefixes"),
        SOON,
        || screener.log(),
        || {
            Ok(Some(pool(screener, domain)?)
                .filter(|pool| pool["prefixes"].as_array().is_some_and(|p| p.len() == count)))
        },
    )
}

/// A large sender as they are: a record that redirects to one that includes others.
const LARGE: [&str; 8] = [
    "large.example. 300 TXT \"v=spf1 redirect=_spf.large.example\"",
    "_spf.large.example. 300 TXT \"v=spf1 include:_four.large.example include:_six.large.example mx:large.example ~all\"",
    "_four.large.example. 300 TXT \"v=spf1 ip4:198.51.100.64/26 \" \"ip4:198.51.100.128/25 exists:%{i}.x.large.example -all\"",
    "_six.large.example. 300 TXT \"v=spf1 ip6:2001:db8:a::/48 ~all\"",
    "large.example. 300 MX 10 mail.large.example.",
    "large.example. 300 TXT \"a text about something else\"",
    "mail.large.example. 300 A 203.0.113.25",
    "mail.large.example. 300 AAAA 2001:db8:b:25::25",
];

#[test]
fn what_one_sender_of_a_domain_has_passed_all_its_senders_have_in_both_families() {
    cell::test("what_one_sender_of_a_domain_has_passed_all_its_senders_have_in_both_families", || {
        let lab = Lab::build(&LARGE)?;
        let screener = Screener::start(&lab.mx, &config(&["large.example"]))?;
        let shown = wait_for_prefixes(&screener, "large.example", 5)?;
        let expected =
            ["198.51.100.64/26", "198.51.100.128/25", "203.0.113.25/32", "2001:db8:a::/48", "2001:db8:b:25::25/128"];
        ensure!(shown["prefixes"] == serde_json::json!(expected), "{shown}");
        let left_out = "exists:%{i}.x.large.example of _four.large.example depends on the mail and cannot be expanded";
        ensure!(shown["left_out"] == serde_json::json!([left_out]) && shown["lookups"] == 5, "{shown}");
        ensure!(shown["passed_until"].is_null(), "{shown}");

        // One of them goes through the tests and hears 450; the next one, from anywhere in the pool, is served.
        lab.expect("198.51.100.70", 450)?;
        for other in ["198.51.100.200", "203.0.113.25", "2001:db8:a:7::1", "2001:db8:b:25::25"] {
            lab.expect(other, 250)?;
        }
        lab.expect("203.0.113.26", 450)?;
        let shown = pool(&screener, "large.example")?;
        ensure!(shown["passed_by"] == "198.51.100.70" && shown["passed_until"].is_string(), "{shown}");

        // The first time a member meets the daemon, from then on the kernel leaves it to the MTA.
        let other: IpAddr = "198.51.100.200".parse()?;
        lab.mta.wait_until_seen(RELAY, other, SOON)?;
        ensure!(!lab.mta.has_seen(DIRECT, other));
        lab.expect("198.51.100.200", 250)?;
        lab.mta.wait_until_seen(DIRECT, other, SOON)?;
        let explained = screener.explain(other)?;
        ensure!(explained["pass"]["origin"] == "pool" && explained["pool"]["domain"] == "large.example", "{explained}");
        let comment = explained["pass"]["comment"].as_str().context("a comment")?;
        ensure!(comment == "pool large.example, which passed by 198.51.100.70", "{comment}");
        let answer = explained["answer"].as_str().context("an answer")?;
        ensure!(
            answer.starts_with("On the list. It has a copy of its pool's pass (pool large.example, which"),
            "{answer}"
        );
        // One that was never here.
        let explained = screener.explain("198.51.100.130".parse()?)?;
        let summary = explained["summary"].as_str().context("a summary")?;
        ensure!(explained["verdict"] == "pass" && explained["pass"].is_null(), "{explained}");
        ensure!(
            summary.contains("belongs to the pool large.example (198.51.100.128/25), which has passed"),
            "{summary}"
        );
        Ok(())
    });
}

#[test]
fn a_pools_pass_outlives_the_daemon_and_can_be_taken_away() {
    cell::test("a_pools_pass_outlives_the_daemon_and_can_be_taken_away", || {
        let mut lab = Lab::build(&LARGE)?;
        let mut screener = Screener::start(&lab.mx, &config(&["large.example"]))?;
        wait_for_prefixes(&screener, "large.example", 5)?;
        lab.expect("198.51.100.70", 450)?;
        lab.expect("198.51.100.71", 250)?;
        screener.stop()?;
        // The DNS is silent when the daemon starts: the last good members stay.
        lab.names.sleep()?;
        screener.restart()?;
        lab.expect("198.51.100.72", 250)?;
        screener.wait_for_degraded("pool large.example: large.example TXT: no answer in time; the members of", true)?;
        lab.names.wake()?;
        screener.tell(&["pool", "refresh", "large.example"])?;
        screener.wait_for_degraded("pool large.example", false)?;

        // The copies go with the pass that they were made of.
        ensure!(screener.has_pass("198.51.100.71".parse()?)?);
        let dump = screener.tell(&["pass", "dump"])?;
        lab.mx.write("/var/tmp/passes", &dump)?;
        let told = screener.tell(&["pool", "forget", "large.example"])?;
        ensure!(told.contains("the next of its senders is screened"), "{told}");
        ensure!(!screener.has_pass("198.51.100.71".parse()?)?, "{}", screener.log());
        ensure!(screener.has_pass("198.51.100.70".parse()?)?, "that one has passed the tests itself");
        // Nor do they come back from a dump, as long as no pool vouches for them.
        let restore = &["pass", "restore", "/var/tmp/passes"];
        expect(&lab.mx, restore, 0, "copies of a pass of a pool that vouches for them no more")?;
        ensure!(!screener.has_pass("198.51.100.71".parse()?)?, "{}", screener.log());
        lab.expect("198.51.100.71", 450)?;
        lab.expect("198.51.100.72", 250)?;
        // Who takes a member's pass away wants it screened: its pool's pass goes too.
        let said = "the pass of its pool large.example went with it";
        expect(&lab.mx, &["pass", "del", "198.51.100.72"], 0, said)?;
        lab.expect("198.51.100.72", 450)?;

        // A domain that is no pool any more vouches for nobody.
        lab.expect("198.51.100.73", 250)?;
        lab.mx.write("/etc/screener/screener.toml", &config(&[]))?;
        let told = screener.tell(&["reload"])?;
        ensure!(told.contains("pool"), "{told}");
        screener.wait_for_log("198.51.100.73: pass taken back, its pool no longer vouches for it", SOON)?;
        lab.expect("198.51.100.73", 450)
    });
}

#[test]
fn members_follow_the_record_and_what_is_implausible_is_refused_and_shouted_about() {
    cell::test("members_follow_the_record_and_what_is_implausible_is_refused_and_shouted_about", || {
        let spf = |terms: &str| format!("moves.example. 1 TXT \"v=spf1 {terms} -all\"");
        let mut lab = Lab::build(&[&spf("ip4:198.51.100.0/25")])?;
        let mut screener = Screener::start(&lab.mx, &config(&["moves.example"]))?;
        wait_for_prefixes(&screener, "moves.example", 1)?;
        lab.expect("198.51.100.7", 450)?;
        lab.expect("198.51.100.8", 250)?;

        // By the TTL of the record, without anybody's doing.
        lab.names.replace(&[&spf("ip4:198.51.100.0/29 ip4:203.0.113.0/28")])?;
        wait_for_prefixes(&screener, "moves.example", 2)?;
        lab.expect("203.0.113.1", 250)?;
        screener.wait_for_log("198.51.100.8: pass taken back", SOON)?;

        for (terms, why) in [
            ("", "the new members of moves.example are refused: it names no address at all; the members of"),
            ("ip4:0.0.0.0/1", "0.0.0.0/1 is wider than /8 (IPv4) or /16 (IPv6); the members of"),
            ("ip4:198.51.0.0/16", "it grows from 24 IPv4 addresses to 65536 IPv4 addresses, more than 4 times"),
            ("ipv4:198.51.100.1", "\"ipv4:198.51.100.1\" is no term of an SPF record; the members of"),
            ("include:nobody.example", "the SPF record of nobody.example cannot be used: there is none"),
            ("include:moves.example", "it takes more than 10 lookups (RFC 7208 section 4.6.4)"),
            ("+all", "it ends in +all: everybody is its sender"),
        ] {
            lab.names.replace(&[&spf(terms)])?;
            expect(&lab.mx, &["pool", "refresh", "moves.example"], 2, "the members stay as they were")?;
            screener.wait_for_degraded(why, true)?;
            screener.wait_for_log(why, SOON)?;
            expect(&lab.mx, &["pool", "list"], 1, why)?;
            ensure!(pool(&screener, "moves.example")?["prefixes"].as_array().is_some_and(|it| it.len() == 2));
        }
        let metrics = lab.mx.ask("curl", &["-s", "http://127.0.0.1:9725/metrics"])?;
        ensure!(metrics.contains("screener_degraded{what=\"pool\"} 1"), "{metrics}");

        // Growth can be meant; to be everybody cannot.
        lab.names.replace(&[&spf("ip4:0.0.0.0/1")])?;
        expect(&lab.mx, &["pool", "refresh", "moves.example", "--accept"], 2, "is wider than /8")?;
        lab.names.replace(&[&spf("ip4:198.51.0.0/16")])?;
        let meant = "if it is meant: `screener pool refresh moves.example --accept`";
        expect(&lab.mx, &["pool", "refresh"], 2, "more than 4 times")?;
        screener.wait_for_degraded(meant, true)?;
        let told = screener.tell(&["pool", "refresh", "moves.example", "--accept"])?;
        ensure!(told.contains("moves.example: 1 prefixes, 65536 IPv4 addresses: 1 came, 2 went"), "{told}");
        screener.wait_for_degraded("moves.example", false)
    });
}

#[test]
fn pool_commands_say_what_is_wrong_and_what_to_do() {
    cell::test("pool_commands_say_what_is_wrong_and_what_to_do", || {
        let lab = Lab::build(&LARGE)?;
        expect(&lab.mx, &["pool", "list"], 2, "screener is not running")?;
        let screener = Screener::start(&lab.mx, &config(&["large.example"]))?;
        wait_for_prefixes(&screener, "large.example", 5)?;
        let unknown = "there is no pool other.example: `screener pool list` shows those of the configuration";
        for verb in ["show", "refresh", "forget"] {
            expect(&lab.mx, &["pool", verb, "other.example"], 1, unknown)?;
        }
        expect(&lab.mx, &["pool", "show", "not a domain"], 2, "\"not a domain\" is no domain")?;
        expect(&lab.mx, &["pool", "forget", "large.example"], 1, "the pool large.example has no pass")?;
        expect(&lab.mx, &["pool", "refresh", "--accept"], 2, "<DOMAIN>")?;
        expect_all(&lab.mx, &["pool", "list"], 0, &["large.example\t3\t2\t"])?;
        expect_all(
            &lab.mx,
            &["pool", "show", "LARGE.example."],
            0,
            &[
                "some test is owed: the next member is screened",
                "5 of 10 lookups; not expanded: 1",
                "\n2001:db8:a::/48\n",
            ],
        )?;
        expect(&lab.mx, &["pool", "refresh"], 0, "large.example: 5 prefixes, ")?;
        // A static entry stands above any pass.
        lab.expect("198.51.100.70", 450)?;
        screener.tell(&["deny", "add", "198.51.100.99/32", "--action", "reject"])?;
        let explained = screener.explain("198.51.100.99".parse()?)?;
        ensure!(explained["verdict"] == "deny" && explained["pool"]["domain"] == "large.example", "{explained}");
        let refused = lab.recipient("198.51.100.99");
        ensure!(refused.is_err(), "a denied member was served");
        Ok(())
    });
}
