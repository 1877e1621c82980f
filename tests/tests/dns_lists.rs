//! DNS lists on a running daemon: a real rbldnsd behind a real unbound, and a scripted server for what those cannot be made
//! to do.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use screener_tests::cell;
use screener_tests::cli::{expect_all, run};
use screener_tests::client::{Client, Reply};
use screener_tests::dnsl::Dnsl;
use screener_tests::host::Host;
use screener_tests::mta::{BOB, Mta};
use screener_tests::net::{Family, Net, Plan};
use screener_tests::screener::Screener;
use screener_tests::scripted::{Fault, Scripted};
use screener_tests::unbound::Unbound;
use screener_tests::wait::until_or_show;

const SOON: Duration = Duration::from_secs(20);
const CONFIG: &str = r#"
hostname = "mx.example.com"
[tests.pregreet]
wait = "1s"
[kernel]
interfaces = ["eth0"]
[ladder]
enable = false
[control]
group = "root"
[tests.dnsbl]
threshold = 3
"#;

struct Lab {
    mx: Host,
    dns: Host,
    internet: Host,
    _mta: Mta,
}

impl Lab {
    fn build() -> Result<Self> {
        let net = Net::new()?;
        let mx = net.host(&Plan { name: "mx", addresses: &["192.0.2.10", "2001:db8:25::10"], prefixes: &[] })?;
        let dns = net.host(&Plan { name: "dns", addresses: &["192.0.2.53", "2001:db8:25::53"], prefixes: &[] })?;
        let internet = net.host(&Plan {
            name: "internet",
            addresses: &["198.51.100.10", "2001:db8:a::10"],
            prefixes: &["198.51.100.0/24", "203.0.113.0/24", "2001:db8:a::/48"],
        })?;
        let mta = Mta::start(&mx, "")?;
        Ok(Self { mx, dns, internet, _mta: mta })
    }

    /// A session up to its first recipient, and the reply to that.
    fn session(&self, source: &str) -> Result<(Client, Reply)> {
        let source: IpAddr = source.parse()?;
        let family = if source.is_ipv4() { Family::V4 } else { Family::V6 };
        let server = SocketAddr::new(self.mx.address(family)?, 25);
        let mut client = Client::connect(&self.internet, source, server)?;
        client.expect(220)?;
        client.ask("EHLO sender.example.net", 250)?;
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        client.send_line(&format!("RCPT TO:<{BOB}>"))?;
        let reply = client.read_reply()?;
        Ok((client, reply))
    }

    /// A real list, with one entry, and where it is asked.
    fn listing(&self, prefix: &str) -> Result<(Dnsl, IpAddr)> {
        let mut lists = Dnsl::start(&self.dns, &["bl.example"])?;
        lists.list("bl.example", prefix, [127, 0, 0, 4].into())?;
        let server = lists.address(Family::V4)?;
        Ok((lists, server))
    }

    fn scripted(&self, zones: &[&str]) -> Result<Scripted> {
        let server = Scripted::on(&self.dns, self.dns.address(Family::V4)?, zones)?;
        self.mx.resolve_at(self.dns.address(Family::V4)?)?;
        Ok(server)
    }
}

fn list(zone: &str, more: &str) -> String {
    format!("[[tests.dnsbl.list]]\nzone = \"{zone}\"\nweight = 3\n{more}\n")
}

fn list_status(screener: &Screener, zone: &str) -> Result<Value> {
    let shown = screener.json(&["dnsbl", "status", "--json"])?;
    let lists = shown["lists"].as_array().context("lists")?;
    lists.iter().find(|list| list["list"] == zone).cloned().with_context(|| format!("no {zone} in {shown}"))
}

fn wait_for_state(screener: &Screener, zone: &str, state: &str) -> Result<Value> {
    until_or_show(
        &format!("{zone} to be {state}"),
        SOON,
        || screener.log(),
        || Ok(Some(list_status(screener, zone)?).filter(|list| list["state"] == state)),
    )
}

