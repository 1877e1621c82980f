//! The `pass` commands: lists with conditions, dumps that come back, what postscreen and spamd had, and the live stream.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use screener_tests::cell;
use screener_tests::cli::{expect, expect_all};
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::net::{INTERNET, MX, Net, Plan};
use screener_tests::postfix::Postfix;
use screener_tests::proc::Proc;
use screener_tests::screener::{GUARDED, Screener, USUAL, command};
use screener_tests::wait::{until, until_or_show};

const SOON: Duration = Duration::from_secs(20);

/// Clients as `pass list` shows them under some conditions.
fn listed(screener: &Screener, conditions: &[&str]) -> Result<Vec<String>> {
    let shown = screener.json(&[&["pass", "list", "--json"], conditions].concat())?;
    let passes = shown.as_array().with_context(|| format!("no array: {shown}"))?;
    Ok(passes.iter().filter_map(|pass| pass["client"].as_str().map(str::to_owned)).collect())
}

/// How many passes the kernel has, of each family.
fn in_kernel(screener: &Screener) -> Option<(u64, u64)> {
    let maps = screener.json(&["kernel", "status", "--json"]).ok()?;
    let of = |name: &str| maps["maps"].as_array()?.iter().find(|map| map["name"] == name)?["entries"].as_u64();
    Some((of("PASS4")?, of("PASS6")?))
}

fn wait_for_kernel(screener: &Screener, wanted: (u64, u64)) -> Result<()> {
    let shown = || format!("{:?} instead of {wanted:?}", in_kernel(screener));
    until_or_show("the kernel to have the passes", SOON, shown, || {
        Ok((in_kernel(screener) == Some(wanted)).then_some(()))
    })
}

#[test]
fn a_list_is_narrowed_by_what_an_operator_asks_for() {
    cell::test("a_list_is_narrowed_by_what_an_operator_asks_for", || {
        let mx = Net::mx()?;
        let screener = Screener::start(&mx, GUARDED)?;
        ensure!(screener.tell(&["pass", "list", "--json"])? == "[]\n");
        for (address, more) in [
            ("198.51.100.1", &["--ttl", "1h"][..]),
            ("198.51.100.2", &["--ttl", "30d", "--comment", "asked by phone"]),
            ("203.0.113.1", &["--test", "pregreet", "--test", "pipelining"]),
            ("2001:db8:1:2::7", &[]),
            ("2001:db8:1:3::7", &[]),
        ] {
            screener.tell(&[&["pass", "add", address], more].concat())?;
        }
        let all = ["198.51.100.1", "198.51.100.2", "203.0.113.1", "2001:db8:1:2::", "2001:db8:1:3::"];
        for (conditions, wanted) in [
            (&[][..], &all[..]),
            (&["--prefix", "198.51.100.0/24"], &all[..2]),
            // A client of a longer prefix; an IPv4 prefix in its mapped form; everything.
            (&["--prefix", "2001:db8:1:2::9"], &all[3..4]),
            (&["--prefix", "::ffff:198.51.100.0/120"], &all[..2]),
            (&["--prefix", "2001:db8::/32"], &all[3..]),
            (&["--prefix", "::/0"], &all[3..]),
            (&["--prefix", "192.0.2.0/24"], &[]),
            (&["--test", "pregreet"], &all),
            (&["--test", "dnsbl", "--prefix", "0.0.0.0/0"], &all[..2]),
            (&["--owed", "bare_newline"], &all[2..3]),
            (&["--expired"], &all[2..3]),
            (&["--valid", "--prefix", "0.0.0.0/0"], &all[..2]),
            (&["--expiring", "2h"], &all[..1]),
            (&["--expiring", "30m"], &[]),
            (&["--newer", "1h"], &all),
            (&["--older", "1h"], &[]),
            (&["--origin", "manual", "--expiring", "2h"], &all[..1]),
            (&["--origin", "screened"], &[]),
        ] {
            let met = listed(&screener, conditions)?;
            ensure!(met == wanted, "{conditions:?}: {met:?} instead of {wanted:?}");
        }
        // On no terminal: a line each, tabs between the columns.
        let lines = screener.tell(&["pass", "list", "--prefix", "198.51.100.2"])?;
        let columns: Vec<_> = lines.trim_end().split('\t').collect();
        ensure!(matches!(columns[..], ["198.51.100.2", _, "manual", _, "asked by phone"]), "{lines:?}");
        expect(&mx, &["pass", "list", "--test", "greylist"], 2, "possible values: pregreet, dnsbl")?;
        expect(&mx, &["pass", "list", "--older", "soon"], 2, "invalid value 'soon'")?;
        expect(&mx, &["pass", "list", "--expired", "--valid"], 2, "cannot be used with")
    });
}

