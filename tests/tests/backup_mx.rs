//! `after_tests = "defer"` with `listen.pass_on`: postscreen's backup-MX trick, with a real sending Postfix.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use screener_tests::cell;
use screener_tests::cli::{self, expect, expect_all};
use screener_tests::client::{Client, Reply};
use screener_tests::host::Host;
use screener_tests::mta::{BOB, Mta};
use screener_tests::names::Names;
use screener_tests::net::{INTERNET, Net, Plan};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::sender::Sender;
use screener_tests::wait::until_or_show;

const SOON: Duration = Duration::from_secs(20);

const PRIMARY: &str = "192.0.2.10";
const BACKUP: &str = "192.0.2.20";

/// One host that is both MX hosts of the domain, the Internet, and a name server.
struct Lab {
    mx: Host,
    internet: Host,
    dns: Host,
    _mta: Mta,
}

impl Lab {
    fn build() -> Result<Self> {
        let net = Net::new()?;
        let addresses = &[PRIMARY, BACKUP, "2001:db8:25::10", "2001:db8:25::20"];
        let mx = net.host(&Plan { name: "mx", addresses, prefixes: &[] })?;
        let internet = net.host(&INTERNET)?;
        let dns = net.host(&Plan { name: "dns", addresses: &["192.0.2.53"], prefixes: &[] })?;
        let mta = Mta::start(&mx, "")?;
        Ok(Self { mx, internet, dns, _mta: mta })
    }

    /// Records for every host.
    fn names(&self, records: &[&str]) -> Result<Names> {
        let names = Names::start(&self.dns, "192.0.2.53".parse()?, records)?;
        for host in [&self.mx, &self.internet] {
            host.resolve_at(names.address())?;
        }
        Ok(names)
    }

    /// A session up to its first recipient, and the reply to that.
    fn recipient(&self, source: &str, server: &str) -> Result<(Client, Reply)> {
        self.session("sender.example.net", source, server)
    }

    /// The same, of a client that calls itself so.
    fn session(&self, name: &str, source: &str, server: &str) -> Result<(Client, Reply)> {
        let server = SocketAddr::new(server.parse()?, 25);
        let mut client = Client::connect(&self.internet, source.parse::<IpAddr>()?, server)?;
        client.expect(220)?;
        client.ask(&format!("EHLO {name}"), 250)?;
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        client.send_line(&format!("RCPT TO:<{BOB}>"))?;
        let reply = client.read_reply()?;
        Ok((client, reply))
    }
}

/// Passes are earned at the primary's addresses only.
fn config(mode: &str) -> String {
    format!(
        "{USUAL}[listen]\nmode = \"{mode}\"\npass_on = [\"{PRIMARY}\", \"2001:db8:25::10\"]\n\
         [backend]\nafter_tests = \"defer\"\n"
    )
}

#[test]
fn a_sending_postfix_is_deferred_by_the_primary_and_delivers_to_the_backup_within_seconds() {
    cell::test("a_sending_postfix_is_deferred_by_the_primary_and_delivers_to_the_backup_within_seconds", || {
        let lab = Lab::build()?;
        let _names = lab.names(&TWO_NAMES)?;
        let mut screener = Screener::start(&lab.mx, &config("steer"))?;
        let sender = Sender::start_by_mx(&lab.internet)?;
        let id = sender.send("alice@example.net", BOB, "Hello Bob")?;
        let line = sender.wait_for_attempt(&id, SOON)?;
        ensure!(line.status == "sent" && line.relay.contains("[192.0.2.20]:25"), "{line:?}\n{}", screener.log());
        ensure!(line.delay < 10.0, "{line:?}");
        let log = sender.postfix().log();
        ensure!(log.contains("mx1.example.com[192.0.2.10] said: 450 4.3.2 Service currently unavailable"), "{log}");
        screener.wait_for_log("PASS NEW [198.51.100.10]:", SOON)?;
        screener.wait_for_kernel_pass("198.51.100.10".parse()?)?;
        ensure!(screener.sessions()? <= 2, "{}", screener.log());
        // From now on the primary serves it, and the screener does not even see it.
        let before = screener.sessions()?;
        let id = sender.send("alice@example.net", BOB, "Hello again")?;
        let line = sender.wait_for_attempt(&id, SOON)?;
        ensure!(line.status == "sent" && line.relay.contains("[192.0.2.10]:25"), "{line:?}");
        ensure!(screener.sessions()? == before, "{}", screener.log());
        Ok(())
    });
}