fn dnsbl_stamp(screener: &Screener, source: &str) -> Result<Option<String>> {
    let shown = screener.explain(source.parse()?)?;
    Ok(shown["pass"]["expires"]["dnsbl"].as_str().map(str::to_owned))
}

#[test]
fn a_real_list_behind_a_real_resolver_is_asked_once_and_seen_through() {
    cell::test("a_real_list_behind_a_real_resolver_is_asked_once_and_seen_through", || {
        let lab = Lab::build()?;
        let mut lists = Dnsl::start(&lab.dns, &["bl.example", "wl.example"])?;
        lists.list("bl.example", "203.0.113.9", [127, 0, 0, 4].into())?;
        let server = lists.address(Family::V4)?;
        let mut resolver = Unbound::start(&lab.mx, &[("bl.example", server), ("wl.example", server)])?;
        let config = CONFIG.to_owned()
            + "deadline = \"2s\"\n"
            + "sites = [\"wl.example=127.0.[2..20].[1..3]*-2\"]\n"
            + &list("bl.example", "codes = { \"127.0.0.[2..7]\" = 3 }\nurl = \"https://bl.example/{address}\"");
        let screener = Screener::start(&lab.mx, &config)?;
        wait_for_state(&screener, "bl.example", "asked")?;

        let listed: IpAddr = "203.0.113.9".parse()?;
        let before = lists.queries("bl.example", listed);
        for _ in 0..2 {
            let (_client, reply) = lab.session("203.0.113.9")?;
            ensure!(reply.code == 550, "{}", reply.text());
            let expected = "blocked using bl.example; see https://bl.example/203.0.113.9; session=";
            ensure!(reply.contains(expected), "{}", reply.text());
        }
        let asked = lists.queries("bl.example", listed) - before;
        ensure!((1..=2).contains(&asked), "an address and a text, once each, not {asked}");
        let status = list_status(&screener, "bl.example")?;
        ensure!(status["listed"] == 2 && status["cached"] == 1 && status["alone"] == 2, "{status}");
        ensure!(status["p50"].is_number() && status["decisive"] == 2, "{status}");

        let output = screener.cli(&["test", "203.0.113.9", "--config", "/etc/screener/screener.toml", "--json"])?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        let tested: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(tested["score"] == 3 && tested["verdict"] == "fails", "{tested}");
        let bl = tested["lists"].as_array().and_then(|lists| lists.iter().find(|list| list["list"] == "bl.example"));
        let bl = bl.context("bl.example")?;
        ensure!(bl["codes"][0] == "127.0.0.4", "{bl}");
        ensure!(bl["text"].as_str().is_some_and(|text| text.contains("Listed by bl.example")), "{bl}");

        // The resolver dies: a client that nobody has asked about waits, and is served.
        resolver.sleep()?;
        let began = Instant::now();
        let (_client, reply) = lab.session("198.51.100.20")?;
        ensure!(reply.code == 250, "{}", reply.text());
        ensure!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        resolver.wake()?;
        let (_client, reply) = lab.session("198.51.100.21")?;
        ensure!(reply.code == 250, "{}", reply.text());
        Ok(())
    });
}

