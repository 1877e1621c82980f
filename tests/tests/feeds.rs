//! Feeds: from a file and from real web servers into the kernel and out again, what is refused and how that shows, and what is
//! left when the source, the daemon or the disk is gone.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use screener_tests::cell;
use screener_tests::certificate::{Certificate, replace};
use screener_tests::cli::{expect, expect_all};
use screener_tests::client::{Client, Trouble};
use screener_tests::control::Control;
use screener_tests::host::Host;
use screener_tests::mta::{DIRECT, Mta};
use screener_tests::names::Names;
use screener_tests::net::{INTERNET, MX, Net, Plan};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::wait::until_or_show;
use screener_tests::web::{Web, trust};

const SOON: Duration = Duration::from_secs(20);
/// How long a SYN that is dropped is waited for: until it has been sent again once.
const SILENCE: Duration = Duration::from_millis(1500);
const LISTS: Plan<'_> = Plan { name: "lists", addresses: &["192.0.2.80"], prefixes: &[] };
const FILE: &str = "/etc/screener/own.list";
const COPIES: &str = "/var/lib/screener/feeds";

/// A configuration with a feed, and the keys of more.
fn config(feeds: &[&str]) -> String {
    let feeds: Vec<_> = feeds.iter().map(|keys| format!("[[feed]]\n{keys}\n")).collect();
    format!("{USUAL}{}", feeds.concat())
}

/// A feed from a file, which is looked at every second.
fn file_feed(more: &str) -> String {
    format!("name = \"own\"\nsource = \"{FILE}\"\nformat = \"cidr\"\nrefresh = \"1s\"\n{more}")
}

/// A feed from the web server.
fn web_feed(place: &str, more: &str) -> String {
    format!("name = \"web\"\nsource = \"{place}\"\nformat = \"cidr\"\ntimeout = \"3s\"\n{more}")
}

/// So many addresses of the Internet, from 198.51.100.1 on.
fn addresses(count: u8) -> String {
    (1..=count).map(|last| format!("198.51.100.{last}\n")).collect()
}

fn feed(screener: &Screener, name: &str) -> Result<Value> {
    screener.json(&["feed", "status", name, "--json"])
}

fn wait_for(screener: &Screener, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let look = || Ok(Some(feed(screener, name)?).filter(|feed| holds(feed)));
    until_or_show(what, SOON, || screener.log(), look)
}

fn wait_for_entries(screener: &Screener, name: &str, count: u64) -> Result<Value> {
    wait_for(screener, name, &format!("{count} entries of {name}"), |feed| feed["entries"] == count)
}

fn is_silent(internet: &Host, source: &str) -> Result<bool> {
    let server = SocketAddr::new("192.0.2.10".parse()?, 25);
    Ok(matches!(Client::connect_within(internet, source.parse()?, server, SILENCE), Err(Trouble::Silence(_))))
}

/// Refreshes a feed, which must fail and say so everywhere, and change nothing.
fn refused(mx: &Host, screener: &Screener, entries: u64, part: &str) -> Result<()> {
    expect(mx, &["feed", "refresh", "web"], 2, part)?;
    expect_all(mx, &["feed", "status"], 1, &[part, "stays"])?;
    let shown = feed(screener, "web")?;
    ensure!(shown["entries"] == entries && shown["trouble"].as_str().is_some_and(|why| why.contains(part)), "{shown}");
    screener.wait_for_degraded(part, true)?;
    wait_for_log_of(screener, part)
}

