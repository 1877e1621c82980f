//! The life of the kernel half as an operator meets it: attached without a daemon, taken over, held by one daemon, shared with
//! nobody, and on interfaces that come and go.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use screener_tests::cell;
use screener_tests::cli::{expect_all, run};
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::mta::Mta;
use screener_tests::net::{Family, MX, Net, ip};
use screener_tests::screener::{Screener, USUAL, command};
use screener_tests::wait::until_or_show;
use screener_tests::xdp;

const SOON: Duration = Duration::from_secs(25);
const GOOD: &str = "198.51.100.20";
const DENIED: &str = "198.51.100.77";
const DENY: &str = "198.51.100.64/26";

fn kernel_status(host: &Host) -> Result<Value> {
    let output = host.run(&mut command(host, &[], &["kernel", "status", "--json"])?)?;
    serde_json::from_slice(&output.stdout).context("kernel status prints no JSON")
}

/// Waits until the daemon's own status shows an interface in a mode.
fn mode(screener: &Screener, interface: &str, wanted: &str) -> Result<()> {
    let what = format!("{interface} to be in {wanted} mode");
    until_or_show(
        &what,
        SOON,
        || screener.log(),
        || {
            let status = screener.json(&["status", "--json"])?;
            let all = status["kernel"]["interfaces"].as_array().context("no interfaces")?.clone();
            Ok(all.iter().any(|one| one["name"] == interface && one["mode"] == wanted).then_some(()))
        },
    )
}

/// How many lines the greeting has that a client hears: the daemon's has two, the MTA's one.
fn greeting(mx: &Host, internet: &Host, client: &str) -> Result<usize> {
    let server = SocketAddr::new(mx.address(Family::V4)?, 25);
    Ok(Client::connect(internet, client.parse()?, server)?.expect(220)?.lines.len())
}

/// Whether a client does not come through, not even when its SYN is sent again.
fn is_silent(mx: &Host, internet: &Host, client: &str) -> Result<bool> {
    let server = SocketAddr::new(mx.address(Family::V4)?, 25);
    Ok(Client::connect_within(internet, client.parse()?, server, Duration::from_millis(1500)).is_err())
}

/// The metric that says whether the kernel half is degraded.
fn metric(host: &Host) -> Result<bool> {
    let text = host.ask("curl", &["-s", "--unix-socket", "/run/screener/control.sock", "http://localhost/metrics"])?;
    Ok(text.contains("screener_degraded{what=\"kernel\"} 1"))
}

#[test]
fn attached_without_a_daemon_denies_act_and_everybody_else_reaches_the_mta() {
    cell::test("attached_without_a_daemon_denies_act_and_everybody_else_reaches_the_mta", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let attach = &["kernel", "attach", "--interface", "eth0"];
        expect_all(&mx, attach, 0, &["screen on eth0 (veth): native", "steer: attached"])?;
        ensure!(greeting(&mx, &internet, GOOD)? == 1, "the MTA itself greets");
        expect_all(&mx, &["kernel", "detach"], 0, &["detached: screen eth0, steer"])?;
        // What a daemon has put into the maps goes on without it, and through an attach.
        let mut screener = Screener::start(&mx, USUAL)?;
        screener.tell(&["deny", "add", DENY])?;
        ensure!(greeting(&mx, &internet, GOOD)? == 2, "screened");
        let before = kernel_status(&mx)?;
        ensure!(before["holder"]["name"] == "screener", "{before}");
        screener.kill9()?;
        expect_all(&mx, attach, 0, &["screen on eth0 (veth): native"])?;
        ensure!(greeting(&mx, &internet, GOOD)? == 1, "without a daemon the MTA greets");
        ensure!(is_silent(&mx, &internet, DENIED)?, "a deny is lost");
        let after = kernel_status(&mx)?;
        let id = |status: &Value| status["interfaces"][0]["program"]["id"].as_u64();
        ensure!(id(&before).is_some() && id(&after) > id(&before), "no newer program: {before} {after}");
        ensure!(after["holder"].is_null(), "{after}");
        ensure!(after["settings"]["reject_early"] == false, "{after}");
        let maps = after["maps"].as_array().context("no maps")?;
        let bytes = |name: &str| maps.iter().find(|map| map["name"] == name)?["bytes"].as_u64();
        ensure!(bytes("SETTINGS") > Some(0) && bytes("PASS4") > Some(1 << 20), "{after}");
        let shown =
            ["ABI version", "held by nobody", "program", "tag", "loaded", "eth0 is a veth", "ports 25", "SETTINGS"];
        expect_all(&mx, &["kernel", "status"], 0, &shown)?;
        expect_all(
            &mx,
            &["kernel", "attach", "--interface", "eth0", "--xdp", "off", "--port", "2525"],
            0,
            &["steer: attached"],
        )?;
        expect_all(&mx, &["kernel", "status"], 0, &["ports 2525"])?;
        expect_all(&mx, &["kernel", "attach", "--xdp", "fast"], 2, &["use auto, native, generic or off"])?;
        expect_all(&mx, &["kernel", "detach"], 0, &["detached: steer;"])?;
        expect_all(&mx, &["kernel", "status"], 1, &["nothing is attached"])
    });
}

