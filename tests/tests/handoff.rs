//! The ways in which a connection is given to a real MTA, other than the one of the table.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::client::{Client, Reply};
use screener_tests::mta::{BOB, DIRECT, Door, Mta, RELAY};
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::sender::{Route, Sender};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_version_1_header_tells_the_mta_the_true_address() {
    cell::test("a_version_1_header_tells_the_mta_the_true_address", || {
        the_mta_is_told_the_true_address("[backend]\nhandoff = \"proxy-v1\"\n", Door::Relay)
    });
}

#[test]
fn a_header_over_a_unix_socket_tells_the_mta_the_true_address() {
    cell::test("a_header_over_a_unix_socket_tells_the_mta_the_true_address", || {
        the_mta_is_told_the_true_address(Door::Socket.backend(), Door::Socket)
    });
}

/// Both families; the screener comes to the MTA by this door.
fn the_mta_is_told_the_true_address(backend: &str, door: Door) -> Result<()> {
    let (mx, internet) = Net::mx_and_internet()?;
    let mta = Mta::start(&mx, "")?;
    let screener = Screener::start(&mx, &format!("{USUAL}{backend}"))?;
    for source in ["198.51.100.30", "2001:db8:a:30::1"] {
        let source: IpAddr = source.parse()?;
        let server = SocketAddr::new(mx.address(Family::of(source))?, 25);
        let mut client = Client::connect(&internet, source, server)?;
        client.expect(220)?;
        // The MTA's own features were learned through the same door.
        let offer = client.ask("EHLO sender.example.net", 250)?;
        ensure!(offer.contains("DSN") && !offer.contains("PIPELINING"), "{}", offer.text());
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        client.ask("RCPT TO:<bob@elsewhere.example>", 554)?;
        client.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
        client.ask("QUIT", 221)?;
        mta.wait_until_seen(door.log_name(), source, SOON)?;
    }
    ensure!(screener.json(&["status", "--json"])?["sessions"]["handed_off"] == 2);
    Ok(())
}

#[test]
fn under_defer_a_sending_postfix_is_told_450_and_served_by_the_mta_when_it_comes_again() {
    cell::test("under_defer_a_sending_postfix_is_told_450_and_served_by_the_mta_when_it_comes_again", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let mut screener = Screener::start(&mx, &(USUAL.to_owned() + "[backend]\nafter_tests = \"defer\"\n"))?;
        let source: IpAddr = "198.51.100.31".parse()?;
        let from = "alice@example.net".to_owned();
        let server = mx.address(Family::V4)?;
        let sender = Sender::start(&internet, &[Route { from: from.clone(), source, server }])?;
        let id = sender.send(&from, BOB, "Hello Bob")?;
        let first = sender.wait_for_attempt(&id, SOON)?;
        ensure!(
            first.status == "deferred" && first.reply.contains("450 4.3.2 Service currently unavailable"),
            "{first:?}"
        );
        screener.wait_for_log(&format!("PASS NEW [{source}]:"), SOON)?;
        screener.wait_for_log(&format!("NOQUEUE: reject: RCPT from [{source}]:"), SOON)?;
        sender.flush()?;
        let line = sender.wait_for_sent(&id, SOON)?;
        ensure!(line.dsn.starts_with("2."), "{line:?}");
        mta.wait_until_seen(DIRECT, source, SOON)?;
        ensure!(!mta.has_seen(RELAY, source), "the session that was deferred reached the MTA");
        Ok(())
    });
}

#[test]
fn what_the_mta_offers_after_a_restart_is_offered_after_the_next_handoff() {
    cell::test("what_the_mta_offers_after_a_restart_is_offered_after_the_next_handoff", || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mut mta = Mta::start(&mx, "message_size_limit = 1000000\nvirtual_mailbox_limit = 0\n")?;
        let mut screener = Screener::start(&mx, USUAL)?;
        let server = SocketAddr::new(mx.address(Family::V4)?, 25);
        let offered = |source: &str| -> Result<(Client, Reply)> {
            let mut client = Client::connect(&internet, source.parse()?, server)?;
            client.expect(220)?;
            let offer = client.ask("EHLO sender.example.net", 250)?;
            Ok((client, offer))
        };
        let (mut client, offer) = offered("198.51.100.32")?;
        ensure!(offer.contains("SIZE 1000000"), "{}", offer.text());
        mx.ask("postconf", &["-e", "message_size_limit = 2000000"])?;
        mta.restart()?;
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        client.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
        screener.wait_for_log("offers SIZE 2000000", SOON)?;
        let (_client, offer) = offered("198.51.100.33")?;
        ensure!(offer.contains("SIZE 2000000"), "{}", offer.text());
        Ok(())
    });
}