#[test]
fn a_file_is_in_force_as_long_as_it_says_so_and_its_feed_is_there() {
    cell::test("a_file_is_in_force_as_long_as_it_says_so_and_its_feed_is_there", || {
        let (mx, internet) = Net::mx_and_internet()?;
        mx.write(FILE, "# ours\n198.51.100.7\n203.0.113.0/28\n2001:db8:bad::/48\n")?;
        let mut screener = Screener::start(&mx, &config(&[&file_feed("")]))?;
        wait_for_entries(&screener, "own", 3)?;
        ensure!(is_silent(&internet, "198.51.100.7")? && is_silent(&internet, "203.0.113.9")?, "XDP lets them in");
        ensure!(!is_silent(&internet, "203.0.113.16")?, "somebody else is dropped");
        expect(&mx, &["kernel", "map", "get", "deny", "2001:db8:bad::1"], 0, "drop")?;
        expect(&mx, &["explain", "203.0.113.9"], 0, "Denied by 203.0.113.0/28 from feed:own, since")?;
        let denies = screener.json(&["deny", "list", "--json"])?;
        ensure!(denies.as_array().is_some_and(|all| all.iter().all(|entry| entry["origin"] == "feed:own")), "{denies}");
        wait_for(&screener, "own", "hits of the feed", |feed| feed["hits"].as_u64().is_some_and(|hits| hits >= 2))?;
        let since = denies[1]["added"].clone();

        // Another list in its place: what is new comes, what is gone goes, what stays is not touched.
        replace(&mx, FILE, "203.0.113.0/28\n203.0.113.64/26\n2001:db8:bad::/48\n")?;
        until_or_show(
            "the other list",
            SOON,
            || screener.log(),
            || {
                let denies = screener.json(&["deny", "list", "--json"])?;
                Ok(denies
                    .as_array()
                    .is_some_and(|all| all.iter().any(|it| it["prefix"] == "203.0.113.64/26"))
                    .then_some(()))
            },
        )?;
        ensure!(!is_silent(&internet, "198.51.100.7")?, "what is gone is still dropped");
        ensure!(is_silent(&internet, "203.0.113.70")? && is_silent(&internet, "203.0.113.9")?, "what is there gets in");
        let denies = screener.json(&["deny", "list", "--json"])?;
        ensure!(denies[0]["added"] == since, "since when is lost: {denies}");

        // A line that is not understood: nothing changes, and everything says so.
        replace(&mx, FILE, "203.0.113.0/28\n<html>\n")?;
        screener.wait_for_degraded("feed own: the list is refused: line 2: '<html>' is no prefix", true)?;
        ensure!(is_silent(&internet, "203.0.113.70")?, "the last good list is gone");
        expect(&mx, &["feed", "diff", "own"], 1, "no list of own waits to be looked at")?;
        expect(&mx, &["feed", "refresh", "own", "--force"], 2, "no refused list of own waits to be forced")?;
        std::fs::remove_file(mx.path(FILE))?;
        screener.wait_for_degraded(&format!("feed own: cannot read {FILE}: No such file"), true)?;
        ensure!(is_silent(&internet, "203.0.113.70")?, "the last good list is gone");
        replace(&mx, FILE, "203.0.113.0/28\n203.0.113.64/26\n2001:db8:bad::/48\n")?;
        screener.wait_for_degraded("feed own", false)?;

        // Another action for the same entries, then the feed goes, with all it had.
        screener.reload(&config(&[&file_feed("action = \"reject\"")]))?;
        expect(&mx, &["kernel", "map", "get", "deny", "203.0.113.70"], 0, "reject")?;
        let said = screener.reload(&config(&[]))?;
        ensure!(said["changed"] == serde_json::json!(["feed"]), "{said}");
        ensure!(!is_silent(&internet, "203.0.113.70")?, "the feed is gone and its entries are not");
        expect(&mx, &["kernel", "map", "get", "deny", "203.0.113.70"], 1, "not in deny")?;
        expect(&mx, &["feed", "status"], 0, "no feed is configured")?;
        expect(&mx, &["feed", "status", "own"], 1, "there is no feed own")?;
        ensure!(mx.ask("ls", &[COPIES])?.is_empty(), "a copy is left");
        // And comes back.
        screener.reload(&config(&[&file_feed("action = \"count\"")]))?;
        wait_for_entries(&screener, "own", 3)?;
        expect(&mx, &["explain", "203.0.113.70"], 0, "A dry run covers it, 203.0.113.64/26 from feed:own")?;
        screener.stop()
    });
}

