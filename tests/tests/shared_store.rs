//! Three MX hosts and one store: what one learns the others know, and nothing comes back that was taken away.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use screener_tests::cell;
use screener_tests::client::Client;
use screener_tests::mxs::{Mxs, SOON, config, shared, wait_for_state};
use screener_tests::net::Family;
use screener_tests::wait::until_or_show;

/// What the issue promises.
const SECOND: Duration = Duration::from_secs(1);
/// How long a SYN that the kernel drops is waited for.
const SILENCE: Duration = Duration::from_millis(700);

fn build() -> Result<Mxs> {
    let (net, store) = Mxs::net_and_store("")?;
    Mxs::start(&net, store, 3, &config("redis://192.0.2.70", ""))
}

#[test]
fn what_one_host_learns_the_kernels_of_the_others_know_within_a_second() {
    cell::test("what_one_host_learns_the_kernels_of_the_others_know_within_a_second", || {
        let lab = build()?;
        for (source, network) in [("198.51.100.7", "198.51.100.7"), ("2001:db8:a:7::25", "2001:db8:a:7::")] {
            lab.pass(source, 0)?;
            lab.wait_for_kernels(source, true, SECOND)?;
            let explained = lab.screeners[1].explain(source.parse()?)?;
            let pass = &explained["pass"];
            ensure!(explained["client"] == network && explained["verdict"] == "pass", "{explained}");
            ensure!(pass["origin"] == "shared" && pass["comment"] == "mx1", "{explained}");
            let answer = explained["answer"].as_str().unwrap_or_default();
            ensure!(answer.starts_with("On the list. It has passed on another MX host (mx1), since"), "{answer}");
            let own = lab.screeners[0].explain(source.parse()?)?;
            ensure!(own["pass"]["origin"] == "screened" && own["pass"]["expires"] == pass["expires"], "{own}");
        }
        // A revocation on any host is one on all.
        lab.screeners[2].tell(&["pass", "del", "198.51.100.7"])?;
        lab.wait_for_kernels("198.51.100.7", false, SECOND)?;
        ensure!(!lab.screeners[0].has_pass("198.51.100.7".parse()?)?, "the host that gave it has it still");
        // And it may pass again, wherever it comes.
        lab.pass("198.51.100.7", 1)?;
        lab.wait_for_kernels("198.51.100.7", true, SECOND)?;

        // What came from the store is not told to it again.
        let news: u64 = lab.store.ask(&["XLEN", "screener:news"])?.parse()?;
        ensure!(news == 4, "three passes and a revocation are four words, not {news}");
        let status = shared(&lab.screeners[2])?;
        ensure!(status["told"] == 1 && status["heard"] == 3 && status["name"] == "mx3", "{status}");
        ensure!(status["store"] == "redis://192.0.2.70:6379" && status["queued"] == 0, "{status}");
        let expiry: u64 =
            lab.store.ask(&["TTL", "screener:c:198.51.100.7"])?.parse().context("the key has no expiry")?;
        ensure!(expiry > 86_400, "{expiry}");
        let metrics = lab.hosts[0].ask("curl", &["-s", "http://127.0.0.1:9725/metrics"])?;
        ensure!(metrics.contains("screener_shared_store_up 1") && !metrics.contains("198.51.100.7"), "{metrics}");
        Ok(())
    });
}

#[test]
fn a_host_that_was_cut_off_merges_and_nothing_deleted_comes_back() {
    cell::test("a_host_that_was_cut_off_merges_and_nothing_deleted_comes_back", || {
        let mut lab = build()?;
        let (revoked_there, revoked_here, passed_there, passed_here) =
            ("198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4");
        lab.pass(revoked_there, 0)?;
        lab.pass(revoked_here, 1)?;
        lab.wait_for_kernels(revoked_there, true, SOON)?;
        lab.wait_for_kernels(revoked_here, true, SOON)?;

        lab.cut_off(0)?;
        lab.screeners[0]
            .wait_for_degraded("nothing is shared by redis://192.0.2.70:6379: it does not answer in time", true)?;
        // Both sides go on, each for itself; on one of them the daemon is even killed and started again.
        lab.screeners[1].tell(&["pass", "del", revoked_there])?;
        lab.screeners[0].tell(&["pass", "del", revoked_here])?;
        lab.pass(passed_there, 1)?;
        lab.pass(passed_here, 0)?;
        lab.wait_for_kernel(0, passed_here, true, SOON)?;
        lab.wait_for_kernel(2, passed_there, true, SOON)?;
        lab.wait_for_kernel(2, revoked_there, false, SOON)?;
        let waiting = || Ok((shared(&lab.screeners[0])?["queued"] == 2).then_some(()));
        until_or_show("two changes to wait", SOON, || lab.screeners[0].log(), waiting)?;
        ensure!(
            lab.screeners[0].has_pass(revoked_there.parse()?)? && lab.screeners[2].has_pass(revoked_here.parse()?)?
        );
        lab.screeners[0].stop()?;
        lab.screeners[0].restart()?;

        lab.heal(0)?;
        for (client, there) in
            [(revoked_there, false), (revoked_here, false), (passed_there, true), (passed_here, true)]
        {
            lab.wait_for_kernels(client, there, SOON)?;
        }
        lab.screeners[0].wait_for_degraded("nothing is shared", false)?;
        // It is the last word, not a moment's.
        for screener in &mut lab.screeners {
            screener.kill9()?;
            screener.restart()?;
            wait_for_state(screener, "sharing")?;
        }
        for screener in &lab.screeners {
            ensure!(!screener.has_pass(revoked_there.parse()?)? && !screener.has_pass(revoked_here.parse()?)?);
            ensure!(screener.has_pass(passed_there.parse()?)? && screener.has_pass(passed_here.parse()?)?);
        }
        Ok(())
    });
}