#[test]
fn a_list_is_narrowed_by_how_clients_called_themselves() {
    cell::test("a_list_is_narrowed_by_how_clients_called_themselves", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let screener = Screener::start(&mx, USUAL)?;
        for (source, name) in [("198.51.100.7", "mail7.example.net"), ("2001:db8:a:7::25", "smtp.example.org")] {
            let source: IpAddr = source.parse()?;
            let server = if source.is_ipv4() { "192.0.2.10" } else { "2001:db8:25::10" };
            let mut client = Client::connect(&internet, source, SocketAddr::new(server.parse()?, 25))?;
            client.expect(220)?;
            client.ask(&format!("EHLO {name}"), 250)?;
            client.ask("MAIL FROM:<a@example.net>", 250)?;
            // There is no MTA: the pass does not depend on that.
            client.ask("RCPT TO:<bob@example.com>", 451)?;
            client.ask("QUIT", 221)?;
        }
        screener.tell(&["pass", "add", "203.0.113.1"])?;
        let both = ["198.51.100.7", "2001:db8:a:7::"];
        for (name, wanted) in [
            ("example.net", &both[..1]),
            ("MAIL?.example.*", &both[..1]),
            ("smtp.example.org", &both[1..]),
            ("*.example.*", &both),
            ("7.example.net", &[]),
        ] {
            let shown = || format!("{:?}", listed(&screener, &["--name", name]));
            until_or_show(&format!("{name} to be met"), SOON, shown, || {
                Ok((listed(&screener, &["--name", name])? == wanted).then_some(()))
            })?;
        }
        Ok(())
    });
}

#[test]
fn passes_are_given_and_taken_by_client_and_by_prefix_and_what_follows_is_said() {
    cell::test("passes_are_given_and_taken_by_client_and_by_prefix_and_what_follows_is_said", || {
        let mx = Net::mx()?;
        let screener = Screener::start(&mx, GUARDED)?;
        screener.tell(&["deny", "add", "203.0.113.0/24", "--action", "reject"])?;
        let whole = "(the client is all of 2001:db8:1:2::/64)";
        expect(&mx, &["pass", "add", "2001:db8:1:2:3::4"], 0, whole)?;
        expect(
            &mx,
            &["pass", "add", "203.0.113.9"],
            0,
            "denied by 203.0.113.0/24 from cli, which stands above any pass",
        )?;
        expect(&mx, &["pass", "add", "192.0.2.200"], 0, "permitted by 192.0.2.128/25 from config")?;
        expect_all(
            &mx,
            &["pass", "add", "198.51.100.3", "--test", "pregreet"],
            0,
            &["198.51.100.3 has passed pregreet until", "still screened for", "pipelining"],
        )?;
        wait_for_kernel(&screener, (2, 1))?;
        expect_all(
            &mx,
            &["pass", "del", "2001:db8:1:2:9::", "203.0.113.9"],
            0,
            &[
                "2001:db8:1:2:9:: has no pass any more (the client is all of 2001:db8:1:2::/64)",
                "203.0.113.9 has no pass",
            ],
        )?;
        wait_for_kernel(&screener, (1, 0))?;
        // One that has none does not keep the next from being taken.
        let both = &["pass", "del", "203.0.113.9", "192.0.2.200"];
        expect_all(&mx, both, 1, &["203.0.113.9 has no pass", "192.0.2.200 has no pass any more"])?;
        for last in 1..=9 {
            screener.tell(&["pass", "add", &format!("198.51.100.{last}")])?;
        }
        let these = &["pass", "del", "--prefix", "198.51.100.0/29"];
        expect(&mx, these, 2, "7 clients in 198.51.100.0/29 have a pass: to take all of them away, say --yes")?;
        expect(&mx, &[&these[..], &["--yes"]].concat(), 0, "7 clients in 198.51.100.0/29 have no pass any more")?;
        ensure!(listed(&screener, &[])? == ["198.51.100.8", "198.51.100.9"]);
        expect(&mx, &[&these[..], &["--yes"]].concat(), 1, "no client in 198.51.100.0/29 had a pass")?;
        expect(&mx, these, 1, "no client in 198.51.100.0/29 has a pass")?;
        expect(&mx, &["pass", "del"], 2, "required arguments")?;
        expect(&mx, &["pass", "del", "198.51.100.8", "--yes"], 2, "--prefix")?;
        let shown = screener.explain("198.51.100.1".parse()?)?;
        ensure!(shown.to_string().contains("with all of 198.51.100.0/29"), "{shown}");
        Ok(())
    });
}