#[test]
fn what_commands_and_the_configuration_say_stands_above_a_feed() {
    cell::test("what_commands_and_the_configuration_say_stands_above_a_feed", || {
        let mx = Net::mx()?;
        mx.write(FILE, "198.51.100.0/24\n198.51.100.7\n203.0.113.0/24\n")?;
        let deny = "[[deny]]\nprefix = \"203.0.113.0/24\"\naction = \"tag\"\n";
        let screener = Screener::start(&mx, &format!("{}{deny}", config(&[&file_feed("")])))?;
        wait_for_entries(&screener, "own", 3)?;
        let found = |address, part| expect(&mx, &["kernel", "map", "get", "deny", address], 0, part);
        found("203.0.113.1", "tag")?;
        found("198.51.100.7", "drop")?;
        expect(&mx, &["deny", "add", "198.51.100.7", "--action", "reject"], 0, "reject")?;
        found("198.51.100.7", "reject")?;
        expect(&mx, &["deny", "del", "198.51.100.7"], 0, "removed")?;
        found("198.51.100.7", "drop")?;
        expect(&mx, &["deny", "del", "198.51.100.7"], 1, "no deny entry")?;
        // A permit that is made within what the feed denies is meant, and no reason to refuse the next list.
        expect(&mx, &["permit", "add", "198.51.100.9"], 0, "permit")?;
        replace(&mx, FILE, "198.51.100.0/24\n203.0.113.0/24\n")?;
        wait_for_entries(&screener, "own", 2)?;
        found("198.51.100.9", "permit")?;
        found("198.51.100.7", "drop")?;
        // A list that comes over a permit is.
        expect(&mx, &["permit", "add", "8.8.8.8"], 0, "permit")?;
        replace(&mx, FILE, "198.51.100.0/24\n203.0.113.0/24\n8.8.8.0/24\n")?;
        screener.wait_for_degraded("it would cover 8.8.8.8/32 (cli) by 8.8.8.0/24", true)?;
        expect_all(
            &mx,
            &["feed", "diff", "own"],
            0,
            &["from 2 prefixes to 3: 1 would come (+), 0 go (-), 2 stay", "+8.8.8.0/24"],
        )?;
        expect(&mx, &["feed", "refresh", "own", "--force"], 0, "own: 3 prefixes: 1 came, 0 went")?;
        expect(&mx, &["feed", "status", "own"], 0, "note: feed own: forced, though the list is refused as a whole")?;
        found("8.8.8.9", "drop")?;
        found("8.8.8.8", "permit")?;
        // From now on that is accepted.
        replace(&mx, FILE, "198.51.100.0/24\n203.0.113.0/24\n8.8.8.0/24\n8.8.4.0/24\n")?;
        wait_for_entries(&screener, "own", 4)?;
        screener.wait_for_degraded("feed own", false)
    });
}

#[test]
fn a_list_from_the_web_is_asked_for_once_and_survives_the_server_the_daemon_and_the_network() {
    cell::test("a_list_from_the_web_is_asked_for_once_and_survives_the_server_the_daemon_and_the_network", || {
        let net = Net::new()?;
        let (mx, internet, lists) = (net.host(&MX)?, net.host(&INTERNET)?, net.host(&LISTS)?);
        // No server and no copy: it says so, and screens.
        let mut screener = Screener::start(&mx, &config(&[&web_feed("http://192.0.2.80/list?key=secret", "")]))?;
        screener.wait_for_degraded("feed web: http://192.0.2.80/list does not answer: Connection refused", true)?;
        screener.wait_for_degraded("it has no list", true)?;
        let mut web = Web::start(&lists, "192.0.2.80".parse()?, 80, None)?;
        web.give(&addresses(40))?;
        expect(&mx, &["feed", "refresh"], 0, "web: 40 prefixes: 40 came, 0 went")?;
        screener.wait_for_degraded("feed", false)?;
        ensure!(is_silent(&internet, "198.51.100.40")? && !is_silent(&internet, "198.51.100.41")?, "not in the kernel");
        let first = feed(&screener, "web")?;
        expect(&mx, &["feed", "refresh", "web"], 0, "web: 40 prefixes: 0 came, 0 went")?;
        let asked = ["GET /list?key=secret good new", "GET /list?key=secret good known"];
        ensure!(web.asked() == asked, "{:?}", web.asked());
        let second = feed(&screener, "web")?;
        ensure!(second["taken"] == first["taken"] && second["last"]["result"] == "unchanged", "{second}");
        ensure!(!screener.log().contains("secret") && !second.to_string().contains("secret"), "a key is shown");

        // Killed, and started without a network: the list is there before the first packet.
        web.stop()?;
        screener.kill9()?;
        ensure!(is_silent(&internet, "198.51.100.40")?, "the kernel forgot");
        screener.restart()?;
        let again = feed(&screener, "web")?;
        ensure!(again["entries"] == 40 && again["taken"] == first["taken"] && again["state"] == "good", "{again}");
        ensure!(is_silent(&internet, "198.51.100.40")?, "the copy is not in force");
        expect(&mx, &["explain", "198.51.100.40"], 0, "from feed:web, since")?;
        // It is not due: nobody is asked. By hand it is, with what was known before.
        web.restart()?;
        ensure!(web.asked().is_empty(), "{:?}", web.asked());
        expect(&mx, &["feed", "refresh", "web"], 0, "0 came, 0 went")?;
        ensure!(web.asked() == asked[1..], "{:?}", web.asked());

        // A damaged copy is set aside and said; the source has the list.
        screener.stop()?;
        mx.ask("sh", &["-c", &format!("echo damage >> {COPIES}/web.list")])?;
        screener.restart()?;
        screener.wait_for_log("its last good copy cannot be used", SOON)?;
        ensure!(mx.ask("ls", &[COPIES])?.contains("web.list.damaged"), "it is gone");
        wait_for_entries(&screener, "web", 40)?;
        screener.wait_for_degraded("feed", false)?;
        let metrics = Control::connect(&mx)?.metrics()?;
        for line in [
            "screener_feed_entries{feed=\"web\"} 40",
            "screener_feed_state{feed=\"web\",state=\"good\"} 1",
            "screener_feed_last_result{feed=\"web\",result=\"taken\"} 1",
        ] {
            ensure!(metrics.contains(line), "{line} in {metrics}");
        }
        expect(&mx, &["doctor"], 1, "feed web: 40 prefixes, confirmed")
    });
}

