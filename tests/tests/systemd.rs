//! What the daemon says to a service manager and to the journal, and the sockets that it takes from one. The manager is the test:
//! systemd itself would be process 1. The journal is the real one.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use screener_tests::cell;
use screener_tests::cli::expect_all;
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::journald::{self, Journald, UNDER_THE_JOURNAL};
use screener_tests::mta::Mta;
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::wait::{until, until_or_show};

const SOON: Duration = Duration::from_secs(20);
const NOTIFY: &str = "/run/notify.sock";

/// Does what systemd does before it starts a service with sockets: binds them, puts them at descriptor 3 and behind, and says so.
const MANAGER: &str = r#"
import os, socket, sys
name, port = sys.argv[1], int(sys.argv[2])
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("0.0.0.0", port))
if port != 2599:
    sock.listen(64)
os.dup2(sock.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES=name, LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[3], sys.argv[3:])
"#;

/// Has the daemon as a child, and whoever becomes an orphan, as a service manager has; tells of each end.
const PARENT: &str = r#"
import ctypes, os, sys
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
if os.fork() == 0:
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    print("ended:", os.wait()[0], "!", flush=True)
"#;

fn front(addresses: &str) -> String {
    USUAL.replace("[kernel]", "[kernel]\nxdp = \"off\"")
        + &format!("[listen]\nmode = \"front\"\naddresses = [{addresses}]\n")
}

/// The messages until one that holds a word.
fn messages_until(manager: &UnixDatagram, word: &str) -> Result<String> {
    let (mut heard, begun) = (String::new(), Instant::now());
    while !heard.contains(word) {
        ensure!(begun.elapsed() < SOON, "waited for {word}, heard: {heard}");
        let mut bytes = [0; 4096];
        let count = manager.recv(&mut bytes).with_context(|| format!("waiting for {word}, heard so far: {heard}"))?;
        heard += &String::from_utf8_lossy(&bytes[..count]);
    }
    Ok(heard)
}

/// What the manager is told, read as it comes: whoever tells it something waits for that.
struct Heard(Arc<Mutex<(String, Instant)>>);

impl Heard {
    fn begin(manager: UnixDatagram) -> Self {
        let heard = Self(Arc::new(Mutex::new((String::new(), Instant::now()))));
        let kept = Arc::clone(&heard.0);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let Ok(count) = manager.recv(&mut bytes) else { continue };
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.0 += &String::from_utf8_lossy(&bytes[..count]);
                kept.0.push('\n');
                kept.1 = Instant::now();
            }
        });
        heard
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn is_quiet_for(&self, time: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.elapsed() > time
    }
}

fn manager(mx: &Host) -> Result<UnixDatagram> {
    let manager = UnixDatagram::bind(mx.path(NOTIFY))?;
    manager.set_read_timeout(Some(SOON))?;
    Ok(manager)
}

#[test]
fn the_service_manager_hears_of_start_reload_takeover_and_end() {
    cell::test("the_service_manager_hears_of_start_reload_takeover_and_end", || {
        let mx = Net::mx()?;
        let manager = manager(&mx)?;
        let wrapper = ["env", "NOTIFY_SOCKET=/run/notify.sock", "WATCHDOG_USEC=400000"];
        let mut screener = Screener::start_under(&mx, &front("\"0.0.0.0:2525\""), &wrapper)?;
        let heard = messages_until(&manager, "READY=1")?;
        ensure!(heard.contains("STATUS=front mode"), "{heard}");
        ensure!(heard.contains("FDSTORE=1") && heard.contains("FDNAME=screener-front"), "{heard}");
        messages_until(&manager, "WATCHDOG=1")?;
        screener.signal(Signal::HUP)?;
        messages_until(&manager, "RELOADING=1")?;
        messages_until(&manager, "READY=1")?;
        screener.take_over()?;
        let pid = screener.json(&["status", "--json"])?["pid"].clone();
        messages_until(&manager, &format!("MAINPID={pid}"))?;
        screener.wait_for_predecessors()?;
        // The new one's from here on.
        screener.signal(Signal::TERM)?;
        messages_until(&manager, "STOPPING=1")?;
        Ok(())
    });
}