#[test]
fn a_second_daemon_says_who_is_there_and_leaves_it_untouched() {
    cell::test("a_second_daemon_says_who_is_there_and_leaves_it_untouched", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let screener = Screener::start(&mx, USUAL)?;
        let before = kernel_status(&mx)?;
        let held = format!("another screener (process {}) holds /sys/fs/bpf/screener", before["holder"]["process"]);
        // Its own socket and ledger, as somebody who tries something out would have it; in whatever mode.
        for mode in ["auto", "steer", "front"] {
            let other = USUAL.replace("[control]", "[control]\nsocket = \"/run/screener/other.sock\"")
                + &format!("[listen]\nmode = \"{mode}\"\n[ledger]\npath = \"/var/lib/screener/other.redb\"\n");
            mx.write("/etc/screener/other.toml", &other)?;
            expect_all(&mx, &["run", "--config", "/etc/screener/other.toml"], 2, &[&held])?;
        }
        // With everything as the first one has it, it does not even come so far.
        expect_all(&mx, &["run", "--config", "/etc/screener/screener.toml"], 2, &["/run/screener/control.sock"])?;
        expect_all(&mx, &["kernel", "attach"], 2, &[&held])?;
        let after = kernel_status(&mx)?;
        for part in ["interfaces", "steer", "settings"] {
            let (mut before, mut after) = (before[part].clone(), after[part].clone());
            for status in [&mut before, &mut after] {
                for age in ["/program/age_seconds", "/0/program/age_seconds"] {
                    if let Some(age) = status.pointer_mut(age) {
                        *age = Value::Null;
                    }
                }
            }
            ensure!(before == after, "{before} {after}");
        }
        ensure!(greeting(&mx, &internet, GOOD)? == 2, "the first one screens");
        screener.wait_for_degraded("", false)
    });
}

#[test]
fn the_next_daemon_lets_no_denied_client_through_while_it_takes_over() {
    cell::test("the_next_daemon_lets_no_denied_client_through_while_it_takes_over", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let denying = USUAL.to_owned() + &format!("[[deny]]\nprefix = \"{DENY}\"\n");
        let mut screener = Screener::start(&mx, &denying)?;
        let server = SocketAddr::new(mx.address(Family::V4)?, 25);
        let over = AtomicBool::new(false);
        let tried = AtomicU64::new(0);
        thread::scope(|scope| -> Result<()> {
            let clients: Vec<_> = (64..128u8)
                .step_by(8)
                .map(|host| {
                    let (over, tried, internet) = (&over, &tried, &internet);
                    scope.spawn(move || -> Result<()> {
                        let denied = IpAddr::from([198, 51, 100, host]);
                        while !over.load(Ordering::Relaxed) {
                            // The SYN goes out at once; an answer would come at once too.
                            let met = Client::connect_within(internet, denied, server, Duration::from_millis(20));
                            ensure!(met.is_err(), "{denied} got through");
                            tried.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    })
                })
                .collect();
            let outcome = (0..3).try_for_each(|round| {
                screener.kill9()?;
                // The first one has the maps of its predecessor; for the others those are of a version unknown.
                if round > 0 {
                    let maps = mx.ask("sh", &["-c", "cd /sys/fs/bpf/screener && mv abi-* abi-0 && ls"])?;
                    ensure!(maps.contains("abi-0"), "{maps}");
                }
                screener.restart()?;
                mode(&screener, "eth0", "native")?;
                let maps = mx.ask("ls", &["/sys/fs/bpf/screener"])?;
                ensure!(!maps.contains("abi-0"), "the maps of another version are left: {maps}");
                Ok(())
            });
            over.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().map_err(|_| anyhow::anyhow!("a client broke"))??;
            }
            outcome
        })?;
        ensure!(tried.load(Ordering::Relaxed) > 50, "hardly anybody tried");
        ensure!(greeting(&mx, &internet, GOOD)? == 2, "screened");
        Ok(())
    });
}

