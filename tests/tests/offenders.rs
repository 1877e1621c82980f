//! The offence ladder in the real kernel: who keeps failing is refused, answered slowly, and met with silence; how that shows,
//! ends, is undone and survives the daemon; and who never climbs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use screener_tests::cell;
use screener_tests::cli::{expect_all, shell};
use screener_tests::client::{Client, PATIENCE, Trouble};
use screener_tests::host::Host;
use screener_tests::mta::{Door, Mta};
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::wait::{until, until_or_show};

const SOON: Duration = Duration::from_secs(40);
/// How long a SYN that is dropped is waited for.
const SILENCE: Duration = Duration::from_millis(700);

/// Two points an offence: the second leads to the tarpit and the fourth out, as long as no hour lies between them.
const STEEP: &str = "tarpit_at = 3\ndrop_at = 6\nhalf_life = \"1d\"\nprefix_clients = 0\n";

/// Whoever speaks before its turn is sent away at once; the tarpit is none that a test would have to wait in.
fn config(ladder: &str, more: &str) -> String {
    let drops = USUAL.replace("wait = \"1s\"", "wait = \"2s\"\naction = \"drop\"");
    let climbs = drops.replace("[ladder]\nenable = false\n", &format!("[ladder]\n{ladder}"));
    format!("{climbs}[limits]\ntarpit_pace = \"10ms\"\n{more}")
}

fn server(mx: &Host, family: Family) -> Result<SocketAddr> {
    Ok(SocketAddr::new(mx.address(family)?, 25))
}

const EARLY: &[u8] = b"EHLO early.example.net\r\n";

/// Speaks before the greeting, hears the greeting, and leaves.
fn fail(internet: &Host, source: IpAddr, server: SocketAddr) -> Result<(), Trouble> {
    fail_within(internet, source, server, PATIENCE)
}

/// The same, where it may meet silence: a SYN is waited for so long.
fn fail_within(internet: &Host, source: IpAddr, server: SocketAddr, limit: Duration) -> Result<(), Trouble> {
    let mut client = Client::connect_saying_within(internet, source, server, EARLY, limit)?;
    // In front of somebody who is kept out there is none.
    let _ = client.expect(220);
    Ok(())
}

/// Everybody on the ladder.
fn offenders(screener: &Screener) -> Result<Vec<Value>> {
    let all = screener.json(&["deny", "list", "--offenders", "--json"])?;
    all.as_array().cloned().context("no array")
}

fn offender(screener: &Screener, network: &str) -> Result<Option<Value>> {
    Ok(offenders(screener)?.into_iter().find(|offender| offender["network"] == network))
}

fn rung(screener: &Screener, network: &str) -> Result<Option<String>> {
    Ok(offender(screener, network)?.and_then(|offender| offender["rung"].as_str().map(str::to_owned)))
}

/// Fails until the client stands on a rung.
fn climb(internet: &Host, screener: &Screener, source: IpAddr, server: SocketAddr, wanted: &str) -> Result<()> {
    let network = network(source);
    until_or_show(
        &format!("{source} to be {wanted}"),
        SOON,
        || screener.log(),
        || {
            if rung(screener, &network)?.as_deref() == Some(wanted) {
                return Ok(Some(()));
            }
            // Two in one second would count once.
            std::thread::sleep(Duration::from_millis(300));
            match fail_within(internet, source, server, SILENCE) {
                Ok(()) | Err(Trouble::Silence(_) | Trouble::Closed | Trouble::Reset) => Ok(None),
                Err(trouble) => bail!("{source}: {trouble}"),
            }
        },
    )
}