#[test]
fn passes_by_hand_stay_on_their_host_unless_they_are_to_be_shared() {
    cell::test("passes_by_hand_stay_on_their_host_unless_they_are_to_be_shared", || {
        let mut lab = build()?;
        lab.screeners[0].tell(&["pass", "add", "198.51.100.5", "--comment", "our branch"])?;
        lab.pass("198.51.100.6", 0)?;
        lab.wait_for_kernels("198.51.100.6", true, SOON)?;
        ensure!(!lab.screeners[1].has_pass("198.51.100.5".parse()?)?, "a pass by hand was told");
        // What another host revokes does not touch it.
        lab.screeners[1].tell(&["pass", "add", "198.51.100.6"])?;
        lab.screeners[0].tell(&["pass", "del", "198.51.100.6"])?;
        lab.wait_for_kernel(2, "198.51.100.6", false, SOON)?;
        ensure!(lab.screeners[1].has_pass("198.51.100.6".parse()?)?, "a pass by hand was revoked by another host");

        for (mx, screener) in lab.screeners.iter_mut().enumerate() {
            let more = "[shared]\nmanual = true\n";
            let report = screener.reload(&config("redis://192.0.2.70", more))?;
            ensure!(report["needs_restart"] == serde_json::json!(["shared.manual"]), "{report}");
            screener.stop()?;
            screener.restart()?;
            wait_for_state(screener, "sharing")?;
            ensure!(lab.hosts[mx].read("/etc/screener/screener.toml")?.contains("manual"));
        }
        lab.wait_for_kernels("198.51.100.5", true, SOON)?;
        let pass = lab.screeners[2].explain("198.51.100.5".parse()?)?["pass"].clone();
        ensure!(pass["origin"] == "manual" && pass["comment"] == "our branch", "{pass}");
        lab.screeners[2].tell(&["pass", "del", "198.51.100.5"])?;
        lab.wait_for_kernels("198.51.100.5", false, SECOND)
    });
}

/// Speaks before the greeting.
fn fail(lab: &Mxs, source: &str, mx: usize) -> Result<()> {
    let server = SocketAddr::new(lab.hosts[mx].address(Family::V4)?, 25);
    let mut client = Client::connect_saying(&lab.internet, source.parse()?, server, b"EHLO early.example.net\r\n")?;
    // Whatever it hears: it is not to be seen again.
    let _ = client.read_all();
    Ok(())
}

/// Waits until a client is on the ladder of every host, or off it, and meets silence or a greeting there.
fn wait_for_offender(lab: &Mxs, source: &str, there: bool) -> Result<()> {
    for (mx, screener) in lab.screeners.iter().enumerate() {
        let server = SocketAddr::new(lab.hosts[mx].address(Family::V4)?, 25);
        let look = || {
            let all = screener.json(&["deny", "list", "--offenders", "--json"])?;
            let mut all = all.as_array().into_iter().flatten();
            let dropped = all.any(|offender| offender["network"] == source && offender["rung"] == "dropped");
            if dropped != there {
                return Ok(None);
            }
            let met = Client::connect_within(&lab.internet, source.parse()?, server, SILENCE);
            Ok((met.is_err() == there).then_some(()))
        };
        until_or_show(&format!("{source} to be an offender: {there}"), SOON, || screener.log(), look)?;
    }
    Ok(())
}

/// Hosts that keep a client out that has failed once.
fn build_with_ladder(count: usize) -> Result<Mxs> {
    let (net, store) = Mxs::net_and_store("")?;
    let ladder = "[ladder]\ntarpit_at = 1\ndrop_at = 2\nhalf_life = \"1d\"\nprefix_clients = 0\n";
    let config = config("redis://192.0.2.70", ladder).replace("wait = \"1s\"", "wait = \"1s\"\naction = \"drop\"");
    Mxs::start(&net, store, count, &config)
}

