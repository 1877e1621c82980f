//! Feeds in rbldnsd's and spamd's forms, lists that are cut off, and what a feed must not do to the daemon around it.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use screener_tests::cell;
use screener_tests::certificate::replace;
use screener_tests::cli::{expect, expect_all};
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::names::Names;
use screener_tests::net::{MX, Net, Plan};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::wait::until_or_show;
use screener_tests::web::Web;

const SOON: Duration = Duration::from_secs(20);
const LISTS: Plan<'_> = Plan { name: "lists", addresses: &["192.0.2.80"], prefixes: &[] };
const FILE: &str = "/etc/screener/own.list";
const COPY: &str = "/var/lib/screener/feeds/web.list";

/// A configuration with a feed from a file in a form, which is looked at every second.
fn file_feed(form: &str) -> String {
    format!("{USUAL}[[feed]]\nname = \"own\"\nsource = \"{FILE}\"\nformat = \"{form}\"\nrefresh = \"1s\"\n")
}

/// A configuration with a feed from the web server.
fn web_feed() -> String {
    format!("{USUAL}[[feed]]\nname = \"web\"\nsource = \"http://192.0.2.80/list\"\nformat = \"cidr\"\n")
}

fn feed(screener: &Screener, name: &str) -> Result<Value> {
    screener.json(&["feed", "status", name, "--json"])
}

fn wait_for_entries(screener: &Screener, count: u64) -> Result<Value> {
    let look = || Ok(Some(feed(screener, "own")?).filter(|feed| feed["entries"] == count));
    until_or_show(&format!("{count} entries of own"), SOON, || screener.log(), look)
}

/// What the kernel does with an address; `None`: nothing.
fn denied(mx: &Host, address: &str, action: Option<&str>) -> Result<()> {
    match action {
        Some(action) => expect(mx, &["kernel", "map", "get", "deny", address], 0, action),
        None => expect(mx, &["kernel", "map", "get", "deny", address], 1, "not in deny"),
    }
}

fn addresses(count: u8) -> String {
    (1..=count).map(|last| format!("198.51.100.{last}\n")).collect()
}

#[test]
fn a_feed_in_rbldnsds_form_follows_its_file_less_what_that_excludes() {
    cell::test("a_feed_in_rbldnsds_form_follows_its_file_less_what_that_excludes", || {
        let mx = Net::mx()?;
        let head = "$SOA 300 ns.bl.test. admin.bl.test. 0 600 300 86400 300\n:127.0.0.3:Listed, see $1\n127.0.0.2\n";
        mx.write(FILE, &format!("{head}198.51.100.0/30\n!198.51.100.2\n203.0.113.8-11 :4:more\n2001:db8:1:2\n"))?;
        let screener = Screener::start(&mx, &file_feed("rbldnsd"))?;
        // .0/31, .3, .8/30 and a /64.
        let shown = wait_for_entries(&screener, 4)?;
        let notes = shown["notes"].to_string();
        ensure!(notes.contains("1 exclusions were cut out") && notes.contains("1 lines are test points"), "{notes}");
        denied(&mx, "198.51.100.3", Some("drop"))?;
        denied(&mx, "203.0.113.11", Some("drop"))?;
        denied(&mx, "2001:db8:1:2::25", Some("drop"))?;
        denied(&mx, "198.51.100.2", None)?;
        denied(&mx, "203.0.113.12", None)?;
        expect(&mx, &["explain", "198.51.100.1"], 0, "Denied by 198.51.100.0/31 from feed:own, since")?;

        // Another is excluded, and goes; the other way round it comes.
        replace(&mx, FILE, &format!("{head}198.51.100.0/30\n!198.51.100.1\n203.0.113.8-11\n2001:db8:1:2\n"))?;
        let look = || Ok(screener.log().contains("2 came, 2 went, 2 stay").then_some(()));
        until_or_show("the other list", SOON, || screener.log(), look)?;
        denied(&mx, "198.51.100.1", None)?;
        denied(&mx, "198.51.100.2", Some("drop"))?;

        for (line, part) in [
            ("10", "feed own: the list is refused: line 4: '10' alone is no address: write 10/8"),
            ("$TIMESTAMP 2020:01:01 +7d", "line 4: the list says that it holds until 2020-01-08T00:00:00Z only"),
            ("$DATASET ip4set @", "line 4: $DATASET: this file has several data sets"),
            ("127.0.0.0/8", "it would deny private or reserved ranges: 127.0.0.0/8"),
        ] {
            replace(&mx, FILE, &format!("{head}{line}\n198.51.100.0/30\n203.0.113.8-11\n2001:db8:1:2\n"))?;
            screener.wait_for_degraded(part, true)?;
            ensure!(feed(&screener, "own")?["entries"] == 4, "the good list is gone");
        }
        // The clock of whoever makes the list may be ahead a little.
        let soon = SystemTime::now().duration_since(UNIX_EPOCH)? + Duration::from_secs(120);
        let made = mx.ask("date", &["-u", "-d", &format!("@{}", soon.as_secs()), "+%Y:%m:%d:%H:%M:%S"])?;
        replace(&mx, FILE, &format!("$TIMESTAMP {}\n{head}198.51.100.0/30\n", made.trim()))?;
        wait_for_entries(&screener, 1)?;
        screener.wait_for_degraded("feed own", false)
    });
}

