//! The configuration taken in anew while the daemon runs: what is wrong leaves the old one in force, what is right holds from
//! then on, and no session is disturbed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use screener_tests::cell;
use screener_tests::cli::expect_all;
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::mta::{DIRECT, Mta, RELAY};
use screener_tests::net::{Family, Net, Plan};
use screener_tests::screener::{Screener, USUAL, command};
use screener_tests::scripted::Scripted;
use screener_tests::wait::{until, until_or_show};

const SOON: Duration = Duration::from_secs(20);

fn port_25(mx: &Host) -> Result<SocketAddr> {
    Ok(SocketAddr::new(mx.address(Family::V4)?, 25))
}

/// A session through all tests, to its end. How many lines the greeting had: the daemon's has two, the MTA's one.
fn session(internet: &Host, source: &str, server: SocketAddr) -> Result<usize> {
    let mut client = Client::connect(internet, source.parse::<IpAddr>()?, server)?;
    let lines = client.expect(220)?.lines.len();
    client.begin_mail(250)?;
    client.ask("QUIT", 221)?;
    Ok(lines)
}

fn strings(report: &Value, key: &str) -> Vec<String> {
    let list = report[key].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// What the metrics on the control socket hold.
fn metrics(mx: &Host) -> Result<String> {
    mx.ask("curl", &["-s", "--unix-socket", "/run/screener/control.sock", "http://screener/metrics"])
}

#[test]
fn a_bad_configuration_leaves_the_old_one_in_force_and_is_loud_until_a_good_one_comes() {
    cell::test("a_bad_configuration_leaves_the_old_one_in_force_and_is_loud_until_a_good_one_comes", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let file = "/etc/screener/screener.toml";
        for (bad, said) in [
            ("[tests.pregreet]\nwait = \"six\"\n", "screener.toml:2:8: tests.pregreet.wait: "),
            ("[limits]\ncommnads = 7\n", "screener.toml:2:1: limits.commnads: unknown key: did you mean `commands`?"),
            ("listen = [", "screener.toml:1:"),
            (
                "[[deny]]\nprefix = \"192.0.2.0/24\"\naction = \"drop\"\n",
                "screener.toml:2:10: deny[0].prefix: denying 192.0.2.0/24 would cover",
            ),
            ("[[tests.dnsbl.list]]\nzone = \"a.example\"\ncodes = { \"127.0.0.[9..2]\" = 1 }\n", "screener.toml:3:"),
            ("[tls]\ncertificate = \"/etc/screener/no.pem\"\nkey = \"/etc/screener/no.key\"\n", "/etc/screener/no.pem"),
            (
                "[observe]\nmetrics = \"203.0.113.77:9725\"\n",
                "observe.metrics: 203.0.113.77:9725 cannot be listened on",
            ),
        ] {
            screener.configure(bad)?;
            expect_all(&mx, &["reload"], 2, &[said])?;
            screener.wait_for_degraded(said, true)?;
        }
        ensure!(metrics(&mx)?.contains("screener_degraded{what=\"config\"} 1"));
        screener.wait_for_log("error: reload refused, the configuration stays as it was: /etc/screener", SOON)?;
        ensure!(session(&internet, "198.51.100.40", port_25(&mx)?)? == 2, "the old configuration serves");

        mx.ask("rm", &[file])?;
        expect_all(&mx, &["reload"], 2, &[file, "cannot read the configuration"])?;

        screener.configure(USUAL)?;
        expect_all(&mx, &["reload"], 0, &["nothing has changed"])?;
        screener.wait_for_degraded("the configuration read at", false)?;
        let told = metrics(&mx)?;
        ensure!(told.contains("screener_reloads_total{outcome=\"refused\"} 8"), "{told}");
        ensure!(told.contains("screener_reloads_total{outcome=\"taken\"} 1"), "{told}");

        // By the signal it is the same, and what is said stands in the log.
        screener.configure("[limits]\ncommands = 0\n")?;
        screener.signal(Signal::HUP)?;
        screener.wait_for_log("limits.commands: 0 is out of range", SOON)?;
        screener.wait_for_degraded("limits.commands: 0 is out of range", true)?;
        screener.configure(&USUAL.replace("\"1s\"", "\"2s\""))?;
        screener.signal(Signal::HUP)?;
        screener.wait_for_log("taken in anew, changed: tests.pregreet.wait", SOON)?;
        screener.wait_for_degraded("limits.commands", false)
    });
}