#[test]
fn what_is_not_the_whole_list_or_cannot_be_meant_changes_nothing() {
    cell::test("what_is_not_the_whole_list_or_cannot_be_meant_changes_nothing", || {
        let net = Net::new()?;
        let (mx, internet, lists) = (net.host(&MX)?, net.host(&INTERNET)?, net.host(&LISTS)?);
        let web = Web::start(&lists, "192.0.2.80".parse()?, 80, None)?;
        web.give(&addresses(40))?;
        let place = "http://192.0.2.80/list";
        let screener = Screener::start(&mx, &config(&[&web_feed(place, "")]))?;
        wait_for_entries(&screener, "web", 40)?;

        web.behave("forgetful")?;
        for (list, part) in [
            (String::new(), "it is empty, and the one before has 40 prefixes"),
            (addresses(19), "it shrinks from 40 to 19 prefixes, to less than half"),
            (addresses(255), "it grows from 40 to 255 prefixes, to more than 4 times as many"),
            (addresses(40) + "192.0.2.0/24\n", "it would cover 192.0.2.10/32 (own_address) by 192.0.2.0/24"),
            (addresses(40) + "10.255.255.1\n", "it would deny private or reserved ranges: 10.255.255.1/32"),
            (addresses(40) + "32.0.0.0/7\n", "one prefix is wider than /8 (IPv4) or /16 (IPv6): 32.0.0.0/7"),
            (addresses(40) + "<a href=x>\n", "line 41: '<a href=x>' is no prefix and no address"),
        ] {
            web.give(&list)?;
            refused(&mx, &screener, 40, part)?;
        }
        web.give(&addresses(41))?;
        for (manner, part) in [
            ("truncated", "it broke off after"),
            ("drip", "there was no whole answer within 3s"),
            ("endless", "it is longer than 64 MiB: that is no list"),
            ("encoded", "it is encoded (gzip), though nobody asked for that"),
            ("loop", "leads on and on: more than 5 redirects"),
            ("redirect file:///etc/passwd", "redirects to file:, which is no way to a list"),
            ("status 403", "http://192.0.2.80/list answers 403 Forbidden"),
            ("status 304", "answers 304 Not Modified"),
        ] {
            web.behave(manner)?;
            if manner == "status 304" {
                // To whom no list is known.
                screener.reload(&config(&[&web_feed("http://192.0.2.80/other", "")]))?;
            }
            refused(&mx, &screener, 40, part)?;
        }
        ensure!(is_silent(&internet, "198.51.100.40")? && !is_silent(&internet, "198.51.100.41")?, "not the good list");
        // A redirect is followed, and of another source everything is taken that is good by itself.
        web.behave("redirect /there")?;
        web.give(&addresses(3))?;
        expect(&mx, &["feed", "refresh", "web"], 0, "web: 3 prefixes: 0 came, 37 went")?;
        ensure!(web.asked().last().is_some_and(|line| line.starts_with("GET /there")), "{:?}", web.asked());
        screener.wait_for_degraded("feed", false)?;
        ensure!(!is_silent(&internet, "198.51.100.40")?, "still dropped");
        // Nobody asks again by himself what was answered: it is due in twelve hours.
        let shown = feed(&screener, "web")?;
        ensure!(shown["next"].as_str() > shown["checked"].as_str(), "{shown}");
        Ok(())
    });
}