#[test]
fn a_feed_in_spamds_form_is_a_list_or_what_spamd_is_told() {
    cell::test("a_feed_in_spamds_form_is_a_list_or_what_spamd_is_told", || {
        let mx = Net::mx()?;
        mx.write(FILE, "# trapped\n203.0.113.0/30\n198.51.100.8 - 198.51.100.9\n2001:db8:a::/48 three\n")?;
        let screener = Screener::start(&mx, &file_feed("spamd"))?;
        wait_for_entries(&screener, 3)?;
        denied(&mx, "203.0.113.3", Some("drop"))?;
        denied(&mx, "198.51.100.9", Some("drop"))?;
        denied(&mx, "198.51.100.10", None)?;
        denied(&mx, "2001:db8:a::25", Some("drop"))?;

        // The lines for spamd's socket; the same tag again takes the list's place.
        let lines = "trap;\"Your address %A\";inet;1;203.0.113.64/26\nother;\"see %A\";198.51.100.8/31;\n\
                     trap;\"Your address %A\";inet;2;203.0.113.0/30;203.0.113.128/26\n";
        replace(&mx, FILE, lines)?;
        let look = || Ok(screener.log().contains("1 came, 1 went, 2 stay").then_some(()));
        until_or_show("the lines for the socket", SOON, || screener.log(), look)?;
        denied(&mx, "203.0.113.129", Some("drop"))?;
        denied(&mx, "203.0.113.65", None)?;
        denied(&mx, "2001:db8:a::25", None)?;

        for (text, part) in [
            ("trap;\"m\";inet;3;203.0.113.0/30\n", "line 1: the line says that it has '3' addresses, and has 1"),
            ("203.0.113.0/30\nnobody\n", "feed own: the list is refused: line 2: 'nobody': write 192.0.2.7"),
            ("all:\\\n\t:trap:\ntrap:\\\n\t:black:\\\n\t:file=/x:\n", "a feed must be one of the lists"),
        ] {
            replace(&mx, FILE, text)?;
            screener.wait_for_degraded(part, true)?;
            ensure!(feed(&screener, "own")?["entries"] == 3, "the good list is gone");
        }
        Ok(())
    });
}

/// A web server that behaves so, and a daemon that has its list of 40 addresses.
fn with_forty(manners: &str) -> Result<(Host, Web, Screener)> {
    let net = Net::new()?;
    let (mx, lists) = (net.host(&MX)?, net.host(&LISTS)?);
    let web = Web::start(&lists, "192.0.2.80".parse()?, 80, None)?;
    web.give(&addresses(40))?;
    web.behave(manners)?;
    let screener = Screener::start(&mx, &web_feed())?;
    let look = || Ok((feed(&screener, "web")?["entries"] == 40).then_some(()));
    until_or_show("the whole list", SOON, || screener.log(), look)?;
    Ok((mx, web, screener))
}

