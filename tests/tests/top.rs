//! `screener top`: at a terminal, for machines, and when the daemon goes and comes.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use screener_tests::cell;
use screener_tests::client::Client;
use screener_tests::mta::Mta;
use screener_tests::net::{Family, Net};
use screener_tests::pty::Pty;
use screener_tests::screener::{Screener, USUAL, command};

/// Another screen without a cursor, and back.
const ENTERED: &str = "\x1b[?1049h\x1b[?25l";
const LEFT: &str = "\x1b[?25h\x1b[?1049l";

#[test]
fn at_a_terminal_it_shows_what_happens_and_leaves_the_terminal_as_it_was() {
    cell::test("at_a_terminal_it_shows_what_happens_and_leaves_the_terminal_as_it_was", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let begin = || Pty::spawn(&mut command(&mx, &[], &["top", "--interval", "200ms"])?, 30, 100);

        let mut top = begin()?;
        let before = top.settings()?;
        top.wait_for("nothing is degraded")?;
        let server = SocketAddr::new(mx.address(Family::V4)?, 25);
        let early =
            Client::connect_saying(&internet, "198.51.100.20".parse()?, server, b"EHLO too.early.example.net\r\n")?;
        top.wait_for("connections 1 of 20000, 0 in the tarpit")?;
        // It is counted when it is over.
        drop(early);
        top.wait_for("pregreet")?;

        // The daemon goes, and comes.
        screener.kill9()?;
        top.wait_for("waiting for it; q ends")?;
        screener.restart()?;
        top.wait_for("in steer mode, process ")?;
        ensure!(top.settings()?.local_modes != before.local_modes, "keys are not taken as they are hit");
        top.hit("xq")?;
        ensure!(top.wait()?.success());
        ensure!(top.settings()?.local_modes == before.local_modes, "the terminal is not as it was");
        ensure!(top.drawn().ends_with(LEFT), "{}", top.drawn().escape_debug());

        // By Ctrl-C, and by a signal, in the same way.
        for by_key in [true, false] {
            let mut top = begin()?;
            top.wait_for(ENTERED)?;
            top.wait_for("nothing is degraded")?;
            if by_key {
                top.hit("\x03")?;
            } else {
                kill_process(Pid::from_raw(top.id().cast_signed()).context("a process")?, Signal::TERM)?;
            }
            ensure!(top.wait()?.success());
            ensure!(top.settings()?.local_modes == before.local_modes && top.drawn().ends_with(LEFT));
        }
        Ok(())
    });
}

#[test]
fn for_machines_it_prints_an_object_a_look_and_says_when_there_is_no_daemon() {
    cell::test("for_machines_it_prints_an_object_a_look_and_says_when_there_is_no_daemon", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let server = SocketAddr::new(mx.address(Family::V4)?, 25);
        let mut client = Client::connect(&internet, "198.51.100.20".parse()?, server)?;
        client.expect(220)?;
        // No terminal: as with --json.
        for words in [&["top", "--interval", "200ms", "--count", "3"][..], &["top", "--json", "--count", "1"][..]] {
            let said = screener.tell(words)?;
            let looks = said.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
            ensure!(looks[0]["seconds"].is_null() && looks[0]["connections"]["accepted"]["rate"].is_null(), "{said}");
            ensure!(looks[0]["connections"]["now"] == 1 && looks[0]["connections"]["limit"] == 20000, "{said}");
            if let Some(second) = looks.get(1) {
                ensure!(looks.len() == 3, "{said}");
                ensure!(second["seconds"].as_f64().is_some_and(|seconds| seconds > 0.1), "{said}");
                ensure!(second["connections"]["accepted"] == serde_json::json!({"total": 1, "rate": 0.0}), "{said}");
                ensure!(second["connections"]["greeted"] == serde_json::json!({"total": 1, "rate": 0.0}), "{said}");
                ensure!(second["kernel"].as_array().is_some_and(|counters| !counters.is_empty()), "{said}");
            }
        }
        screener.stop()?;
        let without = screener.cli(&["top", "--interval", "100ms", "--count", "2"])?;
        let said = String::from_utf8(without.stdout)?;
        ensure!(without.status.code() == Some(1) && said.lines().count() == 2, "{said}");
        ensure!(said.lines().all(|line| line.starts_with("{\"error\":\"screener is not running")), "{said}");
        let wrong = screener.cli(&["top", "--interval", "1ms"])?;
        ensure!(wrong.status.code() == Some(2));
        ensure!(String::from_utf8_lossy(&wrong.stderr).contains("100ms at the least"));
        Ok(())
    });
}