#[test]
fn an_operator_who_has_looked_at_a_refused_list_can_force_it_and_some_lists_may_be_empty() {
    cell::test("an_operator_who_has_looked_at_a_refused_list_can_force_it_and_some_lists_may_be_empty", || {
        let net = Net::new()?;
        let (mx, lists) = (net.host(&MX)?, net.host(&LISTS)?);
        let web = Web::start(&lists, "192.0.2.80".parse()?, 80, None)?;
        let eof = "; Spamhaus DROP List\n; EOF\n";
        let some = |count| addresses(count).replace('\n', " ; SBL1\n") + "; EOF\n";
        web.give(&some(40))?;
        let feed_keys = web_feed("http://192.0.2.80/drop.txt", "").replace("\"cidr\"", "\"spamhaus-text\"");
        let mut screener = Screener::start(&mx, &config(&[&feed_keys]))?;
        wait_for_entries(&screener, "web", 40)?;
        web.give(&some(10))?;
        refused(&mx, &screener, 40, "it shrinks from 40 to 10 prefixes")?;
        // What was looked at is taken, whatever the source says by now.
        web.give(&some(2))?;
        expect_all(
            &mx,
            &["feed", "diff"],
            0,
            &["from 40 prefixes to 10: 0 would come (+), 30 go (-), 10 stay", "-198.51.100.11/32"],
        )?;
        let diff = screener.json(&["feed", "diff", "web", "--json"])?;
        ensure!(diff["removed"].as_array().is_some_and(|gone| gone.len() == 30) && diff["kept"] == 10, "{diff}");
        expect(&mx, &["feed", "refresh", "web", "--force"], 0, "web: 10 prefixes: 0 came, 30 went")?;
        screener.wait_for_log("feed web: 10 prefixes in force, forced by command: 0 came, 30 went, 10 stay", SOON)?;
        screener.wait_for_degraded("feed", false)?;

        // Without its end it is no list; complete and empty it is refused, unless that is to be expected.
        web.give("; Spamhaus DROP List\n")?;
        refused(&mx, &screener, 10, "the line \"; EOF\" is missing, so this is not the whole list")?;
        web.give(eof)?;
        refused(&mx, &screener, 10, "it is empty, and the one before has 10 prefixes (set may_be_empty")?;
        screener.reload(&config(&[&(feed_keys + "may_be_empty = true")]))?;
        screener.wait_for_log("feed web: 0 prefixes in force: 0 came, 10 went, 0 stay", SOON)?;
        let shown = wait_for_entries(&screener, "web", 0)?;
        ensure!(shown["state"] == "good", "{shown}");
        // An empty list is a list, also after a restart.
        screener.stop()?;
        screener.restart()?;
        let shown = feed(&screener, "web")?;
        ensure!(shown["state"] == "good" && shown["checked"].is_string(), "{shown}");
        Ok(())
    });
}

#[test]
fn https_is_believed_with_a_certificate_that_the_system_trusts_and_only_then() {
    cell::test("https_is_believed_with_a_certificate_that_the_system_trusts_and_only_then", || {
        let net = Net::new()?;
        let (mx, lists) = (net.host(&MX)?, net.host(&LISTS)?);
        mx.write("/etc/hosts", "127.0.0.1 localhost\n192.0.2.80 lists.example other.example\n")?;
        let address: IpAddr = "192.0.2.80".parse()?;
        let good = Certificate::new("lists.example")?;
        let web = Web::start(&lists, address, 443, Some(&good))?;
        web.give("203.0.113.0/24\n")?;
        let screener = Screener::start(&mx, &config(&[&web_feed("https://lists.example/list", "")]))?;
        let text = "invalid peer certificate: UnknownIssuer";
        screener.wait_for_degraded(text, true)?;
        expect(&mx, &["feed", "refresh", "web"], 2, text)?;
        ensure!(web.asked().is_empty(), "it was asked all the same");
        trust(&mx, &good)?;
        expect(&mx, &["feed", "refresh", "web"], 0, "web: 1 prefixes: 1 came, 0 went")?;
        screener.wait_for_degraded("feed", false)?;
        // Another name than the certificate's, an end that has come, a way out of TLS.
        screener.reload(&config(&[&web_feed("https://other.example/list", "")]))?;
        expect(&mx, &["feed", "refresh", "web"], 2, "certificate not valid for name \"other.example\"")?;
        let old = Certificate::good_for("lists.example", -1)?;
        trust(&mx, &old)?;
        let _expired = Web::start(&lists, address, 8443, Some(&old))?;
        screener.reload(&config(&[&web_feed("https://lists.example:8443/list", "")]))?;
        expect(&mx, &["feed", "refresh", "web"], 2, "certificate expired")?;
        screener.reload(&config(&[&web_feed("https://lists.example/list", "")]))?;
        web.behave("redirect http://lists.example/list")?;
        expect(
            &mx,
            &["feed", "refresh", "web"],
            2,
            "redirects from https to http, which anybody between could answer",
        )?;
        ensure!(feed(&screener, "web")?["entries"] == 1, "the good list is gone");
        // What is said in the clear is said to be so.
        screener.reload(&config(&[&web_feed("http://lists.example/list", "")]))?;
        let notes = screener.json(&["status", "--json"])?["notes"].to_string();
        ensure!(notes.contains("feed web: it is fetched in the clear"), "{notes}");
        Ok(())
    });
}