#[test]
fn what_is_dumped_comes_back_as_it_was_and_reaches_the_kernel() {
    cell::test("what_is_dumped_comes_back_as_it_was_and_reaches_the_kernel", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, GUARDED)?;
        for (address, more) in [
            ("198.51.100.1", &["--ttl", "1h", "--comment", "two\nlines, a tab\tand \"quotes\""][..]),
            ("198.51.100.2", &["--test", "pregreet"]),
            ("2001:db8:1:2::7", &["--comment", "später"]),
        ] {
            screener.tell(&[&["pass", "add", address], more].concat())?;
        }
        let before = screener.tell(&["pass", "list", "--json"])?;
        expect(&mx, &["pass", "dump", "/var/tmp/passes"], 0, "3 passes are in /var/tmp/passes")?;
        let text = mx.read("/var/tmp/passes")?;
        ensure!(text.starts_with("screener-passes 1 ipv6_prefix=64\n198.51.100.1\tcreated=2"), "{text}");
        ensure!(text.ends_with("\nend 3\n") && text.lines().count() == 5, "{text}");
        ensure!(screener.tell(&["pass", "dump"])? == text, "to standard output too");
        expect(&mx, &["pass", "dump", "/nowhere/passes"], 2, "cannot write /nowhere/passes")?;

        let restore = &["pass", "restore", "/var/tmp/passes"];
        expect(&mx, restore, 0, "3 passes of 3 clients (screener): 0 new, 0 longer, 3 as they were")?;
        // A daemon that has lost everything.
        screener.stop()?;
        mx.ask("rm", &["/var/lib/screener/ledger.redb"])?;
        expect(&mx, restore, 2, "screener is not running")?;
        screener.restart()?;
        wait_for_kernel(&screener, (0, 0))?;
        expect_all(
            &mx,
            &[&restore[..], &["--dry-run"]].concat(),
            0,
            &[
                "dry run, nothing was changed: 3 passes of 3 clients (screener): 3 new, 0 longer",
                "1 of the new and longer ones owe",
            ],
        )?;
        ensure!(listed(&screener, &[])?.is_empty());
        expect(&mx, restore, 0, "3 new, 0 longer, 0 as they were")?;
        let after = screener.tell(&["pass", "list", "--json"])?;
        ensure!(before == after, "{before}\n{after}");
        wait_for_kernel(&screener, (1, 1))?;
        // On the disk when the command returns.
        screener.kill9()?;
        screener.restart()?;
        ensure!(screener.tell(&["pass", "list", "--json"])? == before);

        // What is there is never shortened, and what the operator has said since stays.
        screener.tell(&["pass", "add", "198.51.100.1", "--ttl", "9d", "--comment", "again"])?;
        let longer = screener.tell(&["pass", "list", "--json"])?;
        expect(&mx, restore, 0, "0 new, 0 longer, 3 as they were")?;
        ensure!(screener.tell(&["pass", "list", "--json"])? == longer);

        // Nothing of a dump that was cut off, or with a line that is not understood.
        let cut = text.split_once("\n2001").context("the IPv6 line")?.0;
        mx.write("/var/tmp/cut", cut)?;
        expect(&mx, &["pass", "restore", "/var/tmp/cut"], 2, "\"end 2\", is missing, so this is not the whole dump")?;
        mx.write("/var/tmp/bad", &text.replace("origin=manual", "origin=god"))?;
        let bad = &["pass", "restore", "/var/tmp/bad", "--json"];
        expect_all(&mx, bad, 2, &["nothing was changed", "/var/tmp/bad:2: 'god' is no origin", "say --skip-bad"])?;
        expect(&mx, &["pass", "restore", "/nowhere"], 2, "cannot read /nowhere")?;
        expect(&mx, &["pass", "restore", "/dev/null"], 2, "there is nothing in /dev/null")
    });
}