#[test]
fn a_client_that_goes_to_the_backup_first_earns_nothing_there_and_is_served_there_once_it_has_passed() {
    cell::test(
        "a_client_that_goes_to_the_backup_first_earns_nothing_there_and_is_served_there_once_it_has_passed",
        || {
            let lab = Lab::build()?;
            let mut screener = Screener::start(&lab.mx, &config("steer"))?;
            let source = "203.0.113.7";
            for _ in 0..2 {
                let (mut client, reply) = lab.recipient(source, BACKUP)?;
                ensure!(reply.code == 450 && reply.contains("4.3.2"), "{}", reply.text());
                client.ask("QUIT", 221)?;
            }
            screener.wait_for_log(&format!("ALLOWLIST VETO [{source}]:"), SOON)?;
            ensure!(!screener.has_pass(source.parse()?)?, "{}", screener.log());
            let (mut client, reply) = lab.recipient(source, PRIMARY)?;
            ensure!(reply.code == 450, "{}", reply.text());
            client.ask("QUIT", 221)?;
            ensure!(screener.has_pass(source.parse()?)?, "{}", screener.log());
            let (_client, reply) = lab.recipient(source, BACKUP)?;
            ensure!(reply.code == 250, "{}", reply.text());
            Ok(())
        },
    );
}

#[test]
fn in_front_mode_the_primary_defers_and_the_backup_hands_over_what_has_passed() {
    cell::test("in_front_mode_the_primary_defers_and_the_backup_hands_over_what_has_passed", || {
        let net = Net::new()?;
        let mx = net.host(&Plan { name: "mx", addresses: &[PRIMARY, BACKUP], prefixes: &[] })?;
        let internet = net.host(&INTERNET)?;
        // The MTA leaves port 25 to the screener.
        let mut mta = Mta::start(&mx, "")?;
        mta.stop()?;
        let services = mx.read("/etc/postfix/master.cf")?.replace("\nsmtp inet ", "\n127.0.0.1:2525 inet ");
        mx.write("/etc/postfix/master.cf", &services)?;
        mta.resume()?;
        let config = format!(
            "{USUAL}[listen]\nmode = \"front\"\naddresses = [\"{PRIMARY}:25\", \"{BACKUP}:25\"]\n\
             pass_on = [\"{PRIMARY}\"]\n[backend]\nafter_tests = \"defer\"\n"
        );
        let screener = Screener::start(&mx, &config)?;
        let lab = Lab { dns: mx.clone(), mx, internet, _mta: mta };
        let source = "203.0.113.8";
        for (server, code) in [(BACKUP, 450), (PRIMARY, 450), (BACKUP, 250), (PRIMARY, 250)] {
            let (mut client, reply) = lab.recipient(source, server)?;
            ensure!(reply.code == code, "{server}: {}\n{}", reply.text(), screener.log());
            client.ask("QUIT", 221)?;
        }
        Ok(())
    });
}

const TWO_NAMES: [&str; 4] = [
    "example.com. 300 MX 10 mx1.example.com.",
    "example.com. 300 MX 20 mx2.example.com.",
    "mx1.example.com. 300 A 192.0.2.10",
    "mx2.example.com. 300 A 192.0.2.20",
];

/// What `check-mx` expects of one kind of sender.
fn expected(checked: &Value, sender: &str, families: &str) -> Option<String> {
    let mut senders = checked["senders"].as_array()?.iter();
    let found = senders.find(|it| it["sender"] == sender && it["families"] == families)?;
    found["outcome"].as_str().map(str::to_owned)
}

fn check(host: &Host, domain: &str) -> Result<Value> {
    let (_, said) = cli::run(host, &["check-mx", domain, "--json"])?;
    serde_json::from_str(&said).with_context(|| said.clone())
}