#[test]
fn a_feed_that_permits_lets_its_clients_pass_in_the_kernel_and_not_too_many() {
    cell::test("a_feed_that_permits_lets_its_clients_pass_in_the_kernel_and_not_too_many", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        mx.write(FILE, "203.0.113.0/28\n")?;
        let permit = file_feed("action = \"permit\"");
        let mut screener = Screener::start(&mx, &config(&[&permit]))?;
        screener.tell(&["deny", "add", "203.0.113.5"])?;
        wait_for_entries(&screener, "own", 1)?;
        let (server, client) = (SocketAddr::new("192.0.2.10".parse()?, 25), "203.0.113.5".parse::<IpAddr>()?);
        let sessions = screener.sessions()?;
        let mut direct = Client::connect(&internet, client, server)?;
        direct.expect(220)?;
        direct.ask("QUIT", 221)?;
        mta.wait_until_seen(DIRECT, client, SOON)?;
        ensure!(screener.sessions()? == sessions, "the daemon saw it");
        expect(&mx, &["explain", "203.0.113.5"], 0, "Permitted by 203.0.113.0/28 from feed:own")?;
        expect(&mx, &["permit", "del", "203.0.113.0/28"], 1, "no permit entry")?;
        // More than one sender has is refused, whoever says it.
        replace(&mx, FILE, "64.0.0.0/7\n")?;
        screener.wait_for_degraded("it would permit 64.0.0.0/7, wider than /8 (IPv4) or /16 (IPv6)", true)?;
        replace(&mx, FILE, "64.0.0.0/8\n66.0.0.0/8\n")?;
        screener.wait_for_degraded("which beats every deny and every test: that is not one sender's", true)?;
        expect(&mx, &["kernel", "map", "get", "permit", "203.0.113.0/28"], 0, "permit")?;
        // It says so no more: the deny under it was there all the time.
        replace(&mx, FILE, "203.0.113.64/28\n")?;
        screener.wait_for_degraded("feed own", false)?;
        ensure!(is_silent(&internet, "203.0.113.5")?, "still permitted");
        // A list of permits does not become one of denies by a word, nor the other way round.
        screener.reload(&config(&[&file_feed("action = \"drop\"")]))?;
        wait_for(&screener, "own", "the same list to deny", |feed| feed["entries"] == 1 && feed["action"] == "drop")?;
        expect(&mx, &["kernel", "map", "get", "permit", "203.0.113.64/28"], 1, "not in permit")?;
        expect(&mx, &["kernel", "map", "get", "deny", "203.0.113.65"], 0, "drop")?;
        screener.stop()
    });
}

#[test]
fn the_senders_of_an_spf_record_are_permitted_as_long_as_it_names_them() {
    cell::test("the_senders_of_an_spf_record_are_permitted_as_long_as_it_names_them", || {
        let net = Net::new()?;
        let (mx, dns) = (net.host(&MX)?, net.host(&Plan { name: "dns", addresses: &["192.0.2.53"], prefixes: &[] })?);
        let record = |terms: &str| format!("large.example. 300 TXT \"v=spf1 {terms} -all\"");
        let first = record("ip4:198.51.100.64/26 ip6:2001:db8:a::/48 exists:%{i}.x.large.example");
        let mut names = Names::start(&dns, "192.0.2.53".parse()?, &[&first])?;
        mx.resolve_at(names.address())?;
        let spf = "name = \"large\"\nsource = \"spf:large.example\"\naction = \"permit\"\n";
        let screener = Screener::start(&mx, &config(&[spf]))?;
        let shown = wait_for_entries(&screener, "large", 2)?;
        ensure!(shown["notes"].to_string().contains("depends on the mail and cannot be expanded"), "{shown}");
        expect(&mx, &["explain", "198.51.100.65"], 0, "Permitted by 198.51.100.64/26 from feed:large")?;
        names.replace(&[&record("ip4:203.0.113.0/28")])?;
        // The daemon's resolver keeps the answer for as long as its TTL says.
        screener.reload(&config(&[&spf.replace("large.example", "other.example")]))?;
        screener
            .wait_for_degraded("feed large: the SPF record of other.example cannot be used: there is none", true)?;
        expect(&mx, &["feed", "refresh", "large"], 2, "; the list of ")?;
        expect(&mx, &["kernel", "map", "get", "permit", "2001:db8:a::/48"], 0, "permit")?;
        screener.reload(&config(&[]))?;
        expect(&mx, &["kernel", "map", "get", "permit", "2001:db8:a::/48"], 1, "not in permit")
    });
}