/// How the ladder names the client of an address.
fn network(source: IpAddr) -> String {
    match source {
        IpAddr::V4(source) => source.to_string(),
        IpAddr::V6(source) => {
            let [a, b, c, d, ..] = source.segments();
            format!("{}/64", std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

fn is_silent(internet: &Host, source: IpAddr, server: SocketAddr) -> bool {
    matches!(Client::connect_within(internet, source, server, SILENCE), Err(Trouble::Silence(_)))
}

fn metrics(mx: &Host) -> Result<String> {
    mx.ask("curl", &["-s", "--unix-socket", "/run/screener/control.sock", "http://localhost/metrics"])
}

fn packets(screener: &Screener, name: &str) -> Result<u64> {
    let status = screener.json(&["status", "--json"])?;
    let counters = status["kernel"]["counters"].as_array().context("no counters")?;
    Ok(counters
        .iter()
        .filter(|counter| counter["name"] == name)
        .filter_map(|counter| counter["packets"].as_u64())
        .sum())
}

#[test]
fn who_keeps_failing_is_refused_then_tarpitted_then_meets_silence_until_it_is_forgiven() {
    cell::test("who_keeps_failing_is_refused_then_tarpitted_then_meets_silence_until_it_is_forgiven", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &config(STEEP, ""))?;
        for family in Family::BOTH {
            let source: IpAddr = family.pick("198.51.100.20", "2001:db8:a:20::1").parse()?;
            let (network, server) = (network(source), server(&mx, family)?);

            fail(&internet, source, server)?;
            until("the offence to count", SOON, || rung(&screener, &network).ok()?.filter(|rung| rung == "refused"))?;
            climb(&internet, &screener, source, server, "tarpitted")?;
            // Who mends its ways is let in from there: this one does not.
            let slow = Client::connect_saying(&internet, source, server, EARLY)?;
            let name = slow.log_name();
            screener.wait_for_log(&format!("TARPIT {name}"), SOON)?;
            drop(slow);
            climb(&internet, &screener, source, server, "dropped")?;
            until("its SYNs to be dropped", SOON, || is_silent(&internet, source, server).then_some(()))?;

            let shown = offender(&screener, &network)?.context("it is gone")?;
            ensure!(shown["by"] == "xdp" && shown["hits"].as_u64() > Some(0), "{shown}");
            ensure!(shown["last_offence"] == "pregreet" && shown["offences"].as_u64() >= Some(4), "{shown}");
            until_or_show(
                "explain to say it",
                SOON,
                || screener.log(),
                || {
                    let explained = screener.explain(source)?;
                    let said = explained["summary"].as_str().unwrap_or_default().to_owned();
                    let told = said.contains("Kept out as an offender until") && explained["verdict"] == "deny";
                    let dropped = explained["drops"].to_string().contains("the offence ladder");
                    Ok((told && dropped).then_some(()))
                },
            )?;
            ensure!(packets(&screener, "drop_offender")? > 0, "not counted");
            // Another address of an IPv6 client is the same client; others are not concerned.
            let other: IpAddr = family.pick("198.51.100.21", "2001:db8:a:21::1").parse()?;
            Client::connect(&internet, other, server)?.expect(220)?;
        }
        let metrics = metrics(&mx)?;
        ensure!(metrics.contains("screener_offenders{rung=\"dropped\"} 2"), "{metrics}");
        ensure!(metrics.contains("screener_offenders_climbed_total{rung=\"dropped\"} 2"), "{metrics}");
        ensure!(!metrics.contains("198.51.100.20"), "an address in a metric");
        ensure!(screener.json(&["status", "--json"])?["offenders"]["dropped"] == 2);
        ensure!(screener.log().contains("OFFENDER 198.51.100.20: kept out until "), "{}", screener.log());

        // A daemon that starts again, or takes over, knows them.
        screener.stop()?;
        let (source, server) = ("198.51.100.20".parse()?, server(&mx, Family::V4)?);
        ensure!(is_silent(&internet, source, server), "let in while no daemon was there");
        let map = |arguments: &[&str], code, parts: &[&str]| {
            expect_all(&mx, &[&["kernel", "map"], arguments].concat(), code, parts)
        };
        map(&["list"], 0, &["offender\t2\n"])?;
        map(&["list", "offender"], 0, &["198.51.100.20/32\t", "2001:db8:a:20::/64\t"])?;
        map(&["dump", "offender"], 0, &["\noffender 198.51.100.20/32 ", "\noffender 2001:db8:a:20::/64 "])?;
        map(&["list", "offender", "--json"], 0, &["\"map\": \"offender\""])?;
        map(&["get", "offender", "2001:db8:a:20::77"], 0, &["2001:db8:a:20::/64: "])?;
        map(&["get", "offender", "198.51.100.20/32"], 0, &["198.51.100.20/32: "])?;
        map(&["get", "offender", "198.51.100.0/24"], 1, &["198.51.100.0/24: not in offender"])?;
        map(&["get", "offender", "198.51.100.21"], 1, &["198.51.100.21: not in offender"])?;
        // What a daemon does not give it, a file does not either.
        let dumped = shell(&mx, "screener kernel map dump | tee /tmp/file; screener kernel map restore /tmp/file")?;
        ensure!(!dumped.contains("offender"), "{dumped}");
        map(&["list"], 0, &["offender\t2\n"])?;
        screener.restart()?;
        ensure!(
            rung(&screener, "198.51.100.20")?.as_deref() == Some("dropped") && is_silent(&internet, source, server)
        );
        screener.take_over()?;
        ensure!(
            rung(&screener, "198.51.100.20")?.as_deref() == Some("dropped") && is_silent(&internet, source, server)
        );

        let said = screener.tell(&["deny", "del", "198.51.100.20"])?;
        ensure!(said.contains("198.51.100.20: taken off the offence ladder"), "{said}");
        until("it to be let in", SOON, || Client::connect_within(&internet, source, server, SILENCE).ok())?;
        let explained = screener.explain(source)?;
        ensure!(explained["offender"].is_null(), "{explained}");
        ensure!(explained["events"].to_string().contains("taken off the offence ladder"), "history stays: {explained}");
        let again = screener.cli(&["deny", "del", "198.51.100.20"])?;
        ensure!(again.status.code() == Some(1), "{again:?}");
        let said = screener.tell(&["deny", "del", "--offenders"])?;
        ensure!(said.contains("1 taken off") && offenders(&screener)?.is_empty(), "{said}");
        Ok(())
    });
}

#[test]
fn a_drop_ends_by_itself_also_when_no_daemon_is_there_any_more() {
    cell::test("a_drop_ends_by_itself_also_when_no_daemon_is_there_any_more", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &config(&(STEEP.to_owned() + "first_drop = \"12s\"\n"), ""))?;
        let (source, server) = ("198.51.100.30".parse()?, server(&mx, Family::V4)?);
        climb(&internet, &screener, source, server, "dropped")?;
        until("its SYNs to be dropped", SOON, || is_silent(&internet, source, server).then_some(()))?;
        screener.kill9()?;
        ensure!(is_silent(&internet, source, server), "the kernel let it in when the daemon died");
        // The MTA's own greeting: without a daemon nobody is screened.
        until("the kernel to let it in by itself", SOON, || {
            let mut client = Client::connect_within(&internet, source, server, SILENCE).ok()?;
            client.expect(220).ok()
        })?;
        screener.restart()?;
        climb(&internet, &screener, source, server, "dropped")?;
        let shown = offender(&screener, "198.51.100.30")?.context("it is gone")?;
        ensure!(shown["offences"].as_u64() >= Some(5), "what it did before still counts: {shown}");
        screener.wait_for_log("OFFENDER 198.51.100.30: let in again", SOON)?;
        Ok(())
    });
}