#[test]
fn the_lines_of_spamdb_are_passes_and_bad_lines_are_named() {
    cell::test("the_lines_of_spamdb_are_passes_and_bad_lines_are_named", || {
        let mx = Net::mx()?;
        let screener = Screener::start(&mx, GUARDED)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let (first, then, past) = (now - 90 * 86_400, now + 20 * 86_400, now - 60);
        let text = format!(
            "WHITE|198.51.100.1|||{first}|{first}|{then}|3|41\n\
             WHITE|198.51.100.2|||{first}|{first}|{past}|1|0\n\
             WHITE|2001:db8:1:2::25|||{first}|{first}|{then}|1|7\n\
             WHITE|2001:db8:1:2::26|||{first}|{first}|{then}|1|7\n\
             GREY|203.0.113.7|mail.example|<a@example.net>|<b@example.com>|{now}|{then}|{then}|2|0\n\
             TRAPPED|203.0.113.8|{then}\n\
             SPAMTRAP|trap@example.com\n"
        );
        mx.write("/var/tmp/spamdb", &text)?;
        let shown = screener.json(&["pass", "restore", "/var/tmp/spamdb", "--json"])?;
        for (key, wanted) in [("lines", 4), ("clients", 3), ("new", 2), ("expired", 1), ("owing", 0), ("bad", 0)] {
            ensure!(shown[key] == wanted, "{key}: {shown}");
        }
        ensure!(
            shown["format"] == "spamdb" && shown["other"]["GREY"] == 1 && shown["other"]["TRAPPED"] == 1,
            "{shown}"
        );
        wait_for_kernel(&screener, (1, 1))?;
        ensure!(listed(&screener, &["--origin", "screened", "--older", "89d"])? == ["198.51.100.1", "2001:db8:1:2::"]);

        mx.write(
            "/var/tmp/bad",
            &format!("{text}WHITE|mx.example.com|||1|1|{then}|1|1\nWHITE|203.0.113.9|||1|1|{then}|1|1\n"),
        )?;
        let restore = &["pass", "restore", "/var/tmp/bad"];
        expect_all(&mx, restore, 2, &["nothing was changed", "/var/tmp/bad:8: 'mx.example.com' is no IP address"])?;
        ensure!(listed(&screener, &["--prefix", "203.0.113.9"])?.is_empty());
        expect_all(
            &mx,
            &[&restore[..], &["--skip-bad"]].concat(),
            0,
            &["bad:8:", "(spamdb): 1 new", "1 expired, 1 not understood, 1 GREY, 1 SPAMTRAP, 1 TRAPPED"],
        )?;
        let other = &["pass", "restore", "/var/tmp/spamdb", "--format", "postscreen"];
        expect(&mx, other, 2, "/var/tmp/spamdb:1: 'WHITE|198.51.100.1|||")?;
        mx.write("/var/tmp/prose", "Dear Sir,\nplease let us in.\n")?;
        expect(&mx, &["pass", "restore", "/var/tmp/prose"], 2, "begins no dump that is known")
    });
}

/// A postscreen with every test, and its cache where Postfix has it by default.
const POSTSCREEN: &str = "\
myhostname = mail.example.com
mynetworks = 127.0.0.0/8
postscreen_access_list = permit_mynetworks
postscreen_greet_wait = 2s
postscreen_greet_action = enforce
postscreen_pipelining_enable = yes
postscreen_pipelining_action = enforce
postscreen_non_smtp_command_enable = yes
postscreen_bare_newline_enable = yes
postscreen_bare_newline_action = enforce
postscreen_cache_map = btree:$data_directory/postscreen_cache
virtual_mailbox_domains = example.com
virtual_mailbox_maps = inline:{ bob@example.com=example.com/bob/ }
";
const POSTSCREEN_SERVICES: &str = "\
25 inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
";

/// A client passes all of postscreen's tests; it hears 450 for that.
fn pass_postscreen(internet: &Host, source: &str, server: &str) -> Result<()> {
    let (source, server): (IpAddr, IpAddr) = (source.parse()?, server.parse()?);
    let mut client = Client::connect(internet, source, SocketAddr::new(server, 25))?;
    client.expect(220)?;
    client.ask("EHLO sender.example.net", 250)?;
    client.ask("MAIL FROM:<a@example.net>", 250)?;
    client.ask("RCPT TO:<bob@example.com>", 450)?;
    client.ask("QUIT", 221)?;
    Ok(())
}