#[test]
fn a_list_without_a_length_that_ends_within_a_line_may_be_cut_off_and_is_not_taken() {
    cell::test("a_list_without_a_length_that_ends_within_a_line_may_be_cut_off_and_is_not_taken", || {
        let (mx, web, screener) = with_forty("unsized")?;
        // Of 198.51.100.39 is left 198.51.100.3.
        let list = addresses(39);
        web.give(&list[..list.len() - 2])?;
        let part = "it ends within a line, and the server does not say how long it is: it may be cut off";
        expect(&mx, &["feed", "refresh", "web"], 2, part)?;
        screener.wait_for_degraded(part, true)?;
        // A length says that nothing is missing.
        web.behave("good")?;
        expect(&mx, &["feed", "refresh", "web"], 0, "web: 38 prefixes: 0 came, 2 went")
    });
}

#[test]
fn a_copy_of_another_list_is_not_confirmed_and_what_is_forced_is_in_force_from_then_on() {
    cell::test("a_copy_of_another_list_is_not_confirmed_and_what_is_forced_is_in_force_from_then_on", || {
        let (mx, web, screener) = with_forty("good")?;

        // A copy cannot be written: the one before lies there, as old as it is.
        mx.ask("mkdir", &[&format!("{COPY}.new")])?;
        mx.ask("touch", &["-d", "@1700000000", COPY])?;
        web.give(&addresses(41))?;
        expect(&mx, &["feed", "refresh", "web"], 0, "web: 41 prefixes: 1 came, 0 went")?;
        screener.wait_for_degraded("feed web: its list is in force, but not on the disk", true)?;
        expect(&mx, &["feed", "refresh", "web"], 0, "web: 41 prefixes: 0 came, 0 went")?;
        ensure!(feed(&screener, "web")?["last"]["result"] == "unchanged");
        let time = mx.ask("stat", &["-c", "%Y", COPY])?;
        ensure!(time.trim() == "1700000000", "the copy of the list before was confirmed: {time}");
        mx.ask("rmdir", &[&format!("{COPY}.new")])?;

        web.give(&addresses(10))?;
        expect(&mx, &["feed", "refresh", "web"], 2, "it shrinks from 41 to 10 prefixes")?;
        let refused = feed(&screener, "web")?["refused"]["at"].as_str().context("a time")?.to_owned();
        let second_later = || {
            let now = mx.ask("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"])?;
            Ok((now.trim() > refused.as_str()).then_some(()))
        };
        until_or_show("the next second", SOON, || screener.log(), second_later)?;
        expect(&mx, &["feed", "refresh", "web", "--force"], 0, "web: 10 prefixes: 0 came, 31 went")?;
        let shown = feed(&screener, "web")?;
        ensure!(shown["taken"].as_str() > Some(refused.as_str()), "{refused}: {shown}");
        ensure!(shown["checked"] == refused.as_str(), "{refused}: {shown}");
        Ok(())
    });
}

#[test]
fn what_covers_private_ranges_is_refused_or_cut() {
    cell::test("what_covers_private_ranges_is_refused_or_cut", || {
        let mx = Net::mx()?;
        mx.write(FILE, "172.0.0.0/11\n198.51.100.7\n10.1.2.3\n")?;
        let screener = Screener::start(&mx, &file_feed("cidr"))?;
        let part =
            "it would deny private or reserved ranges: 10.1.2.3/32, 172.0.0.0/11 (if the list holds them by design";
        screener.wait_for_degraded(part, true)?;
        screener.reload(&(file_feed("cidr") + "private = \"leave-out\"\n"))?;
        let shown = wait_for_entries(&screener, 2)?;
        let notes = shown["notes"].to_string();
        ensure!(notes.contains("1 private or reserved prefixes were left out: 10.1.2.3/32"), "{notes}");
        ensure!(notes.contains("ranges were cut out of 1 prefixes: 172.0.0.0/11"), "{notes}");
        denied(&mx, "172.15.255.1", Some("drop"))?;
        denied(&mx, "172.16.0.1", None)?;
        screener.wait_for_degraded("feed own", false)
    });
}