#[test]
fn what_needs_a_restart_is_named_and_what_does_not_is_in_force() {
    cell::test("what_needs_a_restart_is_named_and_what_does_not_is_in_force", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let other = USUAL.to_owned()
            + "[ledger]\npath = \"/var/lib/screener/other.redb\"\nretention = \"9d\"\n[listen]\nmode = \"front\"\n";
        let report = screener.reload(&other)?;
        ensure!(strings(&report, "changed") == ["ledger.retention"], "{report}");
        ensure!(strings(&report, "needs_restart") == ["listen.mode", "ledger.path"], "{report}");
        expect_all(&mx, &["reload"], 0, &["nothing has changed", "needs a restart: ledger.path"])?;
        expect_all(&mx, &["status"], 0, &["needs a restart: listen.mode stands otherwise in the file"])?;
        ensure!(!mx.path("/var/lib/screener/other.redb").exists());
        // By its stamp the file is from tomorrow: changed since it was read.
        mx.ask("touch", &["-d", "tomorrow", "/etc/screener/screener.toml"])?;
        let doctor = mx.run(&mut command(&mx, &[], &["doctor"])?)?;
        let found = String::from_utf8_lossy(&doctor.stdout).into_owned();
        ensure!(
            found.contains("daemon: it runs with other values than the file has for listen.mode, ledger.path"),
            "{found}"
        );
        ensure!(found.contains("when it was read: `screener reload` takes it in"), "{found}");
        screener.wait_for_log("these need a restart: listen.mode, ledger.path", SOON)?;

        let report = screener.reload(&USUAL.replace("\"root\"", "\"nosuchgroup\""))?;
        ensure!(strings(&report, "changed") == ["ledger.retention", "control.group"], "{report}");
        screener.wait_for_degraded("there is no group nosuchgroup", true)?;
        screener.reload(USUAL)?;
        screener.wait_for_degraded("there is no group nosuchgroup", false)
    });
}

#[test]
fn a_mail_half_sent_goes_on_and_a_client_under_test_keeps_the_rules_it_began_with() {
    cell::test("a_mail_half_sent_goes_on_and_a_client_under_test_keeps_the_rules_it_began_with", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let screener = Screener::start(&mx, USUAL)?;
        let mut sending = Client::connect(&internet, "198.51.100.41".parse()?, port_25(&mx)?)?;
        sending.expect(220)?;
        sending.begin_text()?;
        let mut testing = Client::connect(&internet, "198.51.100.42".parse()?, port_25(&mx)?)?;
        until("both to be counted", SOON, || (screener.sessions().ok()? == 2).then_some(()))?;

        let other = USUAL.replace("mx.example.com", "other.example.com") + "[backend]\nafter_tests = \"defer\"\n";
        let report = screener.reload(&other)?;
        ensure!(strings(&report, "changed") == ["hostname", "backend.after_tests"], "{report}");

        ensure!(testing.expect(220)?.contains("mx.example.com"), "{}", testing.transcript());
        testing.begin_mail(250)?;
        testing.ask("QUIT", 221)?;
        sending.send_line("last\r\n.")?;
        sending.expect(250)?;
        sending.ask("QUIT", 221)?;
        ensure!(mta.wait_for_mail(1, SOON)?[0].body == "first\nlast\n");

        let mut next = Client::connect(&internet, "198.51.100.43".parse()?, port_25(&mx)?)?;
        ensure!(next.expect(220)?.contains("other.example.com"), "{}", next.transcript());
        next.begin_mail(450)?;
        Ok(())
    });
}

