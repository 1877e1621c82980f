//! A new daemon takes the place of the one that runs while clients come all the time: none is refused, none is cut off.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use screener_tests::cell;
use screener_tests::cli::{expect_all, finish};
use screener_tests::client::Client;
use screener_tests::crowd;
use screener_tests::host::Host;
use screener_tests::mta::{BOB, DIRECT, Mta};
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL, command};
use screener_tests::wait::{until, until_or_show};

const SOON: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(240);

fn front() -> String {
    USUAL.replace("[kernel]", "[kernel]\nxdp = \"off\"").replace("\"1s\"", "\"500ms\"")
        + "[limits]\nconnections = 20000\n[listen]\nmode = \"front\"\naddresses = [\"0.0.0.0:2525\", \"[::]:2525\"]\n"
}

fn steer() -> String {
    USUAL.replace("\"1s\"", "\"500ms\"")
}

/// A mail up to its first line of text.
fn half_a_mail(internet: &Host, source: &str, server: SocketAddr) -> Result<Client> {
    let mut sending = Client::connect(internet, source.parse()?, server)?;
    sending.expect(220)?;
    sending.begin_text()?;
    Ok(sending)
}

fn rest_of_the_mail(mut sending: Client) -> Result<()> {
    sending.send_line("last\r\n.")?;
    sending.expect(250)?;
    sending.ask("QUIT", 221)?;
    Ok(())
}

/// Replaces the daemon five times under a stream of clients.
fn five_times(config: &str, port: u16) -> Result<()> {
    let (mx, internet) = Net::mx_and_internet()?;
    let mta = Mta::start(&mx, "smtpd_client_connection_rate_limit = 0\n")?;
    let mut screener = Screener::start(&mx, config)?;
    let server = SocketAddr::new(mx.address(Family::V4)?, port);
    let sending = half_a_mail(&internet, "198.51.100.20", server)?;
    let ((), clients) = crowd::during(&internet, server, || {
        (0..5_u8).try_for_each(|round| -> Result<()> {
            // Granted at the last moment before, in the old one's memory.
            let source = format!("198.51.100.{}", 30 + round);
            let mut client = Client::connect(&internet, source.parse()?, server)?;
            client.expect(220)?;
            client.begin_mail(250)?;
            screener.take_over()?;
            ensure!(screener.has_pass(source.parse()?)?, "{source} is not known after takeover {round}");
            client.ask("QUIT", 221)?;
            Ok(())
        })
    })?;
    println!("{clients} clients over five takeovers");
    ensure!(clients > 100, "only {clients} clients came");
    // Through the first of six daemons.
    rest_of_the_mail(sending)?;
    ensure!(mta.wait_for_mail(1, SOON)?[0].body == "first\nlast\n");
    screener.wait_for_predecessors()?;
    if port == 25 {
        let held = screener.json(&["kernel", "status", "--json"])?;
        let pid = screener.json(&["status", "--json"])?["pid"].clone();
        ensure!(held["holder"]["process"] == pid, "{held}");
    }
    let status = screener.json(&["status", "--json"])?;
    ensure!(status["degraded"].as_array().is_some_and(Vec::is_empty), "{status}");
    Ok(())
}

#[test]
fn in_front_mode_no_client_is_refused_while_the_daemon_is_replaced() {
    cell::test_within("in_front_mode_no_client_is_refused_while_the_daemon_is_replaced", LIMIT, || {
        five_times(&front(), 2525)
    });
}

#[test]
fn in_steer_mode_no_client_is_refused_while_the_daemon_is_replaced() {
    cell::test_within("in_steer_mode_no_client_is_refused_while_the_daemon_is_replaced", LIMIT, || {
        five_times(&steer(), 25)
    });
}