#[test]
fn check_mx_says_what_senders_will_do_and_what_stands_in_the_way() {
    cell::test("check_mx_says_what_senders_will_do_and_what_stands_in_the_way", || {
        let lab = Lab::build()?;
        let mut names = lab.names(&TWO_NAMES)?;
        let file = "/etc/screener/screener.toml";
        lab.mx.write(file, &config("steer"))?;
        let works = "the backup-MX trick works: a new sender is deferred once and served in the same run";
        expect_all(
            &lab.mx,
            &["check-mx", "example.com"],
            0,
            &[
                works,
                "10\tmx1.example.com\t192.0.2.10\tyes\tyes",
                "20\tmx2.example.com\t192.0.2.20\tyes\tno",
                "Postfix with IPv4: deferred once and served in the same run (it makes 2 sessions for a mail)",
                "2001:db8:25::10 is in listen.pass_on, but no MX of the domain leads there",
                "give them a [[pool]]",
            ],
        )?;

        // The case of a primary with both families and a backup with one.
        let dual = [&TWO_NAMES[..], &["mx1.example.com. 300 AAAA 2001:db8:25::10"]].concat();
        names.replace(&dual)?;
        let checked = check(&lab.mx, "Example.com.")?;
        ensure!(expected(&checked, "postfix", "both").as_deref() == Some("at_once"), "{checked}");
        ensure!(expected(&checked, "postfix", "ipv6").as_deref() == Some("later"), "{checked}");
        let only = "2001:db8:25::10 (mx1.example.com) is the only IPv6 address";
        expect_all(
            &lab.mx,
            &["check-mx", "example.com"],
            1,
            &["works for some senders", only, "served in the same run, if its EHLO name has both its addresses"],
        )?;
        lab.mx.write(file, &(config("steer") + "[link]\nenable = false\n"))?;
        expect(&lab.mx, &["check-mx", "example.com"], 1, "link.enable is false")?;
        let checked = check(&lab.mx, "example.com")?;
        ensure!(expected(&checked, "postfix", "both").as_deref() == Some("later"), "{checked}");
        ensure!(expected(&checked, "exim", "both").as_deref() == Some("at_once"), "{checked}");
        lab.mx.write(file, &config("steer"))?;

        names.replace(&["example.com. 300 MX 10 mx2.example.com.", TWO_NAMES[3]])?;
        let behind = "192.0.2.20 (mx2.example.com, preference 10) earns no pass and does not come behind one that does";
        expect_all(&lab.mx, &["check-mx", "example.com"], 1, &["does not work", behind, "the only IPv4 address"])?;

        names.replace(&["example.com. 300 MX 10 mx.example.net.", "mx.example.net. 300 A 203.0.113.1"])?;
        expect(&lab.mx, &["check-mx", "example.com"], 1, "none of the addresses of example.com is this host's")?;
        expect(&lab.mx, &["check-mx", "example.com", "--own", "203.0.113.1"], 1, "earns no pass")?;

        names.replace(&["example.com. 300 A 192.0.2.10", "null.example. 300 MX 0 ."])?;
        expect(&lab.mx, &["check-mx", "example.com"], 1, "has no MX record: senders take its own address")?;
        expect(&lab.mx, &["check-mx", "null.example"], 1, "says that it takes no mail")?;
        expect_all(&lab.mx, &["check-mx", "nobody.example"], 1, &["no sender finds a way", "has no address"])?;

        lab.mx.write(file, USUAL)?;
        names.replace(&TWO_NAMES)?;
        expect(&lab.mx, &["check-mx", "example.com"], 0, "backend.after_tests is \"relay\"")?;
        ensure!(check(&lab.mx, "example.com")?["verdict"] == "not_needed");

        // Errors.
        expect(&lab.mx, &["check-mx", "bob@example.com"], 2, "write what stands behind the @")?;
        expect(&lab.mx, &["check-mx", "192.0.2.1"], 2, "is no domain")?;
        expect(&lab.mx, &["check-mx", "example.com", "--config", "/etc/none.toml"], 2, "/etc/none.toml")?;
        names.sleep()?;
        expect(&lab.mx, &["check-mx", "example.com"], 2, "example.com MX: no answer in time")?;
        // Nobody listens there.
        lab.mx.write("/etc/resolv.conf", "nameserver 127.0.0.53\n")?;
        expect(&lab.mx, &["check-mx", "example.com"], 2, "example.com MX: ")?;
        lab.mx.ask("rm", &["/etc/resolv.conf"])?;
        lab.mx.ask("mkdir", &["/etc/resolv.conf"])?;
        expect(&lab.mx, &["check-mx", "example.com"], 2, "no resolver: /etc/resolv.conf: Is a directory")?;
        Ok(())
    });
}