#[test]
fn permits_and_denies_of_the_file_follow_it_and_those_of_commands_stay() {
    cell::test("permits_and_denies_of_the_file_follow_it_and_those_of_commands_stay", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let deny = |prefix: &str, action: &str| format!("[[deny]]\nprefix = \"{prefix}\"\naction = \"{action}\"\n");
        let permit = |prefix: &str| format!("[[permit]]\nprefix = \"{prefix}\"\ncomment = \"ours\"\n");
        let first = USUAL.to_owned() + &deny("198.51.100.64/27", "reject") + &permit("198.51.100.96/27");
        let screener = Screener::start(&mx, &first)?;
        screener.tell(&["deny", "add", "198.51.100.200/32", "--action", "reject"])?;
        screener.tell(&["permit", "add", "198.51.100.201/32"])?;
        let refused = |source: &str| -> Result<bool> {
            Ok(Client::connect(&internet, source.parse()?, port_25(&mx)?)
                .is_err_and(|error| matches!(error, screener_tests::client::Trouble::Refused)))
        };
        let verdict = |source: &str| -> Result<String> {
            let shown = screener.explain(source.parse()?)?;
            Ok(shown["verdict"].as_str().context("a verdict")?.to_owned())
        };
        ensure!(refused("198.51.100.70")? && verdict("198.51.100.100")? == "permit");

        // Another network of this host's own, and an address that it did not have before.
        mx.ask("ip", &["addr", "add", "198.51.100.222/32", "dev", "lo"])?;
        let second = USUAL.to_owned() + &deny("198.51.100.128/27", "reject") + &permit("198.51.100.160/27");
        let report = screener.reload(&second)?;
        ensure!(strings(&report, "changed") == ["permit", "deny"], "{report}");
        ensure!(strings(&report, "notes")[0].contains("3 new, 2 gone"), "{report}");
        ensure!(!refused("198.51.100.70")? && refused("198.51.100.130")?, "the kernel follows");
        ensure!(verdict("198.51.100.100")? == "screen" && verdict("198.51.100.165")? == "permit");
        ensure!(verdict("198.51.100.222")? == "permit", "an address of this host");
        ensure!(refused("198.51.100.200")? && verdict("198.51.100.201")? == "permit", "made by command");
        ensure!(session(&internet, "198.51.100.165", port_25(&mx)?)? == 1, "straight to the MTA");

        // Refused as a whole: what would have been new is not there.
        let third = second.clone() + &permit("198.51.100.40/32") + &deny("198.51.100.32/27", "drop");
        screener.configure(&third)?;
        expect_all(&mx, &["reload"], 2, &["denying 198.51.100.32/27 would cover 198.51.100.40/32", "deny[1].prefix"])?;
        ensure!(verdict("198.51.100.40")? == "screen" && refused("198.51.100.130")?);
        Ok(())
    });
}

#[test]
fn a_test_that_is_enabled_later_is_owed_by_those_who_passed_before() {
    cell::test("a_test_that_is_enabled_later_is_owed_by_those_who_passed_before", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let without = USUAL.to_owned() + "[tests.bare_newline]\nenable = false\n";
        let screener = Screener::start(&mx, &without)?;
        let source = "198.51.100.44";
        let greeting = || session(&internet, source, port_25(&mx)?);
        ensure!(greeting()? == 2);
        let by_the_kernel = |seen: bool| {
            until_or_show(
                "the kernel to follow",
                SOON,
                || screener.log(),
                || {
                    let passes = screener.json(&["kernel", "map", "list", "pass", "--json"])?;
                    Ok((passes.to_string().contains(source) == seen).then_some(()))
                },
            )
        };
        by_the_kernel(true)?;
        ensure!(greeting()? == 1, "straight to the MTA");
        mta.wait_until_seen(DIRECT, source.parse()?, SOON)?;

        let report = screener.reload(USUAL)?;
        ensure!(strings(&report, "changed") == ["tests.bare_newline.enable"], "{report}");
        let passes = screener.json(&["kernel", "map", "list", "pass", "--json"])?;
        ensure!(!passes.to_string().contains(source), "out of the kernel when reload answers: {passes}");
        let explained = screener.explain(source.parse()?)?;
        ensure!(
            explained["summary"].as_str().is_some_and(|said| said.contains("screened (bare_newline)")),
            "{explained}"
        );
        // Back before it was tested: the pass that it has is enough again.
        screener.reload(&without)?;
        ensure!(greeting()? == 1);
        screener.reload(USUAL)?;
        ensure!(screener.sessions()? == 1);
        greeting()?;
        ensure!(screener.sessions()? == 2, "screened for the test that is new");
        by_the_kernel(true)?;
        ensure!(greeting()? == 1 && screener.sessions()? == 2);
        Ok(())
    });
}