#[test]
fn an_offender_is_kept_out_by_every_host_and_forgiven_by_every_host() {
    cell::test("an_offender_is_kept_out_by_every_host_and_forgiven_by_every_host", || {
        let lab = build_with_ladder(3)?;
        for source in ["198.51.100.9", "198.51.100.10"] {
            fail(&lab, source, 0)?;
            wait_for_offender(&lab, source, true)?;
        }
        lab.screeners[1].tell(&["deny", "del", "198.51.100.9"])?;
        wait_for_offender(&lab, "198.51.100.9", false)?;

        // Forgiven while one host does not hear of it.
        lab.cut_off(0)?;
        lab.screeners[2].tell(&["deny", "del", "198.51.100.10"])?;
        fail(&lab, "198.51.100.11", 0)?;
        lab.heal(0)?;
        wait_for_offender(&lab, "198.51.100.11", true)?;
        wait_for_offender(&lab, "198.51.100.10", false)?;
        lab.store.ask(&["FLUSHALL"])?;
        let back = || Ok((lab.store.ask(&["EXISTS", "screener:o:198.51.100.11/32"])? == "1").then_some(()));
        until_or_show("the store to know the offender again", SOON, || lab.screeners[0].log(), back)?;
        wait_for_offender(&lab, "198.51.100.10", false)?;
        wait_for_offender(&lab, "198.51.100.9", false)
    });
}

#[test]
fn a_pardon_given_while_the_store_is_away_outlives_the_daemon_that_gave_it() {
    cell::test("a_pardon_given_while_the_store_is_away_outlives_the_daemon_that_gave_it", || {
        let mut lab = build_with_ladder(2)?;
        let (stopped, killed, handed_over) = ("198.51.100.20", "198.51.100.21", "198.51.100.22");
        let stays = "198.51.100.23";
        for source in [stopped, killed, handed_over, stays] {
            fail(&lab, source, 0)?;
            wait_for_offender(&lab, source, true)?;
        }
        // The store keeps all of them, and so does the host that does not hear of the pardons.
        lab.store.sleep()?;
        for screener in &lab.screeners {
            wait_for_state(screener, "away")?;
        }
        lab.screeners[0].tell(&["deny", "del", stopped])?;
        lab.screeners[0].stop()?;
        lab.screeners[0].restart()?;
        lab.screeners[0].tell(&["deny", "del", handed_over])?;
        lab.screeners[0].take_over()?;
        lab.screeners[0].wait_for_predecessors()?;
        lab.screeners[0].tell(&["deny", "del", killed])?;
        let written = || Ok((lab.screeners[0].json(&["status", "--json"])?["ledger"]["queued"] == 0).then_some(()));
        until_or_show("the pardon to be in the file", SOON, || lab.screeners[0].log(), written)?;
        lab.screeners[0].kill9()?;
        lab.screeners[0].restart()?;
        wait_for_state(&lab.screeners[0], "away")?;

        lab.store.wake()?;
        for screener in &lab.screeners {
            wait_for_state(screener, "sharing")?;
        }
        let pardoned = [stopped, handed_over, killed];
        for source in pardoned {
            wait_for_offender(&lab, source, false)?;
            let word = lab.store.ask(&["GET", &format!("screener:o:{source}/32")])?;
            ensure!(word.contains("\"offender\":null") && !word.contains("\"forgiven\":0"), "{source}: {word}");
        }
        // It is the last word: not even of a store that has forgotten everything, told by hosts that were started again.
        for screener in &mut lab.screeners {
            screener.stop()?;
        }
        lab.store.ask(&["FLUSHALL"])?;
        for screener in &mut lab.screeners {
            screener.restart()?;
            wait_for_state(screener, "sharing")?;
        }
        wait_for_offender(&lab, stays, true)?;
        for source in pardoned {
            wait_for_offender(&lab, source, false)?;
            let word = lab.store.ask(&["GET", &format!("screener:o:{source}/32")])?;
            ensure!(word.contains("\"offender\":null"), "{source}: {word}");
        }
        // And what it does now counts again.
        fail(&lab, killed, 1)?;
        wait_for_offender(&lab, killed, true)
    });
}

#[test]
fn hosts_that_mean_something_else_by_a_client_do_not_share() {
    cell::test("hosts_that_mean_something_else_by_a_client_do_not_share", || {
        let mut lab = build()?;
        let screener = &mut lab.screeners[2];
        screener.stop()?;
        let other = config("redis://192.0.2.70", "").replace("[ledger]", "[ledger]\nipv6_prefix = 56");
        screener.configure(&other)?;
        screener.restart()?;
        screener.wait_for_degraded("the hosts at this store have ledger.ipv6_prefix = 64, this one has 56", true)?;
        ensure!(shared(screener)?["state"] == "away");
        // With keys of its own it is alone there.
        screener.stop()?;
        screener.configure(&(other + "[shared]\nprefix = \"other\"\n"))?;
        screener.restart()?;
        wait_for_state(screener, "sharing")?;
        lab.pass("198.51.100.8", 0)?;
        lab.wait_for_kernel(1, "198.51.100.8", true, SOON)?;
        ensure!(!lab.screeners[2].has_pass("198.51.100.8".parse()?)?);
        // What is not Screener's is left alone.
        lab.store.ask(&["SET", "other:meta", "something else"])?;
        lab.screeners[2].wait_for_degraded("what stands there under other:meta is not Screener's", true)
    });
}
