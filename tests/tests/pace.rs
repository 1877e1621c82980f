//! Time and numbers, as the real kernel tells them to the engine: what a client had acknowledged when it spoke, how many
//! sessions there are, how slowly a reply leaves.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use screener_tests::cell;
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::mta::Mta;
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::wait::until;

const SOON: Duration = Duration::from_secs(20);

fn port_25(mx: &Host) -> Result<SocketAddr> {
    Ok(SocketAddr::new(mx.address(Family::V4)?, 25))
}

fn source(last: u8) -> IpAddr {
    [198, 51, 100, last].into()
}

#[test]
fn a_command_sent_before_the_reply_can_have_arrived_is_pipelining_also_in_a_later_read() {
    cell::test("a_command_sent_before_the_reply_can_have_arrived_is_pipelining_also_in_a_later_read", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let mut client = Client::connect(&internet, source(51), port_25(&mx)?)?;
        client.expect(220)?;
        // From here on no data of the server's arrives.
        let rules = "add table inet hush; add chain inet hush in { type filter hook input priority 0; }; \
                     add rule inet hush in tcp sport 25 meta length > 100 drop";
        internet.ask("nft", &[rules])?;
        client.send_line("EHLO sender.example.net")?;
        let unread = || {
            let sockets = mx.ask("ss", &["-tnH", "state", "established", "sport", "=", ":25"]).ok()?;
            let unacknowledged = |line: &str| line.split_whitespace().nth(1).is_some_and(|queue| queue != "0");
            sockets.lines().any(unacknowledged).then_some(())
        };
        until("the reply to be on its way", SOON, unread)?;
        client.send_line("MAIL FROM:<a@example.net>")?;
        let pattern = format!("COMMAND PIPELINING from {} after EHLO: MAIL FROM:<a@example.net>", client.log_name());
        screener.wait_for_log(&pattern, SOON)?;
        internet.ask("nft", &["delete table inet hush"])?;
        client.expect(250)?;
        client.expect(250)?;
        let refused = client.ask("RCPT TO:<bob@example.com>", 550)?;
        ensure!(refused.contains("5.5.1 Protocol error"), "{}", refused.text());
        Ok(())
    });
}

#[test]
fn who_spoke_before_the_greeting_is_an_early_talker_also_when_the_daemon_comes_to_it_late() {
    cell::test("who_spoke_before_the_greeting_is_an_early_talker_also_when_the_daemon_comes_to_it_late", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &USUAL.replace("wait = \"1s\"", "wait = \"4s\""))?;
        // As on a machine that has no time for it: when it comes to look, both the words and the end of the wait are there. It has to be
        // stopped before the first one's wait is over, for which the machine may be too busy.
        let (mut found, server) = (None, port_25(&mx)?);
        for attempt in 0..4_u8 {
            let connected = Instant::now();
            let connect = |number: u8| Client::connect(&internet, source(80 + 40 * attempt + number), server);
            let clients = (0..40).map(connect).collect::<Result<Vec<_>, _>>()?;
            for client in &clients {
                screener.wait_for_log(&format!("CONNECT from {}", client.log_name()), SOON)?;
            }
            screener.signal(Signal::STOP)?;
            if connected.elapsed() < Duration::from_millis(3500) {
                found = Some((connected, clients));
                break;
            }
            screener.signal(Signal::CONT)?;
        }
        let (connected, mut clients) = found.context("forty clients do not connect within 3.5 s")?;
        for client in &mut clients {
            client.send_line("EHLO early.example.net")?;
        }
        until("the wait to be over", SOON, || (connected.elapsed() > Duration::from_secs(5)).then_some(()))?;
        screener.signal(Signal::CONT)?;
        for client in &mut clients {
            client.expect(220)?;
            client.expect(250)?;
            client.ask("MAIL FROM:<a@example.net>", 250)?;
            client.ask("RCPT TO:<bob@example.com>", 550)?;
            screener.wait_for_log(&format!("from {}: EHLO early.example.net", client.log_name()), SOON)?;
        }
        Ok(())
    });
}