#[test]
fn what_the_dns_lists_have_said_is_kept() {
    cell::test("what_the_dns_lists_have_said_is_kept", || {
        let net = Net::new()?;
        let mx = net.host(&Plan { name: "mx", addresses: &["192.0.2.10"], prefixes: &[] })?;
        let dns = net.host(&Plan { name: "dns", addresses: &["192.0.2.53"], prefixes: &[] })?;
        let internet =
            net.host(&Plan { name: "internet", addresses: &["198.51.100.10"], prefixes: &["198.51.100.0/24"] })?;
        let _mta = Mta::start(&mx, "")?;
        let server = Scripted::on(&dns, dns.address(Family::V4)?, &["one.example", "two.example"])?;
        mx.resolve_at(dns.address(Family::V4)?)?;
        let source = "198.51.100.45";
        server.list("one.example", source, &[[127, 0, 0, 2]]);
        let list = |zone: &str| format!("[[tests.dnsbl.list]]\nzone = \"{zone}\"\nweight = 3\n");
        let config = USUAL.to_owned() + "[tests.dnsbl]\nthreshold = 3\n" + &list("one.example");
        let screener = Screener::start(&mx, &config)?;
        let refused = || -> Result<()> {
            let mut client = Client::connect(&internet, source.parse()?, port_25(&mx)?)?;
            client.expect(220)?;
            client.begin_mail(550)?;
            Ok(())
        };
        refused()?;
        ensure!(server.asked("one.example", source) == 1);
        let before = screener.json(&["dnsbl", "status", "--json"])?;

        let more = config.clone() + &list("two.example");
        let report = screener.reload(&more)?;
        ensure!(strings(&report, "changed") == ["tests.dnsbl.list"], "{report}");
        refused()?;
        ensure!(server.asked("one.example", source) == 1, "asked again after the reload");
        // It need not have been by now: what the first list said is enough to refuse.
        until("the new list to be asked", SOON, || (server.asked("two.example", source) == 1).then_some(()))?;
        let after = screener.json(&["dnsbl", "status", "--json"])?;
        let hits = |status: &Value| status["lists"][0]["hits"].as_u64();
        ensure!(hits(&after) >= hits(&before) && after["lists"][0]["cached"].as_u64() >= Some(1), "{before} {after}");

        // A threshold out of reach: nothing is asked for that either.
        screener.reload(&more.replace("threshold = 3", "threshold = 9"))?;
        ensure!(session(&internet, source, port_25(&mx)?)? == 2);
        ensure!((server.asked("one.example", source), server.asked("two.example", source)) == (1, 1));
        Ok(())
    });
}

#[test]
fn front_addresses_come_and_go_without_a_start() {
    cell::test("front_addresses_come_and_go_without_a_start", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let front = |addresses: &str| {
            USUAL.replace("[kernel]", "[kernel]\nxdp = \"off\"")
                + &format!("[listen]\nmode = \"front\"\naddresses = [{addresses}]\n")
        };
        let screener = Screener::start(&mx, &front("\"0.0.0.0:2525\""))?;
        let at = |port: u16| -> Result<SocketAddr> { Ok(SocketAddr::new(mx.address(Family::V4)?, port)) };
        let mut waiting = Client::connect(&internet, "198.51.100.46".parse()?, at(2525)?)?;

        // The old address covers the new one: for a moment both have the port.
        let report = screener.reload(&front("\"192.0.2.10:2525\", \"0.0.0.0:2526\""))?;
        ensure!(strings(&report, "changed") == ["listen.addresses"], "{report}");
        waiting.expect(220)?;
        for port in [2525, 2526] {
            ensure!(session(&internet, &format!("198.51.100.{}", port - 2400), at(port)?)? == 2);
        }
        let listening = mx.ask("ss", &["-Hltn"])?;
        ensure!(!listening.contains("0.0.0.0:2525") && listening.contains("192.0.2.10:2525"), "{listening}");

        screener.configure(&front("\"192.0.2.10:2525\", \"0.0.0.0:25\""))?;
        expect_all(&mx, &["reload"], 2, &["listen.addresses: 0.0.0.0:25 cannot be listened on"])?;
        ensure!(session(&internet, "198.51.100.127", at(2526)?)? == 2, "what stood there before stands");

        screener.reload(&front("\"192.0.2.10:2525\""))?;
        ensure!(Client::connect(&internet, "198.51.100.128".parse()?, at(2526)?).is_err(), "gone");
        Ok(())
    });
}