#[test]
fn an_interface_that_is_made_anew_is_screened_again() {
    cell::test("an_interface_that_is_made_anew_is_screened_again", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        screener.tell(&["deny", "add", DENY])?;
        mode(&screener, "eth0", "native")?;
        ensure!(!metric(&mx)?, "degraded from the start");
        ip("link del to-mx\n")?;
        screener.wait_for_degraded("eth0: nothing is dropped early: there is no interface eth0", true)?;
        ensure!(metric(&mx)?, "not in the metrics");
        screener.wait_for_log("warning: eth0: nothing is dropped early: there is no interface eth0", SOON)?;
        Net::reconnect(&MX, &mx)?;
        screener.wait_for_log("eth0: XDP is attached in native mode", SOON)?;
        screener.wait_for_degraded("eth0", false)?;
        mode(&screener, "eth0", "native")?;
        ensure!(!metric(&mx)?, "still in the metrics");
        ensure!(is_silent(&mx, &internet, DENIED)?, "the deny is lost");
        ensure!(screener.dropped(Family::V4)? > 0, "steer refused what screen should have dropped");
        ensure!(greeting(&mx, &internet, GOOD)? == 2, "screened");
        Ok(())
    });
}

#[test]
fn an_interface_that_goes_down_or_has_another_name_stays_screened() {
    cell::test("an_interface_that_goes_down_or_has_another_name_stays_screened", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, USUAL)?;
        mode(&screener, "eth0", "native")?;
        let before = kernel_status(&mx)?["interfaces"][0]["program"]["id"].clone();
        mx.in_ns(|| ip("link set eth0 down\nlink set eth0 up\n"))?;
        screener.wait_for_degraded("eth0", false)?;
        mx.in_ns(|| ip("link set eth0 down\nlink set eth0 name wan0\nlink set wan0 up\n"))?;
        screener.wait_for_degraded("eth0 is called wan0 now, where it is still screened", true)?;
        screener.wait_for_log("eth0 is called wan0 now", SOON)?;
        mode(&screener, "eth0", "native")?;
        mx.in_ns(|| ip("link set wan0 down\nlink set wan0 name eth0\nlink set eth0 up\n"))?;
        screener.wait_for_degraded("wan0", false)?;
        ensure!(kernel_status(&mx)?["interfaces"][0]["program"]["id"] == before, "it was never attached anew");
        // Under the name that the configuration learns, the next daemon finds the attachment of the old name.
        mx.in_ns(|| ip("link set eth0 down\nlink set eth0 name wan0\nlink set wan0 up\n"))?;
        screener.wait_for_degraded("wan0", true)?;
        screener.stop()?;
        mx.write("/etc/screener/screener.toml", &USUAL.replace("eth0", "wan0"))?;
        screener.restart()?;
        mode(&screener, "wan0", "native")?;
        screener.wait_for_degraded("wan0", false)?;
        let interfaces = kernel_status(&mx)?["interfaces"].clone();
        ensure!(interfaces.as_array().map(Vec::len) == Some(1), "the old pin is left: {interfaces}");
        Ok(())
    });
}

#[test]
fn an_interface_that_comes_after_the_start_is_attached_then() {
    cell::test("an_interface_that_comes_after_the_start_is_attached_then", || {
        let mx = Net::mx()?;
        for listen in ["", "[listen]\nmode = \"front\"\n"] {
            let both =
                USUAL.replace("\"eth0\"", if listen.is_empty() { "\"eth0\", \"eth1\"" } else { "\"eth1\"" }) + listen;
            let mut screener = Screener::start(&mx, &both)?;
            screener.wait_for_degraded("there is no interface eth1", true)?;
            mx.in_ns(|| ip("link add eth1 type veth peer name eth1peer\nlink set eth1 up\n"))?;
            screener.wait_for_log("eth1: XDP is attached in native mode", SOON)?;
            mode(&screener, "eth1", "native")?;
            screener.wait_for_degraded("eth1", false)?;
            screener.stop()?;
            mx.in_ns(|| ip("link del eth1\n"))?;
        }
        Ok(())
    });
}