#[test]
fn whoever_is_permitted_or_passes_never_climbs_and_comes_off() {
    cell::test("whoever_is_permitted_or_passes_never_climbs_and_comes_off", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &config(STEEP, ""))?;
        let server = server(&mx, Family::V4)?;
        let (permitted, given): (IpAddr, IpAddr) = ("198.51.100.40".parse()?, "198.51.100.41".parse()?);
        for source in [permitted, given] {
            climb(&internet, &screener, source, server, "dropped")?;
            until("its SYNs to be dropped", SOON, || is_silent(&internet, source, server).then_some(()))?;
        }
        screener.tell(&["permit", "add", "198.51.100.40"])?;
        Client::connect(&internet, permitted, server)?.expect(220)?;
        screener.tell(&["pass", "add", "198.51.100.41"])?;
        until("the pass to reach the kernel", SOON, || {
            Client::connect_within(&internet, given, server, SILENCE).ok()?.expect(220).ok()
        })?;
        ensure!(offenders(&screener)?.is_empty(), "{:?}", offenders(&screener));
        screener.wait_for_log("OFFENDER 198.51.100.40: off the ladder, 198.51.100.40/32 is permitted now", SOON)?;
        for _ in 0..8 {
            fail(&internet, permitted, server)?;
        }
        // Nor does anybody whose SYNs are all that was ever seen, or who only hangs up.
        internet.ask(
            "nft",
            &["add table inet spoof; add chain inet spoof in { type filter hook input priority 0; }; \
             add rule inet spoof in tcp sport 25 ip daddr 198.51.100.42 drop"],
        )?;
        let (spoofed, hangs_up): (IpAddr, IpAddr) = ("198.51.100.42".parse()?, "198.51.100.43".parse()?);
        let before = packets(&screener, "pass_unlisted")?;
        for _ in 0..30 {
            let halfway = Client::connect_within(&internet, spoofed, server, Duration::from_millis(20));
            ensure!(halfway.is_err(), "a handshake without the answer");
        }
        for _ in 0..8 {
            drop(Client::connect(&internet, hangs_up, server)?);
        }
        until("the hangups to be seen", SOON, || {
            (screener.explain(hangs_up).ok()?["sessions"].as_u64() >= Some(8)).then_some(())
        })?;
        ensure!(packets(&screener, "pass_unlisted")? >= before + 30, "the SYNs did not come");
        ensure!(screener.explain(spoofed)?["sessions"] == 0, "a spoofed client had a session");
        ensure!(offenders(&screener)?.is_empty(), "{:?}", offenders(&screener));
        Ok(())
    });
}