#[test]
fn a_list_that_dies_is_parked_told_of_once_and_comes_back() {
    cell::test("a_list_that_dies_is_parked_told_of_once_and_comes_back", || {
        let lab = Lab::build()?;
        let server = lab.scripted(&["bl.example", "other.example"])?;
        // Nobody waits so long: both lists answer, one of them with lies.
        let config = CONFIG.to_owned()
            + "deadline = \"30s\"\n"
            + &list("bl.example", "")
            + &list("other.example", "")
            + "[observe]\nlog = \"json\"\n";
        let screener = Screener::start(&lab.mx, &config)?;
        wait_for_state(&screener, "bl.example", "asked")?;
        server.fail("bl.example", Fault::Everything([127, 255, 255, 254].into()));
        let (_client, reply) = lab.session("203.0.113.9")?;
        ensure!(reply.code == 250, "an error code is no listing: {}", reply.text());
        let status = wait_for_state(&screener, "bl.example", "parked")?;
        ensure!(status["reason"] == "bad_answer", "{status}");
        ensure!(screener.cli(&["dnsbl", "status"])?.status.code() == Some(1), "a parked list is a no");
        let status = screener.json(&["status", "--json"])?;
        let told = status["degraded"].to_string();
        ensure!(told.contains("bl.example") && told.contains("public"), "{told}");
        for source in ["198.51.100.30", "198.51.100.31"] {
            ensure!(lab.session(source)?.1.code == 250);
        }
        ensure!(screener.log().matches("bl.example is left alone").count() == 1, "{}", screener.log());
        let decision =
            screener.log().lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| {
                line["event"] == "decision"
                    && line["client"].as_str().is_some_and(|client| client.starts_with("203.0.113.9:"))
            });
        let decision = decision.context("the decision")?;
        ensure!(
            decision["dnsbl"]["score"] == 0 && decision["dnsbl"]["unknown"][0]["list"] == "bl.example",
            "{decision}"
        );
        let status = list_status(&screener, "other.example")?;
        ensure!(status["state"] == "asked" && status["unknown"] == 0, "{status}");
        Ok(())
    });
}

#[test]
fn a_list_that_dies_under_a_thousand_waiting_clients_costs_each_less_than_its_deadline() {
    cell::test("a_list_that_dies_under_a_thousand_waiting_clients_costs_each_less_than_its_deadline", || {
        let lab = Lab::build()?;
        let server = lab.scripted(&["dying.example", "good.example"])?;
        let config = CONFIG.to_owned()
            + "deadline = \"60s\"\n"
            + &list("dying.example", "")
            + &list("good.example", "")
            + "[tests.pipelining]\nenable = false\n";
        let screener = Screener::start(&lab.mx, &config)?;
        wait_for_state(&screener, "dying.example", "asked")?;
        server.list("good.example", "203.0.113.9", &[[127, 0, 0, 2]]);
        server.fail("dying.example", Fault::Drop);
        let port_25 = SocketAddr::new(lab.mx.address(Family::V4)?, 25);
        let mut clients = Vec::new();
        for number in 0..1000_u32 {
            let last = 1 + number % 250;
            let source = if number % 2 == 0 { format!("198.51.100.{last}") } else { format!("203.0.113.{last}") };
            let began = Instant::now();
            let mut client = Client::connect(&lab.internet, source.parse::<IpAddr>()?, port_25)?;
            client.set_patience(Duration::from_secs(60));
            clients.push((began, client));
        }
        let mut longest = Duration::ZERO;
        for (began, client) in &mut clients {
            client.expect(220)?;
            longest = longest.max(began.elapsed());
        }
        // Most of it is the time that a thousand need to connect.
        ensure!(longest < Duration::from_secs(50), "somebody waited {longest:?} for a list that was dead");
        drop(clients);
        let status = list_status(&screener, "dying.example")?;
        ensure!(status["state"] == "parked" && status["reason"] == "silent", "{status}");
        let status = list_status(&screener, "good.example")?;
        ensure!(status["state"] == "asked" && status["unknown"] == 0, "{status}");
        // The other list goes on to do its work, and nobody waits for the dead one any more.
        let began = Instant::now();
        let (_client, reply) = lab.session("203.0.113.9")?;
        ensure!(
            reply.code == 550 && began.elapsed() < Duration::from_secs(30),
            "{} {:?}",
            reply.text(),
            began.elapsed()
        );
        Ok(())
    });
}