#[test]
fn the_service_manager_hears_at_once_of_the_death_of_a_daemon_that_took_over() {
    cell::test("the_service_manager_hears_at_once_of_the_death_of_a_daemon_that_took_over", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let heard = Heard::begin(manager(&mx)?);
        let variables = ["NOTIFY_SOCKET=/run/notify.sock", "WATCHDOG_USEC=400000"];
        let wrapper = [&["env"][..], &variables[..], &["/usr/bin/python3", "-c", PARENT][..]].concat();
        let mut screener = Screener::start_under(&mx, &front("\"0.0.0.0:2525\""), &wrapper)?;
        // The old one has a session left for longer than the new one lives.
        let server = SocketAddr::new(mx.address(Family::V4)?, 2525);
        let mut client = Client::connect(&internet, "198.51.100.64".parse()?, server)?;
        client.expect(220)?;
        client.begin_text()?;
        expect_all(&mx, &["upgrade"], 0, &["has taken over after"])?;
        let pid = screener.json(&["status", "--json"])?["pid"].as_i64().context("a pid")?;
        let main = format!("MAINPID={pid}");
        until("the manager to hear who is the service", SOON, || heard.text().contains(&main).then_some(()))?;
        kill_process(Pid::from_raw(i32::try_from(pid)?).context("a process")?, Signal::KILL)?;
        screener.wait_for_log(&format!("ended: {pid} !"), SOON)?;
        // Nor does the old one say that the service is alive.
        let quiet = || heard.is_quiet_for(Duration::from_secs(2)).then_some(());
        until_or_show("nobody to tell the manager anything", SOON, || heard.text(), || Ok(quiet()))?;
        client.send_line("last\r\n.")?;
        client.expect(250)?;
        Ok(())
    });
}

#[test]
fn the_sockets_of_a_socket_unit_say_where_to_listen() {
    cell::test("the_sockets_of_a_socket_unit_say_where_to_listen", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let given = |name: &'static str, port: &'static str| ["python3", "-c", MANAGER, name, port];
        let at = |port: u16| -> Result<SocketAddr> { Ok(SocketAddr::new(mx.address(Family::V4)?, port)) };
        let wrapper = given("screener.socket", "2525");
        let mut screener = Screener::start_under(&mx, &front("\"0.0.0.0:2526\""), &wrapper)?;
        let mut client = Client::connect(&internet, "198.51.100.60".parse()?, at(2525)?)?;
        client.expect(220)?;
        client.begin_mail(250)?;
        ensure!(Client::connect(&internet, "198.51.100.61".parse()?, at(2526)?).is_err(), "not by listen.addresses");
        screener.configure(&front("\"0.0.0.0:2527\""))?;
        expect_all(&mx, &["reload"], 0, &["the socket unit says where to listen"])?;
        let mut client = Client::connect(&internet, "198.51.100.62".parse()?, at(2525)?)?;
        client.expect(220)?;
        screener.stop()?;

        // One that the manager kept for an earlier daemon is taken for its address, and nothing is bound there anew.
        let wrapper = given("screener-front", "2525");
        let screener = Screener::start_under(&mx, &front("\"0.0.0.0:2525\", \"0.0.0.0:2526\""), &wrapper)?;
        for port in [2525, 2526] {
            let mut client = Client::connect(&internet, "198.51.100.63".parse()?, at(port)?)?;
            client.expect(220)?;
        }
        drop(screener);

        // In steer mode the port is the MTA's: that a socket unit holds one is said.
        let screener = Screener::start_under(&mx, USUAL, &given("screener.socket", "2528"))?;
        screener.wait_for_degraded("disable the socket unit, or set listen.mode = \"front\"", true)?;
        drop(screener);

        let refused = Screener::start_under(&mx, USUAL, &given("screener.socket", "2599"));
        let said = format!("{:#}", refused.err().context("it started with a socket that does not listen")?);
        ensure!(said.contains("gave a descriptor (screener.socket) that is no socket to listen on"), "{said}");
        Ok(())
    });
}