/// The primary has both families, the backup one: reference/postscreen.md section 6.1. The sender's own name has both its
/// addresses.
const DUAL_PRIMARY: [&str; 7] = [
    TWO_NAMES[0],
    TWO_NAMES[1],
    TWO_NAMES[2],
    TWO_NAMES[3],
    "mx1.example.com. 300 AAAA 2001:db8:25::10",
    "internet.example.net. 300 A 198.51.100.10",
    "internet.example.net. 300 AAAA 2001:db8:a::10",
];

#[test]
fn a_dual_stack_primary_eats_both_sessions_of_a_postfix_whose_addresses_are_not_linked() {
    cell::test("a_dual_stack_primary_eats_both_sessions_of_a_postfix_whose_addresses_are_not_linked", || {
        let lab = Lab::build()?;
        let _names = lab.names(&DUAL_PRIMARY)?;
        let mut screener = Screener::start(&lab.mx, &(config("steer") + "[link]\nenable = false\n"))?;
        let sender = Sender::start_by_mx(&lab.internet)?;
        let id = sender.send("alice@example.net", BOB, "Hello Bob")?;
        let line = sender.wait_for_attempt(&id, SOON)?;
        ensure!(line.status == "deferred" && line.reply.contains("450 4.3.2"), "{line:?}");
        ensure!(line.relay.contains("[2001:db8:25::10]:25"), "the backup was reached: {line:?}");
        for passed in ["198.51.100.10", "2001:db8:a::10"] {
            screener.wait_for_log(&format!("PASS NEW [{passed}]:"), SOON)?;
        }
        ensure!(screener.log().matches("PASS NEW [").count() == 2, "{}", screener.log());
        Ok(())
    });
}

#[test]
fn a_postfix_with_both_families_is_known_by_its_name_and_delivers_in_its_second_session() {
    cell::test("a_postfix_with_both_families_is_known_by_its_name_and_delivers_in_its_second_session", || {
        let lab = Lab::build()?;
        let _names = lab.names(&DUAL_PRIMARY)?;
        let mut screener = Screener::start(&lab.mx, &config("steer"))?;
        let sender = Sender::start_by_mx(&lab.internet)?;
        let id = sender.send("alice@example.net", BOB, "Hello Bob")?;
        let line = sender.wait_for_attempt(&id, SOON)?;
        ensure!(line.status == "sent" && line.relay.contains("[2001:db8:25::10]:25"), "{line:?}\n{}", screener.log());
        ensure!(line.delay < 10.0, "{line:?}");
        ensure!(
            sender.postfix().log().contains("mx1.example.com[192.0.2.10] said: 450 4.3.2"),
            "it came by IPv4 first"
        );
        let told = screener.wait_for_log("LINKED [2001:db8:a::10]:", SOON)?;
        ensure!(told.contains(" with [198.51.100.10]: both are addresses of internet.example.net"), "{told}");
        for (one, other) in [("2001:db8:a::10", "198.51.100.10"), ("198.51.100.10", "2001:db8:a::10")] {
            let explained = screener.explain(one.parse()?)?;
            let linked = format!("[{other}]: both are addresses of internet.example.net");
            ensure!(explained["linked"] == linked.as_str(), "{explained}");
            let answer = explained["answer"].as_str().unwrap_or_default();
            ensure!(answer.ends_with(&format!("It is one sender with {linked}.")), "{answer}");
            ensure!(explained["pass"]["origin"] == "screened", "{explained}");
            expect(&lab.mx, &["explain", one], 0, &format!("linked with {linked}"))?;
        }
        Ok(())
    });
}