#[test]
fn a_client_that_is_sent_away_at_the_first_answer_counts_for_the_lists_that_answer_later_too() {
    cell::test("a_client_that_is_sent_away_at_the_first_answer_counts_for_the_lists_that_answer_later_too", || {
        let lab = Lab::build()?;
        let server = lab.scripted(&["fast.example", "slow.example"])?;
        let config = CONFIG.to_owned() + "action = \"drop\"\n" + &list("fast.example", "") + &list("slow.example", "");
        let screener = Screener::start(&lab.mx, &config)?;
        for zone in ["fast.example", "slow.example"] {
            wait_for_state(&screener, zone, "asked")?;
            server.list(zone, "203.0.113.9", &[[127, 0, 0, 2]]);
        }
        server.fail("slow.example", Fault::Hold);
        let port_25 = SocketAddr::new(lab.mx.address(Family::V4)?, 25);
        let mut client = Client::connect(&lab.internet, "203.0.113.9".parse::<IpAddr>()?, port_25)?;
        client.expect(220)?;
        client.expect(521)?;
        server.let_go("slow.example");
        let shown = until_or_show(
            "the answer that came later to be counted",
            SOON,
            || screener.log(),
            || Ok(Some(list_status(&screener, "slow.example")?).filter(|list| list["listed"] == 1)),
        )?;
        ensure!(shown["alone"] == 0 && shown["decisive"] == 0, "{shown}");
        let fast = list_status(&screener, "fast.example")?;
        ensure!(fast["listed"] == 1 && fast["alone"] == 0 && fast["decisive"] == 0, "{fast}");
        let overlap = &screener.json(&["dnsbl", "status", "--json"])?["overlap"];
        ensure!(overlap[0]["clients"] == 1 && overlap[1].is_null(), "{overlap}");
        Ok(())
    });
}

#[test]
fn a_late_answer_takes_back_the_pass_that_was_just_given() {
    cell::test("a_late_answer_takes_back_the_pass_that_was_just_given", || {
        let lab = Lab::build()?;
        let server = lab.scripted(&["late.example"])?;
        // The sooner it is handed over the more time is left until the resolver gives up asking.
        let hasty = CONFIG.replace("wait = \"1s\"", "wait = \"100ms\"");
        let config = hasty + "deadline = \"100ms\"\n" + &list("late.example", "");
        let mut screener = Screener::start(&lab.mx, &config)?;
        wait_for_state(&screener, "late.example", "asked")?;
        server.list("late.example", "203.0.113.9", &[[127, 0, 0, 2]]);
        server.fail("late.example", Fault::Hold);
        let (mut client, reply) = lab.session("203.0.113.9")?;
        ensure!(reply.code == 250, "handed over before the list has answered: {}", reply.text());
        server.let_go("late.example");
        let line = screener.wait_for_log("pass withdrawn", SOON)?;
        ensure!(line.contains("203.0.113.9") && line.contains("late.example +3 (127.0.0.2)"), "{line}");
        ensure!(dnsbl_stamp(&screener, "203.0.113.9")?.is_none(), "{}", screener.explain("203.0.113.9".parse()?)?);
        client.ask("QUIT", 221)?;
        // The answer is known now: the next time it is refused, and the list is not asked.
        let (_client, reply) = lab.session("203.0.113.9")?;
        ensure!(reply.code == 550, "{}", reply.text());
        ensure!(list_status(&screener, "late.example")?["questions"] == 1);
        Ok(())
    });
}