#[test]
fn a_client_under_test_finishes_with_the_old_daemon_and_its_pass_reaches_the_new_one() {
    cell::test("a_client_under_test_finishes_with_the_old_daemon_and_its_pass_reaches_the_new_one", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let server = SocketAddr::new(mx.address(Family::V4)?, 25);
        let source: IpAddr = "198.51.100.21".parse()?;
        let mut client = Client::connect(&internet, source, server)?;
        client.expect(220)?;
        client.ask("EHLO sender.example.net", 250)?;
        screener.take_over()?;
        let shown = |screener: &Screener| screener.json(&["status", "--json"]);
        until_or_show(
            "status to show the session",
            SOON,
            || screener.log(),
            || Ok((shown(&screener)?["predecessor"]["sessions"] == 1).then_some(())),
        )?;
        expect_all(&mx, &["status"], 0, &["the daemon before this one (process ", "has 1 sessions left"])?;
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        client.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
        until_or_show(
            "the pass to be known",
            SOON,
            || screener.log(),
            || Ok(screener.has_pass(source)?.then_some(())),
        )?;
        client.ask("QUIT", 221)?;
        screener.wait_for_predecessors()?;
        until_or_show(
            "the predecessor to be gone",
            SOON,
            || screener.log(),
            || Ok(shown(&screener)?["predecessor"].is_null().then_some(())),
        )?;
        // The kernel knows too: straight to the MTA.
        until_or_show(
            "the kernel to know",
            SOON,
            || screener.log(),
            || {
                let mut again = Client::connect(&internet, source, server)?;
                again.expect(220)?;
                again.ask("QUIT", 221)?;
                Ok(mta.has_seen(DIRECT, source).then_some(()))
            },
        )?;
        let explained = screener.explain(source)?;
        ensure!(explained["contacts"][0]["outcome"] == "handed_off", "{explained}");
        Ok(())
    });
}

#[test]
fn a_new_daemon_that_cannot_stand_leaves_the_old_one_in_its_place() {
    cell::test("a_new_daemon_that_cannot_stand_leaves_the_old_one_in_its_place", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &steer())?;
        let server = SocketAddr::new(mx.address(Family::V4)?, 25);
        let pid = screener.json(&["status", "--json"])?["pid"].clone();
        let taking = |config: &str| -> Result<(i32, String)> {
            mx.write("/etc/screener/new.toml", config)?;
            finish(&mx, &mut command(&mx, &[], &["run", "--take-over", "--config", "/etc/screener/new.toml"])?)
        };
        // What can be known before it asks costs the old one nothing.
        for (config, said) in [
            ("[limits]\ncommands = 0\n".to_owned(), "limits.commands"),
            (
                steer() + "[[deny]]\nprefix = \"192.0.2.0/24\"\naction = \"drop\"\n",
                "deny[0].prefix: denying 192.0.2.0/24",
            ),
        ] {
            let (code, heard) = taking(&config)?;
            ensure!(code == 2 && heard.contains(said), "{code}: {heard}");
        }
        ensure!(!screener.log().contains("takes over"));

        // What fails afterwards: the port of its front mode is the MTA's.
        let sending = half_a_mail(&internet, "198.51.100.22", server)?;
        let (code, heard) = taking(&(steer() + "[listen]\nmode = \"front\"\n"))?;
        ensure!(code == 2 && heard.contains("cannot be listened on in front mode"), "{code}: {heard}");
        screener.wait_for_log("did not take over, this one goes on: it ended before it stood", SOON)?;
        let status = screener.json(&["status", "--json"])?;
        ensure!(status["pid"] == pid && status["kernel"]["steer"] == true, "{status}");
        ensure!(status["degraded"].as_array().is_some_and(Vec::is_empty), "{status}");
        rest_of_the_mail(sending)?;
        // It screens, remembers, writes and can be replaced as before.
        let source = "198.51.100.23";
        let mut client = Client::connect(&internet, source.parse()?, server)?;
        ensure!(client.expect(220)?.lines.len() == 2, "{}", client.transcript());
        client.begin_mail(250)?;
        client.ask("QUIT", 221)?;
        screener.take_over()?;
        ensure!(screener.has_pass(source.parse()?)? && screener.has_pass("198.51.100.22".parse()?)?);
        screener.wait_for_predecessors()?;
        screener.kill9()?;
        screener.restart()?;
        ensure!(screener.has_pass(source.parse()?)?);
        Ok(())
    });
}