#[test]
fn in_the_tarpit_a_client_hears_a_byte_at_a_time_and_there_is_room_for_so_many() {
    cell::test("in_the_tarpit_a_client_hears_a_byte_at_a_time_and_there_is_room_for_so_many", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let tarpit = "[tests]\ntagged = \"tarpit\"\n[limits]\ntarpit = 1\ntarpit_pace = \"150ms\"\n";
        let mut screener = Screener::start(&mx, &(USUAL.to_owned() + tarpit))?;
        screener.tell(&["deny", "add", "198.51.100.64/26", "--action", "tag"])?;
        let began = Instant::now();
        let mut held = Client::connect(&internet, source(70), port_25(&mx)?)?;
        screener.wait_for_log(&format!("TARPIT {}", held.log_name()), SOON)?;
        let tarpitted =
            |screener: &Screener| screener.json(&["status", "--json"]).ok()?["sessions"]["tarpitted"].as_u64();
        until("it to be in the tarpit", SOON, || (tarpitted(&screener)? == 1).then_some(()))?;
        // The place is taken: the next one is dropped at once.
        let mut second = Client::connect(&internet, source(71), port_25(&mx)?)?;
        let dropped = second.expect(521)?;
        ensure!(dropped.contains("5.3.2 Service currently unavailable"), "{}", dropped.text());
        screener.wait_for_log(&format!("TARPIT FULL {}", second.log_name()), SOON)?;
        screener.wait_for_degraded("the tarpit is full (1 clients, limits.tarpit is 1)", true)?;
        let greeting = held.expect(220)?;
        let bytes = u32::try_from(greeting.lines[0].len() + 2)?;
        let least = Duration::from_millis(150) * (bytes - 1);
        ensure!(began.elapsed() >= least, "{} bytes within {:?}", bytes, began.elapsed());
        ensure!(greeting.lines == ["220 mx.example.com ESMTP"], "{}", greeting.text());
        drop(held);
        until("the place to be free", SOON, || (tarpitted(&screener)? == 0).then_some(()))
    });
}

#[test]
fn an_early_talker_can_be_tarpitted_to_its_first_recipient() {
    cell::test("an_early_talker_can_be_tarpitted_to_its_first_recipient", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let config = USUAL.replace("wait = \"1s\"", "wait = \"5s\"\naction = \"tarpit\"");
        let mut screener = Screener::start(&mx, &(config + "[limits]\ntarpit_pace = \"10ms\"\n"))?;
        let mut client = Client::connect_saying(&internet, source(52), port_25(&mx)?, b"HELO sender.example.net\r\n")?;
        client.expect(220)?;
        client.expect(250)?;
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        let refused = client.ask("RCPT TO:<bob@example.com>", 521)?;
        ensure!(refused.contains("5.5.1 Protocol error; session="), "{}", refused.text());
        let pattern = format!("NOQUEUE: reject: RCPT from {}: 521 5.5.1 Protocol error; session=", client.log_name());
        screener.wait_for_log(&pattern, SOON)?;
        client.read_all()?;
        Ok(())
    });
}

#[test]
fn under_stress_those_who_wait_already_wait_less() {
    cell::test("under_stress_those_who_wait_already_wait_less", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let _mta = Mta::start(&mx, "")?;
        let config = USUAL.replace("wait = \"1s\"", "wait = \"30s\"");
        let mut screener = Screener::start(&mx, &(config + "[limits]\nconnections = 10\nper_client = 0\n"))?;
        let mut clients = Vec::new();
        for number in 1..=8 {
            clients.push(Client::connect(&internet, source(80 + number), port_25(&mx)?)?);
        }
        until("eight sessions", SOON, || (screener.sessions().ok()? == 8).then_some(()))?;
        clients.push(Client::connect(&internet, source(89), port_25(&mx)?)?);
        screener.wait_for_log("entering STRESS mode with 9 connections", SOON)?;
        ensure!(screener.json(&["status", "--json"])?["sessions"]["stress"] == true);
        // Their 30 seconds have become two.
        for client in &mut clients {
            ensure!(client.expect(220)?.lines.len() == 2);
        }
        clients.truncate(7);
        screener.wait_for_log("leaving STRESS mode with 7 connections", SOON)?;
        ensure!(screener.json(&["status", "--json"])?["sessions"]["stress"] == false);
        let entered = screener.log().matches("STRESS mode").count();
        ensure!(entered == 2, "once each way: {entered}");
        Ok(())
    });
}