#[test]
fn a_late_answer_that_leaves_a_pass_to_one_allow_list_takes_it_back() {
    cell::test("a_late_answer_that_leaves_a_pass_to_one_allow_list_takes_it_back", || {
        let lab = Lab::build()?;
        let server = lab.scripted(&["late.example", "wl.example"])?;
        let hasty = CONFIG.replace("wait = \"1s\"", "wait = \"100ms\"");
        let config = hasty
            + "deadline = \"100ms\"\n"
            + &list("late.example", "")
            + "[[tests.dnsbl.list]]\nzone = \"wl.example\"\nweight = -1\n";
        let mut screener = Screener::start(&lab.mx, &config)?;
        wait_for_state(&screener, "late.example", "asked")?;
        wait_for_state(&screener, "wl.example", "asked")?;
        for zone in ["late.example", "wl.example"] {
            server.list(zone, "203.0.113.9", &[[127, 0, 0, 2]]);
        }
        server.fail("late.example", Fault::Hold);
        let (_client, reply) = lab.session("203.0.113.9")?;
        ensure!(reply.code == 250, "handed over before the list has answered: {}", reply.text());
        ensure!(dnsbl_stamp(&screener, "203.0.113.9")?.is_some(), "{}", screener.log());
        server.let_go("late.example");
        let line = screener.wait_for_log("pass withdrawn", SOON)?;
        let said = "it rests on one allow list alone: DNSBL rank 2: late.example +3 (127.0.0.2), wl.example -1";
        ensure!(line.contains(said), "{line}");
        ensure!(dnsbl_stamp(&screener, "203.0.113.9")?.is_none(), "{}", screener.explain("203.0.113.9".parse()?)?);
        Ok(())
    });
}

#[test]
fn a_pass_in_use_is_renewed_before_it_expires() {
    cell::test("a_pass_in_use_is_renewed_before_it_expires", || {
        let lab = Lab::build()?;
        let server = lab.scripted(&["bl.example"])?;
        let config = CONFIG.to_owned() + "min_ttl = \"60s\"\nmax_ttl = \"60s\"\n" + &list("bl.example", "");
        let screener = Screener::start(&lab.mx, &config)?;
        for source in ["198.51.100.40", "198.51.100.41", "2001:db8:a:7::40"] {
            let (mut client, reply) = lab.session(source)?;
            ensure!(reply.code == 250, "{}", reply.text());
            client.ask("QUIT", 221)?;
        }
        let first = dnsbl_stamp(&screener, "198.51.100.40")?.context("a pass")?;
        let first_v6 = dnsbl_stamp(&screener, "2001:db8:a:7::40")?.context("a pass")?;
        // One of each family comes again, and the daemon does not even see it.
        for source in ["198.51.100.40", "2001:db8:a:7::40"] {
            screener.wait_for_kernel_pass(source.parse()?)?;
            let (mut client, _) = lab.session(source)?;
            client.ask("QUIT", 221)?;
        }
        let renewed = |source: &str, first: &str| {
            until_or_show(
                &format!("the pass of {source} to be renewed"),
                Duration::from_secs(75),
                || screener.log(),
                || Ok(dnsbl_stamp(&screener, source)?.filter(|stamp| stamp.as_str() > first)),
            )
        };
        let stamp = renewed("198.51.100.40", &first)?;
        ensure!(server.asked("bl.example", "198.51.100.40") == 2, "asked again, to {stamp}");
        let used = screener.explain("198.51.100.40".parse()?)?;
        ensure!(used["sessions"] == 1 && used["let_through"].is_string(), "in use by the kernel alone: {used}");
        ensure!(server.asked("bl.example", "198.51.100.41") == 1, "nobody uses that one");
        // A network has passed; the list is asked about the address.
        renewed("2001:db8:a:7::40", &first_v6)?;
        ensure!(server.asked("bl.example", "2001:db8:a:7::40") == 2, "asked again about itself");
        ensure!(server.asked("bl.example", "2001:db8:a:7::") == 0, "nobody has that one");
        Ok(())
    });
}

#[test]
fn a_host_that_names_no_resolver_asks_its_own_as_soon_as_there_is_one() {
    cell::test("a_host_that_names_no_resolver_asks_its_own_as_soon_as_there_is_one", || {
        let lab = Lab::build()?;
        let (_lists, server) = lab.listing("203.0.113.9")?;
        lab.mx.write("/etc/resolv.conf", "search not..a.domain\noptions edns0 trust-ad\n")?;
        let screener = Screener::start(&lab.mx, &(CONFIG.to_owned() + &list("bl.example", "")))?;
        let (_client, reply) = lab.session("203.0.113.9")?;
        ensure!(reply.code == 250, "nobody answers, and no mail waits for that: {}", reply.text());
        let _resolver = Unbound::start_unnamed(&lab.mx, &[("bl.example", server)])?;
        until_or_show(
            "a listed client to be refused",
            SOON,
            || screener.log(),
            || Ok(lab.session("203.0.113.9").ok().filter(|(_, reply)| reply.code == 550)),
        )?;
        Ok(())
    });
}