#[test]
fn upgrade_starts_what_was_installed_since_and_a_bad_start_changes_nothing() {
    cell::test("upgrade_starts_what_was_installed_since_and_a_bad_start_changes_nothing", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let pid = |screener: &Screener| -> Result<u64> {
            screener.json(&["status", "--json"])?["pid"].as_u64().context("a pid")
        };
        let first = pid(&screener)?;
        screener.configure("[limits]\ncommands = 0\n")?;
        expect_all(&mx, &["upgrade"], 2, &["ended and did not take over, this one goes on"])?;
        ensure!(pid(&screener)? == first);
        screener.configure(USUAL)?;
        let sending = half_a_mail(&internet, "198.51.100.24", SocketAddr::new(mx.address(Family::V4)?, 25))?;
        expect_all(&mx, &["upgrade"], 0, &["has taken over after", "the old one ends with its last session"])?;
        ensure!(pid(&screener)? != first);
        rest_of_the_mail(sending)?;
        ensure!(screener.has_pass("198.51.100.24".parse()?)?);
        screener.wait_for_log("the last session has ended", SOON)?;
        Ok(())
    });
}

#[test]
fn whoever_takes_over_and_says_nothing_changes_nothing() {
    cell::test("whoever_takes_over_and_says_nothing_changes_nothing", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let ask = || {
            mx.ask(
                "curl",
                &["-s", "-X", "POST", "--unix-socket", "/run/screener/control.sock", "http://screener/v1/takeover"],
            )
        };
        ensure!(ask()?.contains("nobody is met at /run/screener/control.sock.heir"));
        let meeting = UnixListener::bind(mx.path("/run/screener/control.sock.heir"))?;
        ensure!(ask()?.contains("\"pid\""));
        let (mut met, _) = meeting.accept()?;
        let mut offer = [0; 64];
        ensure!(met.read(&mut offer)? > 0);
        drop(met);
        screener.wait_for_log("did not take over: ", SOON)?;
        screener.tell(&["reload"])?;
        Ok(())
    });
}

/// Takes everything that the daemon gives, and never says that it stands.
const NEVER_STANDS: &str = r#"
import json, os, socket, time
meeting = socket.socket(socket.AF_UNIX)
meeting.bind("/run/screener/control.sock.heir")
meeting.listen(1)
asking = socket.socket(socket.AF_UNIX)
asking.connect("/run/screener/control.sock")
asking.sendall(b"POST /v1/takeover HTTP/1.1\r\nHost: screener\r\nContent-Length: 0\r\n\r\n")
met, _ = meeting.accept()
lines = met.makefile("rb")
json.loads(lines.readline())
met.sendall(b'"go"\n')
message, given, _, _ = socket.recv_fds(met, 65536, 253)
print("given", len(given), "descriptors", flush=True)
met.sendall(b'"go"\n')
time.sleep(1000)
"#;

#[test]
fn a_new_daemon_that_does_not_stand_is_ended_before_the_old_one_goes_on() {
    cell::test("a_new_daemon_that_does_not_stand_is_ended_before_the_old_one_goes_on", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let mut heir = mx.spawn(mx.command("/usr/bin/python3").args(["-c", NEVER_STANDS]))?;
        heir.wait_for_line("descriptors", SOON)?;
        ensure!(!heir.wait(SOON)?.success(), "{}", heir.log());
        screener.wait_for_log("did not take over, this one goes on: it said Go", SOON)?;
        let mut client =
            Client::connect(&internet, "198.51.100.25".parse()?, SocketAddr::new(mx.address(Family::V4)?, 25))?;
        client.expect(220)?;
        client.begin_mail(250)?;
        let status = screener.json(&["status", "--json"])?;
        ensure!(status["pid"] == screener.id(), "{status}");
        ensure!(status["degraded"].as_array().is_some_and(Vec::is_empty), "{status}");
        Ok(())
    });
}

#[test]
fn take_over_starts_as_usual_where_no_daemon_runs_and_run_alone_says_what_to_do() {
    cell::test("take_over_starts_as_usual_where_no_daemon_runs_and_run_alone_says_what_to_do", || {
        let mx = Net::mx()?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let mut second = command(&mx, &[], &["run", "--config", "/etc/screener/screener.toml"])?;
        let (code, heard) = finish(&mx, &mut second)?;
        ensure!(code == 2 && heard.contains("take over from it with --take-over"), "{code}: {heard}");
        screener.stop()?;
        screener.take_over()?;
        screener.wait_for_log("no daemon runs from which this one could take over", SOON)?;
        // Told to stop, it lets go of everything.
        screener.signal(Signal::TERM)?;
        until("it to end", SOON, || {
            screener.cli(&["status"]).ok().filter(|output| !output.status.success()).map(drop)
        })?;
        screener.restart()
    });
}