#[test]
fn what_a_real_postscreen_has_cached_is_passed_here_too() {
    cell::test("what_a_real_postscreen_has_cached_is_passed_here_too", || {
        let net = Net::new()?;
        let (mx, internet) = (net.host(&MX)?, net.host(&INTERNET)?);
        let old = net.host(&Plan { name: "old", addresses: &["192.0.2.20", "2001:db8:25::20"], prefixes: &[] })?;
        let mut postfix = Postfix::start(&old, POSTSCREEN, POSTSCREEN_SERVICES)?;
        pass_postscreen(&internet, "198.51.100.7", "192.0.2.20")?;
        pass_postscreen(&internet, "2001:db8:a:7::25", "2001:db8:25::20")?;
        for client in ["198.51.100.7", "2001:db8:a:7::25"] {
            postfix.wait_for_log(&["PASS NEW", client], SOON)?;
        }
        // While postscreen runs it has its cache for itself.
        postfix.stop()?;
        let text = old.ask("postmap", &["-s", "btree:/var/lib/postfix/postscreen_cache"])?;
        ensure!(text.contains("198.51.100.7\t") && text.contains("2001:db8:a:7::25\t"), "{text}");

        let screener = Screener::start(&mx, GUARDED)?;
        mx.write("/var/tmp/cache", &text)?;
        let shown = screener.json(&["pass", "restore", "/var/tmp/cache", "--json"])?;
        ensure!(shown["format"] == "postscreen" && shown["lines"] == 2 && shown["new"] == 2, "{shown}\n{text}");
        ensure!(shown["owing"] == 0, "every test that is enabled here was done there: {shown}\n{text}");
        wait_for_kernel(&screener, (1, 1))?;
        let shown = screener.explain("198.51.100.7".parse()?)?;
        ensure!(shown["verdict"] == "pass" && shown["pass"]["origin"] == "screened", "{shown}");
        // To the second what postscreen had; postscreen was told of no DNS list, so that test was not done.
        let line = text.lines().find(|line| line.starts_with("198.51.100.7\t")).context("its line")?;
        let stamps: Vec<u64> = line.split(['\t', ';']).skip(1).map(str::parse).collect::<Result<_, _>>()?;
        let names = ["pregreet", "dnsbl", "pipelining", "non_smtp_command", "bare_newline"];
        for (name, stamp) in names.into_iter().zip(stamps) {
            let until = &shown["pass"]["expires"][name];
            let wanted = if stamp > 1 { Value::from(rfc3339(&mx, stamp)?) } else { Value::Null };
            ensure!(*until == wanted, "{name}: {until} instead of {wanted}\n{text}");
        }
        Ok(())
    });
}