#[test]
fn while_the_first_resolver_is_sick_the_second_one_is_asked_and_everybody_is_told() {
    cell::test("while_the_first_resolver_is_sick_the_second_one_is_asked_and_everybody_is_told", || {
        let lab = Lab::build()?;
        let (_lists, server) = lab.listing("203.0.113.0/24")?;
        let mut first = Unbound::start(&lab.mx, &[("bl.example", server)])?;
        let resolvers = format!("resolvers = [\"127.0.0.1:53\", \"{server}:53\"]\n");
        let mut screener = Screener::start(&lab.mx, &(CONFIG.to_owned() + &resolvers + &list("bl.example", "")))?;
        wait_for_state(&screener, "bl.example", "asked")?;
        first.sleep()?;
        let mut clients = (1..=90).map(|last| format!("203.0.113.{last}"));
        let refused = |source: &str| Ok::<_, anyhow::Error>(lab.session(source)?.1.code == 550);
        until_or_show(
            "a listed client to be refused all the same",
            SOON * 2,
            || screener.log(),
            || Ok(refused(&clients.next().context("no client is left")?)?.then_some(())),
        )?;
        let told = "the resolver 127.0.0.1:53 is sick (no answer in time): others are asked in its place";
        screener.wait_for_log(told, SOON)?;
        screener.wait_for_degraded(told, true)?;
        ensure!(screener.tell(&["dnsbl", "status"])?.contains(told));
        first.wake()?;
        let second = Duration::from_secs(1);
        while screener.wait_for_log("the resolver 127.0.0.1:53 is well again", second).is_err() {
            let source = clients.next().with_context(|| format!("it is not:\n{}", screener.log()))?;
            ensure!(
                refused(&source)?,
                "{source} was not refused, but the list is asked all the time:\n{}",
                screener.log()
            );
        }
        screener.wait_for_degraded(told, false)
    });
}

#[test]
fn doctor_sees_whom_the_local_stub_asks() {
    cell::test("doctor_sees_whom_the_local_stub_asks", || {
        let mx = Net::mx()?;
        mx.write("/run/systemd/resolve/resolv.conf", "nameserver 9.9.9.9\nnameserver 192.168.7.1\n")?;
        mx.resolve_at("127.0.0.53".parse()?)?;
        mx.write("/etc/screener/screener.toml", &(CONFIG.to_owned() + &list("bl.example", "")))?;
        let warned = "9.9.9.9, which 127.0.0.53:53 (systemd-resolved) asks, is a public resolver of Quad9";
        expect_all(
            &mx,
            &["doctor"],
            1,
            &[warned, "the resolver 127.0.0.53:53 does not answer", "run a resolver of this host's own"],
        )
    });
}

#[test]
fn doctor_takes_a_resolver_on_an_address_of_this_host_for_its_own() {
    cell::test("doctor_takes_a_resolver_on_an_address_of_this_host_for_its_own", || {
        let mx = Net::mx()?;
        mx.resolve_at("192.0.2.10".parse()?)?;
        mx.write("/etc/screener/screener.toml", &(CONFIG.to_owned() + &list("bl.example", "")))?;
        let (_, said) = run(&mx, &["doctor"])?;
        ensure!(said.contains("the resolver 192.0.2.10:53 does not answer"), "{said}");
        ensure!(!said.contains("192.0.2.10:53 is a resolver somewhere else"), "{said}");
        mx.resolve_at("192.0.2.53".parse()?)?;
        expect_all(&mx, &["doctor"], 1, &["192.0.2.53:53 is a resolver somewhere else"])
    });
}