#[test]
fn a_postfix_whose_addresses_lie_in_one_pool_delivers_in_its_second_session() {
    cell::test("a_postfix_whose_addresses_lie_in_one_pool_delivers_in_its_second_session", || {
        let lab = Lab::build()?;
        let spf = "example.net. 300 TXT \"v=spf1 a:internet.example.net -all\"";
        let _names = lab.names(&[&DUAL_PRIMARY[..], &[spf]].concat())?;
        let pool = "[link]\nenable = false\n[[pool]]\ndomain = \"example.net\"\n";
        let mut screener = Screener::start(&lab.mx, &(config("steer") + pool))?;
        screener.wait_for_log("pool example.net: 2 prefixes", SOON)?;
        let sender = Sender::start_by_mx(&lab.internet)?;
        let id = sender.send("alice@example.net", BOB, "Hello Bob")?;
        let line = sender.wait_for_attempt(&id, SOON)?;
        ensure!(line.status == "sent" && line.relay.contains("[2001:db8:25::10]:25"), "{line:?}\n{}", screener.log());
        screener.wait_for_log("PASS OLD [2001:db8:a::10]:", SOON)?;
        let explained = screener.explain("2001:db8:a::10".parse()?)?;
        ensure!(explained["pass"]["comment"] == "pool example.net, which passed by 198.51.100.10", "{explained}");
        Ok(())
    });
}

#[test]
fn a_name_alone_links_nobody_and_nobody_waits_long_for_the_dns() {
    cell::test("a_name_alone_links_nobody_and_nobody_waits_long_for_the_dns", || {
        let lab = Lab::build()?;
        let mut names = lab.names(&[
            "a.example.net. 300 A 198.51.100.20",
            "a.example.net. 300 AAAA 2001:db8:a:20::1",
            "b.example.net. 300 A 198.51.100.30",
            "b.example.net. 300 AAAA 2001:db8:a:30::1",
            "c.example.net. 300 A 198.51.100.40",
            "c.example.net. 300 AAAA 2001:db8:a:40::1",
        ])?;
        // As long as an answer may take on a busy machine: that nobody waits longer is seen at the end.
        let screener = Screener::start(&lab.mx, &(config("steer") + "[link]\ndeadline = \"2s\"\n"))?;
        let expect = |name: &str, source: &str, code: u16| -> Result<Duration> {
            let server = if source.contains(':') { "2001:db8:25::10" } else { PRIMARY };
            let began = Instant::now();
            let (mut client, reply) = lab.session(name, source, server)?;
            ensure!(reply.code == code, "{name} from {source}: {}\n{}", reply.text(), screener.log());
            let took = began.elapsed();
            client.ask("QUIT", 221)?;
            Ok(took)
        };
        // Who comes next calls itself so, and is not at the name's address; nor is its neighbour in the same network.
        expect("a.example.net", "198.51.100.20", 450)?;
        expect("a.example.net", "2001:db8:b:66::1", 450)?;
        expect("a.example.net", "2001:db8:a:20::2", 450)?;
        // It is at the name's address, but who came before was not.
        expect("b.example.net", "198.51.100.31", 450)?;
        expect("b.example.net", "2001:db8:a:30::1", 450)?;
        expect("b.example.net", "198.51.100.30", 250).context("by now the name's IPv6 address has passed")?;
        let logged = || Ok(screener.log().contains("LINKED [198.51.100.30]:").then_some(()));
        until_or_show("the link to be logged", SOON, || screener.log(), logged)?;
        ensure!(screener.log().matches("LINKED [").count() == 1, "{}", screener.log());
        // Nobody says whether they are one.
        expect("c.example.net", "198.51.100.40", 450)?;
        names.sleep()?;
        let took = expect("c.example.net", "2001:db8:a:40::1", 450)?;
        // The greet wait is a second, and the deadline two.
        ensure!(took > Duration::from_millis(2_900) && took < Duration::from_secs(14), "{took:?}");
        Ok(())
    });
}