fn rfc3339(host: &Host, seconds: u64) -> Result<String> {
    Ok(host.ask("date", &["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])?.trim().to_owned())
}

fn watch(host: &Host, more: &[&str]) -> Result<Proc> {
    let mut process = host.spawn(&mut command(host, &[], &[&["pass", "watch"], more].concat())?)?;
    ensure!(process.ended()?.is_none(), "{}", process.log());
    Ok(process)
}

#[test]
fn who_watches_sees_what_happens_to_passes_until_the_daemon_or_the_watch_ends() {
    cell::test("who_watches_sees_what_happens_to_passes_until_the_daemon_or_the_watch_ends", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, GUARDED)?;
        let mut all = watch(&mx, &["--json"])?;
        let mut some = watch(&mx, &["--prefix", "2001:db8:1:2::99"])?;
        // Both are there when a pass comes and goes until they have told of it.
        until("both to watch", SOON, || {
            screener.tell(&["pass", "add", "2001:db8:1:2::7"]).ok()?;
            screener.tell(&["pass", "del", "2001:db8:1:2::7"]).ok()?;
            (all.log().contains("revoked") && some.log().contains("revoked")).then_some(())
        })?;
        screener.tell(&["pass", "add", "198.51.100.1", "--ttl", "2s", "--comment", "for a moment"])?;
        screener.tell(&["pass", "add", "198.51.100.2"])?;
        screener.tell(&["pass", "add", "198.51.100.2", "--ttl", "60d"])?;
        all.wait_for_line("\"extended\"", SOON)?;
        let expired = all.wait_for_line("\"expired\"", SOON)?;
        let told: Value = serde_json::from_str(&expired)?;
        ensure!(told["client"] == "198.51.100.1" && told["pass"]["comment"] == "for a moment", "{expired}");
        ensure!(told["at"] == told["pass"]["expires"]["pregreet"], "it happened when it ran out: {expired}");
        for line in all.log().lines() {
            serde_json::from_str::<Value>(line).with_context(|| line.to_owned())?;
        }
        screener.tell(&["pass", "add", "2001:db8:1:2::7", "--comment", "the end"])?;
        some.wait_for_line("\tmanual\tthe end", SOON)?;
        ensure!(!some.log().contains("198.51.100"), "{}", some.log());

        // A reader that is stopped holds nothing up, and is told that it lost some.
        all.signal(Signal::STOP)?;
        mx.write("/var/tmp/many", &postscreen_lines(20_000))?;
        screener.tell(&["pass", "restore", "/var/tmp/many"])?;
        all.signal(Signal::CONT)?;
        let lost = all.wait_for_line("\"what\":\"lost\"", SOON)?;
        ensure!(serde_json::from_str::<Value>(&lost)?["lost"].as_u64().is_some_and(|lost| lost > 0), "{lost}");

        // Another daemon in its place: the watch goes on with that one.
        screener.take_over()?;
        until("the watch to go on", SOON, || {
            screener.tell(&["pass", "add", "198.51.100.77"]).ok()?;
            screener.tell(&["pass", "del", "198.51.100.77"]).ok()?;
            all.log().contains("198.51.100.77").then_some(())
        })?;
        ensure!(all.log().contains("another daemon has taken over"), "{}", all.log());
        some.signal(Signal::INT)?;
        let status = some.wait(SOON)?;
        ensure!(status.success(), "SIGINT is the way to end it: {status}");
        screener.stop()?;
        let status = all.wait(SOON)?;
        ensure!(status.code() == Some(2) && all.log().contains("the daemon has ended"), "{status}: {}", all.log());
        expect(&mx, &["pass", "watch"], 2, "screener is not running")
    });
}

/// A cache of so many clients, as postscreen would have it.
fn postscreen_lines(count: u32) -> String {
    let line = |number| {
        let address = std::net::Ipv4Addr::from_bits(0x6400_0000 + number * 7);
        format!("{address}\t4000000000;4000000001;4000000002;4000000003;4000000004\n")
    };
    (0..count).map(line).collect()
}

/// How many passes [`many_passes_are_listed_in_little_memory`] has.
const MANY: u32 = 100_000;

#[test]
fn many_passes_are_listed_in_little_memory() {
    cell::test("many_passes_are_listed_in_little_memory", || {
        let mx = Net::mx()?;
        let screener = Screener::start(&mx, GUARDED)?;
        mx.write("/var/tmp/many", &postscreen_lines(MANY))?;
        let mut restore = mx.spawn(&mut command(&mx, &[], &["pass", "restore", "/var/tmp/many"])?)?;
        let status = restore.wait(Duration::from_secs(120))?;
        ensure!(status.success() && restore.log().contains(&format!("{MANY} new")), "{}", restore.log());

        let before = screener.memory()?;
        let mut list = command(&mx, &[], &["pass", "list", "--json"])?;
        let mut child = list.stdout(Stdio::piped()).spawn()?;
        let mut out = child.stdout.take().context("its output")?;
        // A reader that takes its time: whatever is not sent page by page heaps up somewhere.
        let (mut bytes, mut chunk) = (Vec::new(), vec![0; 1 << 20]);
        let mut peak = 0;
        loop {
            let read = out.read(&mut chunk)?;
            if read == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..read]);
            peak = peak.max(resident(child.id()).unwrap_or(0));
        }
        ensure!(child.wait()?.success());
        let shown: Value = serde_json::from_slice(&bytes)?;
        ensure!(shown.as_array().is_some_and(|all| all.len() == MANY as usize), "not all of them");
        let grown = screener.memory()?.saturating_sub(before);
        ensure!(peak > 0 && peak < 16 << 20, "the command took {} KiB for {} KiB", peak >> 10, bytes.len() >> 10);
        ensure!(grown < 16 << 20, "the daemon grew by {} KiB", grown >> 10);
        Ok(())
    });
}

/// What a process holds of memory beside the pages of its executable, in bytes.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