#[test]
fn a_full_disk_is_said_and_stops_no_list() {
    cell::test("a_full_disk_is_said_and_stops_no_list", || {
        let (mx, internet) = Net::mx_and_internet()?;
        mx.ask("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", "/var/lib/screener"])?;
        mx.write(FILE, "203.0.113.0/28\n")?;
        let screener = Screener::start(&mx, &config(&[&file_feed("")]))?;
        wait_for_entries(&screener, "own", 1)?;
        mx.ask("sh", &["-c", "dd if=/dev/zero of=/var/lib/screener/ballast bs=4k 2>/dev/null || true"])?;
        let prefixes: String = (0..=255).map(|third| format!("203.{third}.113.0/28\n")).collect();
        replace(
            &mx,
            FILE,
            &("203.0.113.0/28\n".to_owned()
                + &prefixes.lines().skip(1).take(70).fold(String::new(), |all, line| all + line + "\n")),
        )?;
        screener.wait_for_degraded("feed own: its list is in force, but not on the disk", true)?;
        let shown = feed(&screener, "own")?;
        ensure!(shown["entries"] == 71 && shown["state"] == "good", "{shown}");
        expect(&mx, &["feed", "status"], 1, "No space left on device")?;
        ensure!(is_silent(&internet, "203.0.113.9")?, "it is not in force");
        ensure!(!mx.ask("ls", &[COPIES])?.contains("own.list.new"), "half a copy is left");
        let copy = mx.read(&format!("{COPIES}/own.list"))?;
        ensure!(copy.lines().count() == 3, "the last copy is not whole: {copy}");
        std::fs::remove_file(mx.path("/var/lib/screener/ballast"))?;
        expect(&mx, &["feed", "refresh", "own"], 0, "own: 71 prefixes: 0 came, 0 went")?;
        screener.wait_for_degraded("feed own", false)?;
        ensure!(mx.read(&format!("{COPIES}/own.list"))?.lines().count() == 73, "not on the disk");
        Ok(())
    });
}

#[test]
fn a_new_feed_comes_with_a_reload_and_a_wrong_one_leaves_all_as_it_was() {
    cell::test("a_new_feed_comes_with_a_reload_and_a_wrong_one_leaves_all_as_it_was", || {
        let mx = Net::mx()?;
        mx.write(FILE, "203.0.113.0/28\n")?;
        mx.write("/etc/screener/bogons", "0.0.0.0/8\n10.0.0.0/8\n127.0.0.0/8\n203.0.113.128/25\n224.0.0.0/3\n")?;
        let mut screener = Screener::start(&mx, &config(&[&file_feed("")]))?;
        wait_for_entries(&screener, "own", 1)?;
        let second = "name = \"level1\"\nsource = \"/etc/screener/bogons\"\nformat = \"netset\"\naction = \"tag\"";
        screener.configure(&config(&[&file_feed(""), &second.replace("netset", "ipset")]))?;
        expect(&mx, &["reload"], 2, "feed[1].format: 'ipset' is no list format of this version")?;
        ensure!(feed(&screener, "own")?["entries"] == 1, "the running feed is gone");
        screener.reload(&config(&[&file_feed(""), second]))?;
        screener
            .wait_for_degraded("feed level1: the list is refused: it would deny private or reserved ranges", true)?;
        screener.reload(&config(&[&file_feed(""), &format!("{second}\nprivate = \"leave-out\"")]))?;
        let shown = wait_for_entries(&screener, "level1", 1)?;
        ensure!(shown["notes"].to_string().contains("4 private or reserved prefixes were left out"), "{shown}");
        expect(&mx, &["kernel", "map", "get", "deny", "203.0.113.130"], 0, "tag")?;
        // Taken over by another daemon: nothing is lost, and it goes on.
        screener.take_over()?;
        ensure!(feed(&screener, "level1")?["entries"] == 1 && feed(&screener, "own")?["entries"] == 1, "lost");
        replace(&mx, FILE, "203.0.113.16/28\n203.0.113.32/28\n")?;
        wait_for_entries(&screener, "own", 2)?;
        let listed = screener.json(&["feed", "status", "--json"])?;
        ensure!(listed.as_array().context("no list")?.len() == 2, "{listed}");
        screener.wait_for_predecessors()?;
        expect(&mx, &["feed", "status"], 0, "level1")?;
        screener.stop()?;
        std::fs::remove_file(mx.path(FILE))?;
        expect(&mx, &["doctor"], 1, "problem  feed own: cannot read /etc/screener/own.list")
    });
}