#[test]
fn a_dry_run_has_hits_without_a_kernel_half_too() {
    cell::test("a_dry_run_has_hits_without_a_kernel_half_too", || {
        let (mx, internet) = Net::mx_and_internet()?;
        mx.write(FILE, "198.51.100.7\n")?;
        let front = file_feed("cidr").replace("[kernel]", "[listen]\nmode = \"front\"\n[kernel]\nxdp = \"off\"");
        let screener = Screener::start(&mx, &(front + "action = \"count\"\n"))?;
        wait_for_entries(&screener, 1)?;
        for source in ["198.51.100.7", "198.51.100.8"] {
            let source: IpAddr = source.parse()?;
            let mut client = Client::connect(&internet, source, "192.0.2.10:25".parse()?)?;
            ensure!(client.read_line()?.starts_with("220"), "not let in");
        }
        let shown = feed(&screener, "own")?;
        ensure!(shown["hits"] == 1 && shown["last_hit"].is_string(), "{shown}");
        let denies = screener.json(&["deny", "list", "--json"])?;
        ensure!(denies[0]["hits"] == 1, "{denies}");
        Ok(())
    });
}

#[test]
fn a_daemon_that_is_told_to_stop_does_not_wait_for_a_silent_resolver() {
    cell::test("a_daemon_that_is_told_to_stop_does_not_wait_for_a_silent_resolver", || {
        let net = Net::new()?;
        let (mx, dns) = (net.host(&MX)?, net.host(&Plan { name: "dns", addresses: &["192.0.2.53"], prefixes: &[] })?);
        let mut names = Names::start(&dns, "192.0.2.53".parse()?, &["lists.example. 300 A 192.0.2.80"])?;
        names.sleep()?;
        // Minutes, as with some servers that are all silent.
        mx.write("/etc/resolv.conf", "nameserver 192.0.2.53\noptions timeout:30 attempts:5\n")?;
        let mut screener = Screener::start(&mx, &web_feed().replace("192.0.2.80", "lists.example"))?;
        let asked = || Ok(mx.ask("ss", &["-unH"])?.contains("192.0.2.53:53").then_some(()));
        until_or_show("the resolver to be asked", SOON, || screener.log(), asked)?;
        screener.stop()
    });
}

#[test]
fn a_pools_file_that_cannot_be_written_or_was_damaged_is_told_in_the_log() {
    cell::test("a_pools_file_that_cannot_be_written_or_was_damaged_is_told_in_the_log", || {
        let net = Net::new()?;
        let (mx, dns) = (net.host(&MX)?, net.host(&Plan { name: "dns", addresses: &["192.0.2.53"], prefixes: &[] })?);
        let record = "large.example. 300 TXT \"v=spf1 ip4:198.51.100.0/24 -all\"";
        let names = Names::start(&dns, "192.0.2.53".parse()?, &[record])?;
        mx.resolve_at(names.address())?;
        mx.write("/var/lib/screener/pools.json", "{\"version\":1,")?;
        mx.ask("mkdir", &["/var/lib/screener/pools.json.new"])?;
        let config = format!("{USUAL}[[pool]]\ndomain = \"large.example\"\n");
        let mut screener = Screener::start(&mx, &config)?;
        screener.wait_for_log("what was known of the pools is lost: /var/lib/screener/pools.json was damaged", SOON)?;
        screener.wait_for_log("what is known of the pools is not on the disk: /var/lib/screener/pools.json", SOON)?;
        screener.wait_for_degraded("what is known of the pools is not on the disk", true)?;
        // It is written when that can be done, and not only when the members are looked up again.
        mx.ask("rmdir", &["/var/lib/screener/pools.json.new"])?;
        screener.wait_for_log("all pools are as they should be again", Duration::from_secs(60))?;
        expect_all(&mx, &["pool", "list"], 0, &["large.example"])?;
        ensure!(mx.read("/var/lib/screener/pools.json")?.contains("198.51.100.0/24"), "it is not there");
        Ok(())
    });
}