#[test]
fn what_is_detached_under_a_daemon_stays_out_and_the_daemon_says_so() {
    cell::test("what_is_detached_under_a_daemon_stays_out_and_the_daemon_says_so", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        mode(&screener, "eth0", "native")?;
        expect_all(&mx, &["kernel", "detach"], 0, &["a daemon is running", "detached: screen eth0, steer"])?;
        // News of an interface, so that it looks.
        mx.in_ns(|| ip("link add eth1 type veth peer name eth1peer\n"))?;
        screener.wait_for_degraded(
            "eth0: nothing is dropped early: taken out of the kernel by `screener kernel detach`",
            true,
        )?;
        screener.wait_for_degraded("clients are not steered: taken out", true)?;
        ensure!(greeting(&mx, &internet, GOOD)? == 1, "everybody reaches the MTA");
        expect_all(&mx, &["kernel", "status"], 1, &["nothing is attached"])?;
        screener.stop()?;
        screener.restart()?;
        mode(&screener, "eth0", "native")?;
        screener.wait_for_degraded("taken out", false)?;
        ensure!(greeting(&mx, &internet, GOOD)? == 2, "screened again");
        Ok(())
    });
}

#[test]
fn the_program_of_somebody_else_stays_and_its_owner_is_named() {
    cell::test("the_program_of_somebody_else_stays_and_its_owner_is_named", || {
        let mx = Net::mx()?;
        let native = &["kernel", "attach", "--interface", "eth0", "--xdp", "native"];
        let still_there = |name: &str| -> Result<()> {
            let shown = mx.ask("ip", &["-details", "link", "show", "eth0"])?;
            ensure!(shown.contains("prog/xdp"), "{name} was taken off: {shown}");
            Ok(())
        };
        // By netlink; in the mode that we want, and in the other one.
        let program = xdp::program("somebody")?;
        xdp::pin(&program, "/sys/fs/bpf/somebody")?;
        for (way, advice) in
            [("xdpdrv", "`ip link set dev eth0 xdp off`"), ("xdpgeneric", "`ip link set dev eth0 xdpgeneric off`")]
        {
            mx.in_ns(|| ip(&format!("link set dev eth0 {way} pinned /sys/fs/bpf/somebody\n")))?;
            for policy in ["auto", "native", "generic"] {
                let attach = ["kernel", "attach", "--interface", "eth0", "--xdp", policy];
                let (code, said) = run(&mx, &attach)?;
                ensure!(code == 0, "steer is attached all the same: {said}");
                for part in
                    ["eth0 already has an XDP program of somebody else", "\"somebody\", attached by netlink", advice]
                {
                    ensure!(said.contains(part), "{part:?} is not in: {said}");
                }
            }
            still_there(way)?;
            expect_all(&mx, &["doctor"], 1, &["somebody", advice])?;
            mx.in_ns(|| ip(&format!("link set dev eth0 {way} off\n")))?;
        }
        // By a link that this very process holds.
        let held = mx.in_ns(|| xdp::link(&program, "eth0"))?;
        let this = format!("({})", std::process::id());
        expect_all(&mx, native, 0, &["attached by link", "held by", &this, "it goes when"])?;
        still_there("the link")?;
        drop(held);
        // libxdp's, by its name.
        let dispatcher = xdp::program("xdp_dispatcher")?;
        let held = mx.in_ns(|| xdp::link(&dispatcher, "eth0"))?;
        expect_all(&mx, native, 0, &["libxdp's dispatcher", "`xdp-loader unload eth0 --all`"])?;
        // The daemon attaches by itself when the place is free.
        let mut screener = Screener::start(&mx, USUAL)?;
        screener.wait_for_degraded("libxdp's dispatcher", true)?;
        drop(held);
        screener.wait_for_log("eth0: XDP is attached in native mode", SOON)?;
        screener.wait_for_degraded("eth0", false)?;
        // Another screener of ours is told by its pins.
        let other = ["kernel", "attach", "--interface", "eth0", "--pin", "/sys/fs/bpf/other"];
        expect_all(
            &mx,
            &other,
            0,
            &["it belongs to another screener: `screener kernel detach --pin /sys/fs/bpf/screener`"],
        )?;
        expect_all(&mx, &["doctor"], 1, &["sk_lookup: a program of somebody else", "\"steer\""])
    });
}