#[test]
fn the_journal_knows_session_client_and_program_of_each_line() {
    cell::test("the_journal_knows_session_client_and_program_of_each_line", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut journal = Journald::start(&mx)?;
        let config = USUAL.to_owned() + "[observe]\nprogram = \"postfix/postscreen\"\n";
        let mut screener = Screener::start_under(&mx, &config, &UNDER_THE_JOURNAL)?;
        let meet = |source: &str| -> Result<()> {
            let mut client = Client::connect(&internet, source.parse()?, SocketAddr::new(mx.address(Family::V4)?, 25))?;
            client.expect(220)?;
            client.ask("EHLO sender.example.net", 250)?;
            client.ask("QUIT", 221)?;
            Ok(())
        };
        let says = |entry: &Value, text: &str| entry["MESSAGE"].as_str().is_some_and(|message| message.contains(text));
        meet("198.51.100.70")?;
        let connect = journal.wait_for("the line of a client", |entry| says(entry, "CONNECT from [198.51.100.70]:"))?;
        ensure!(connect["SYSLOG_IDENTIFIER"] == "postfix/postscreen" && connect["PRIORITY"] == "6", "{connect}");
        ensure!(connect["SCREENER_EVENT"] == "connect" && connect["_TRANSPORT"] == "journal", "{connect}");
        ensure!(connect["SCREENER_CLIENT"].as_str().is_some_and(|it| it.starts_with("198.51.100.70:")), "{connect}");
        let session = connect["SCREENER_SESSION"].as_str().context("a session")?.to_owned();
        let last = journal.wait_for("its last line", |entry| says(entry, "DISCONNECT [198.51.100.70]:"))?;
        ensure!(last["SCREENER_SESSION"] == session.as_str(), "{last}");

        // Nobody waits for a journal that is gone; one that comes anew is found.
        journal.crash()?;
        meet("198.51.100.72")?;
        journal.wait_for("a line in the new journal", |entry| says(entry, "CONNECT from [198.51.100.72]:"))?;

        // As JSON the whole decision is in the text, and the fields beside it are the same.
        screener.configure(&config.replace("[observe]\n", "[observe]\nlog = \"json\"\n"))?;
        expect_all(&mx, &["reload"], 0, &[])?;
        meet("198.51.100.73")?;
        let decision = journal.wait_for("a decision", |entry| {
            entry["SCREENER_EVENT"] == "decision" && says(entry, "\"client\":\"198.51.100.73:")
        })?;
        let object: Value = serde_json::from_str(decision["MESSAGE"].as_str().context("a text")?)?;
        ensure!(object["event"] == "decision" && object["session"].is_string(), "{object}");

        // An entry that is too long for a datagram arrives whole.
        let long = "x".repeat(300_000);
        screener.configure(&(config.clone() + &long + " = 1\n"))?;
        expect_all(&mx, &["reload"], 2, &[])?;
        let refused = journal.wait_for("a long line", |entry| says(entry, "reload refused") && says(entry, &long))?;
        ensure!(refused["PRIORITY"] == "3" && refused["SYSLOG_IDENTIFIER"] == "postfix/postscreen");
        screener.configure(&config)?;
        screener.stop()?;

        // A journal that only reads standard error: lines as ever, and it is said.
        std::fs::rename(mx.path(journald::SOCKET), mx.path("/run/systemd/journal/elsewhere"))?;
        let screener = Screener::start_under(&mx, &config, &UNDER_THE_JOURNAL)?;
        screener.wait_for_degraded("lines have no fields", true)?;
        let line = journal.wait_for("a line by standard error", |entry| says(entry, "lines have no fields"))?;
        ensure!(line["_TRANSPORT"] == "stdout" && line["PRIORITY"] == "4", "{line}");
        Ok(())
    });
}