#[test]
fn a_prefix_full_of_offenders_is_kept_out_as_a_whole_unless_somebody_in_it_is_known() {
    cell::test("a_prefix_full_of_offenders_is_kept_out_as_a_whole_unless_somebody_in_it_is_known", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let dense = "tarpit_at = 1\ndrop_at = 100\nprefix_clients = 1\n";
        let screener = Screener::start(&mx, &config(dense, ""))?;
        for family in Family::BOTH {
            let server = server(&mx, family)?;
            let source = |last: u8| -> Result<IpAddr> {
                Ok(family.pick(format!("198.51.100.{last}"), format!("2001:db8:a:{last}::1")).parse()?)
            };
            let prefix = family.pick("198.51.100.0/24", "2001:db8:a::/48");
            let stranger = source(99)?;
            let known = family.pick("198.51.100.77", "2001:db8:a:77::1");
            screener.tell(&["pass", "add", known])?;
            for last in 50..54 {
                climb(&internet, &screener, source(last)?, server, "tarpitted")?;
            }
            ensure!(rung(&screener, prefix)?.is_none(), "there is a pass in it");
            screener.tell(&["pass", "del", known])?;
            climb(&internet, &screener, source(54)?, server, "tarpitted")?;
            until("the prefix to be kept out", SOON, || {
                (rung(&screener, prefix).ok()?? == "dropped" && is_silent(&internet, stranger, server)).then_some(())
            })?;
            let got = screener.tell(&["kernel", "map", "get", "offender", &stranger.to_string()])?;
            ensure!(got.starts_with(&format!("{prefix}: ")), "{got}");
            let said = screener.explain(stranger)?["summary"].to_string();
            ensure!(said.contains(&format!("clients of {prefix} keep failing")), "{said}");
            let forgiven = screener.tell(&["deny", "del", prefix])?;
            ensure!(forgiven.lines().count() == 6, "the prefix and five clients: {forgiven}");
            until("it to be let in", SOON, || Client::connect_within(&internet, stranger, server, SILENCE).ok())?;
        }
        Ok(())
    });
}

#[test]
fn without_a_kernel_half_the_daemon_refuses_and_says_that_it_does() {
    cell::test("without_a_kernel_half_the_daemon_refuses_and_says_that_it_does", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start_with(&mx, "", &[Door::Relay])?;
        let front = config(STEEP, "[listen]\nmode = \"front\"\n")
            .replace("interfaces = [\"eth0\"]", "interfaces = [\"eth0\"]\nxdp = \"off\"");
        let screener = Screener::start(&mx, &front)?;
        let (source, server) = ("198.51.100.60".parse()?, server(&mx, Family::V4)?);
        climb(&internet, &screener, source, server, "dropped")?;
        let mut client = Client::connect(&internet, source, server)?;
        let refused = client.expect(521)?;
        ensure!(refused.contains("5.3.2 Service currently unavailable"), "{}", refused.text());
        let shown = offender(&screener, "198.51.100.60")?.context("it is gone")?;
        ensure!(shown["by"] == "daemon", "{shown}");
        let explained = screener.explain(source)?["summary"].to_string();
        ensure!(explained.contains("its connections are refused by the daemon"), "{explained}");
        // Switched off, nobody is held to what he did.
        screener.reload(&(front.replace("[ladder]\n", "[ladder]\nenable = false\n")))?;
        Client::connect(&internet, source, server)?.expect(220)?;
        ensure!(offenders(&screener)?.is_empty());
        Ok(())
    });
}