#[test]
fn without_a_kernel_half_the_daemon_itself_refuses_by_a_feed() {
    cell::test("without_a_kernel_half_the_daemon_itself_refuses_by_a_feed", || {
        let (mx, internet) = Net::mx_and_internet()?;
        mx.write(FILE, "198.51.100.7\n")?;
        let front =
            config(&[&file_feed("")]).replace("[kernel]", "[listen]\nmode = \"front\"\n[kernel]\nxdp = \"off\"");
        let screener = Screener::start(&mx, &front)?;
        wait_for_entries(&screener, "own", 1)?;
        let connect =
            || Client::connect(&internet, "198.51.100.7".parse()?, "192.0.2.10:25".parse()?).context("the MX");
        connect()?.expect(521)?;
        replace(&mx, FILE, "198.51.100.9\n")?;
        wait_for_log_of(&screener, "1 came, 1 went")?;
        ensure!(connect()?.read_line()?.starts_with("220"), "still refused");
        Ok(())
    });
}

#[test]
fn a_large_list_comes_in_beside_sessions_and_one_that_has_no_room_changes_nothing() {
    cell::test("a_large_list_comes_in_beside_sessions_and_one_that_has_no_room_changes_nothing", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let list = |name: &str, program: &str| mx.ask("sh", &["-c", &format!("awk 'BEGIN {{ {program} }}' > {name}")]);
        // 200,000 networks of four addresses each.
        let large =
            "for (i = 0; i < 200000; i++) printf \"%d.%d.%d.%d/30\\n\", 20 + i / 65536, i / 256 % 256, i % 256, 8";
        list(FILE, large)?;
        let screener = Screener::start(&mx, &config(&[&file_feed("")]))?;
        // Meanwhile everybody is greeted.
        let (server, mut longest) = (SocketAddr::new("192.0.2.10".parse()?, 25), Duration::ZERO);
        let (mut greeted, begun) = (0_u8, Instant::now());
        while feed(&screener, "own")?["entries"] != 200_000 || greeted < 20 {
            ensure!(begun.elapsed() < Duration::from_secs(60), "not in force:\n{}", screener.log());
            let began = Instant::now();
            let source: IpAddr = format!("198.51.100.{}", 1 + greeted % 200).parse()?;
            let mut client = Client::connect(&internet, source, server)?;
            ensure!(client.read_line()?.starts_with("220-"), "no greeting");
            longest = longest.max(began.elapsed());
            greeted = greeted.saturating_add(1);
        }
        // Where that takes long everything does.
        let bearable = Duration::from_secs(2).max(begun.elapsed() / 2);
        ensure!(longest < bearable, "somebody waited {longest:?} for a greeting");
        expect(&mx, &["kernel", "map", "get", "deny", "20.0.1.9"], 0, "drop")?;

        // A few that differ are changed in place.
        list("/etc/screener/next", &format!("{large}; print \"203.0.113.0/28\""))?;
        mx.ask(
            "sh",
            &["-c", &format!("sed -i '/^20[.]0[.]1[.]8/d' /etc/screener/next && mv /etc/screener/next {FILE}")],
        )?;
        wait_for_log_of(&screener, "200000 prefixes in force: 1 came, 1 went, 199999 stay")?;
        expect(&mx, &["kernel", "map", "get", "deny", "20.0.1.9"], 1, "not in deny")?;
        ensure!(is_silent(&internet, "203.0.113.9")?, "what came is not dropped");

        // More IPv6 networks than the kernel has room for.
        list(
            "/etc/screener/six",
            "for (i = 0; i < 150000; i++) printf \"2a%02x:%x:%x::/48\\n\", i % 16, i / 4096, i % 4096",
        )?;
        let six = "name = \"six\"\nsource = \"/etc/screener/six\"\nformat = \"cidr\"\n";
        screener.reload(&config(&[&file_feed(""), six]))?;
        screener.wait_for_degraded("feed six: the kernel map", true)?;
        screener.wait_for_degraded("is full", true)?;
        ensure!(feed(&screener, "six")?["entries"] == 0, "some of it came in");
        ensure!(screener.tell(&["deny", "export", "--origin", "feed:six"])?.lines().count() == 1, "some of it came in");
        expect(&mx, &["kernel", "map", "get", "deny", "20.0.2.9"], 0, "drop")?;
        ensure!(is_silent(&internet, "203.0.113.9")?, "the other feed is gone");
        // The feed goes again, and the one of 200,000.
        screener.reload(&config(&[]))?;
        expect(&mx, &["kernel", "map", "get", "deny", "20.0.2.9"], 1, "not in deny")?;
        ensure!(!is_silent(&internet, "203.0.113.9")?, "still dropped");
        Ok(())
    });
}

fn wait_for_log_of(screener: &Screener, part: &str) -> Result<()> {
    until_or_show(part, Duration::from_secs(60), || screener.log(), || Ok(screener.log().contains(part).then_some(())))
}