#[test]
fn ports_rates_and_interfaces_of_the_kernel_half_follow() {
    cell::test("ports_rates_and_interfaces_of_the_kernel_half_follow", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let screener = Screener::start(&mx, USUAL)?;
        let setting = |name: &str| screener.tell(&["kernel", "map", "get", "settings", name]);
        let interfaces = || -> Result<String> {
            let status = screener.json(&["status", "--json"])?;
            let all = status["kernel"]["interfaces"].as_array().context("interfaces")?.clone();
            let names = all.iter().map(|it| format!("{}:{} ", it["name"], it["mode"]));
            Ok(names.collect())
        };
        let before = interfaces()?;
        ensure!(before.contains("eth0"), "{before}");
        let kernel = "[kernel]\nports = [25, 587]\nsyn_rate = \"100/s burst 200\"";
        let report = screener.reload(&USUAL.replace("[kernel]", kernel))?;
        ensure!(strings(&report, "changed") == ["kernel.ports", "kernel.syn_rate"], "{report}");
        ensure!(setting("ports")?.contains("25,587") && setting("syn_rate")?.contains("100/s burst 200"));
        ensure!(interfaces()? == before);

        mx.ask("ip", &["link", "add", "side0", "type", "veth", "peer", "name", "side1"])?;
        mx.ask("ip", &["link", "set", "side0", "up"])?;
        screener.reload(&USUAL.replace("[\"eth0\"]", "[\"eth0\", \"side0\"]"))?;
        ensure!(interfaces()?.contains("side0") && interfaces()?.contains("eth0"), "{}", interfaces()?);
        ensure!(setting("ports")?.contains("25") && !setting("ports")?.contains("587"));
        screener.reload(&USUAL.replace("[\"eth0\"]", "[\"side0\"]\nxdp = \"generic\""))?;
        ensure!(!interfaces()?.contains("eth0") && interfaces()?.contains("generic"), "{}", interfaces()?);
        ensure!(session(&internet, "198.51.100.47", port_25(&mx)?)? == 2, "clients are still steered");

        // An interface that cannot be attached to is shown, and does not keep the rest from being taken in.
        screener.reload(&USUAL.replace("[\"eth0\"]", "[\"eth0\", \"nosuch0\"]"))?;
        screener.wait_for_degraded("nosuch0", true)?;
        screener.reload(USUAL)?;
        screener.wait_for_degraded("nosuch0", false)
    });
}

#[test]
fn log_form_metrics_address_ceilings_and_backend_follow() {
    cell::test("log_form_metrics_address_ceilings_and_backend_follow", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &(USUAL.to_owned() + "[backend]\naddress = \"127.0.0.1:9\"\n"))?;
        screener.wait_for_degraded("127.0.0.1:9", true)?;
        let source = "198.51.100.48";
        let more = "[limits]\nper_client = 1\n[observe]\nlog = \"json\"\nmetrics = \"127.0.0.1:9799\"\n";
        let report = screener.reload(&(USUAL.to_owned() + more))?;
        let changed = ["backend.address", "limits.per_client", "observe.metrics", "observe.log"];
        ensure!(strings(&report, "changed") == changed, "{report}");
        screener.wait_for_degraded("127.0.0.1:9", false)?;
        ensure!(session(&internet, source, port_25(&mx)?)? == 2);
        mta.wait_until_seen(RELAY, source.parse()?, SOON)?;
        screener.wait_for_log("\"event\":\"decision\"", SOON)?;
        let scrape = |port: &str| mx.ask("curl", &["-sf", &format!("http://127.0.0.1:{port}/metrics")]);
        ensure!(scrape("9799")?.contains("screener_sessions"));
        ensure!(scrape("9725").is_err(), "no longer where it was");

        let _held = Client::connect(&internet, "198.51.100.49".parse()?, port_25(&mx)?)?;
        until("it to be counted", SOON, || (screener.sessions().ok()? == 2).then_some(()))?;
        let mut second = Client::connect(&internet, "198.51.100.49".parse()?, port_25(&mx)?)?;
        second.expect(421)?;
        screener.reload(USUAL)?;
        let mut third = Client::connect(&internet, "198.51.100.49".parse()?, port_25(&mx)?)?;
        third.expect(220)?;
        screener.wait_for_log(" screener[", SOON)?;
        ensure!(scrape("9725")?.contains("screener_sessions"));
        Ok(())
    });
}

#[test]
fn a_second_word_to_stop_ends_at_once_and_status_shows_the_drain() {
    cell::test("a_second_word_to_stop_ends_at_once_and_status_shows_the_drain", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let mut sending = Client::connect(&internet, "198.51.100.50".parse()?, port_25(&mx)?)?;
        sending.expect(220)?;
        sending.begin_mail(250)?;
        sending.ask("DATA", 354)?;
        screener.signal(Signal::TERM)?;
        until_or_show(
            "status to show it",
            SOON,
            || screener.log(),
            || {
                let status = screener.json(&["status", "--json"])?;
                Ok((status["state"] == "draining" && status["sessions"]["active"] == 1).then_some(()))
            },
        )?;
        expect_all(&mx, &["status"], 0, &["going down: no new connections"])?;
        expect_all(&mx, &["reload"], 2, &["going down"])?;
        // Whoever comes now is the MTA's: its greeting comes at once, and has one line.
        let mut next = Client::connect(&internet, "198.51.100.51".parse()?, port_25(&mx)?)?;
        ensure!(next.expect(220)?.lines.len() == 1);
        screener.stop()?;
        ensure!(screener.log().contains("told to stop again: 1 sessions are cut off"), "{}", screener.log());
        Ok(())
    });
}
