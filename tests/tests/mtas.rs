//! Other MTAs than Postfix behind the screener, by the PROXY protocol: Exim and OpenSMTPD, as docs/mtas.md sets them up.
//!
//! Each must see the client's true address, be heard with its own words, and lose nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::certificate::Certificate;
use screener_tests::client::Client;
use screener_tests::exim::Exim;
use screener_tests::host::Host;
use screener_tests::letter::{Letter, large_body};
use screener_tests::mailbox::Mailbox;
use screener_tests::mailer::{Kind, Mailer, Way};
use screener_tests::mta::{BOB, CAROL, NOBODY};
use screener_tests::net::{Family, Net};
use screener_tests::opensmtpd::OpenSmtpd;
use screener_tests::screener::{Screener, USUAL};
use screener_tests::sender::Route;

const SOON: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(240);

/// What an MTA must show.
struct Expected {
    /// How its log names a client of its.
    log_name: fn(IpAddr) -> String,
    /// What its EHLO reply has, and the screener must offer in its place.
    offered: &'static [&'static str],
    /// A part of its words for a recipient that it does not have.
    refusal: &'static str,
}

const EXIM: Expected = Expected {
    log_name: |client| format!(" H=(internet.example.net) [{client}]:"),
    offered: &["SIZE", "8BITMIME", "STARTTLS", "SMTPUTF8", "PRDR", "DSN"],
    refusal: "550 Unrouteable address",
};

const OPENSMTPD: Expected = Expected {
    log_name: |client| match client {
        IpAddr::V4(client) => format!("smtp connected address={client} "),
        IpAddr::V6(client) => format!("smtp connected address=[{client}] "),
    },
    offered: &["SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN"],
    refusal: "550 Invalid recipient",
};

/// What no MTA's offer may have here.
const WITHHELD: [&str; 6] = ["PIPELINING", "PIPECONNECT", "CHUNKING", "AUTH", "XCLIENT", "ETRN"];

#[test]
fn exim_behind_the_screener_by_version_2() {
    cell::test_within("exim_behind_the_screener_by_version_2", LIMIT, || exim("proxy-v2"));
}

#[test]
fn exim_behind_the_screener_by_version_1() {
    cell::test_within("exim_behind_the_screener_by_version_1", LIMIT, || exim("proxy-v1"));
}

#[test]
fn opensmtpd_behind_the_screener() {
    cell::test_within("opensmtpd_behind_the_screener", LIMIT, || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = OpenSmtpd::start(&mx, "steer")?;
        story(&mx, &internet, USUAL, false, &OPENSMTPD, || mta.log())
    });
}

/// The way for an MTA without TLS: the screener has port 25 and the certificate.
#[test]
fn opensmtpd_behind_a_screener_that_owns_port_25_and_does_tls() {
    cell::test_within("opensmtpd_behind_a_screener_that_owns_port_25_and_does_tls", LIMIT, || {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = OpenSmtpd::start(&mx, "front")?;
        Certificate::new("mx.example.com")?.install(&mx, "/etc/screener/tls")?;
        let config = format!("{USUAL}[listen]\nmode = \"front\"\n{TLS}");
        story(&mx, &internet, &config, true, &OPENSMTPD, || mta.log())
    });
}

const TLS: &str = "[tls]\ncertificate = \"/etc/screener/tls/cert.pem\"\nkey = \"/etc/screener/tls/key.pem\"\n";

fn exim(handoff: &str) -> Result<()> {
    let (mx, internet) = Net::mx_and_internet()?;
    let mta = Exim::start(&mx)?;
    let config = format!("{USUAL}[backend]\nhandoff = \"{handoff}\"\n");
    story(&mx, &internet, &config, true, &EXIM, || mta.log())
}

/// Scripted clients and a sending Postfix, with and without TLS, new and known.
fn story(
    mx: &Host,
    internet: &Host,
    config: &str,
    with_tls: bool,
    expected: &Expected,
    log: impl Fn() -> String,
) -> Result<()> {
    let screener = Screener::start(mx, config)?;
    for source in ["198.51.100.31", "2001:db8:a:31::1"] {
        a_scripted_client(mx, internet, source.parse()?, expected).map_err(|error| error.context(log()))?;
        ensure!(screener.has_pass(source.parse()?)?, "{source} has no pass\n{}", screener.log());
    }
    let mut ways = Vec::new();
    for (from, source, tls) in [
        ("plain@example.net", "198.51.100.32", false),
        ("again@example.net", "198.51.100.32", false),
        ("secret@example.net", "2001:db8:a:33::1", with_tls),
        ("still@example.net", "2001:db8:a:33::1", with_tls),
    ] {
        let source: IpAddr = source.parse()?;
        let route = Route { from: from.to_owned(), source, server: mx.address(Family::of(source))? };
        ways.push(Way { route, tls });
    }
    let mut sender = Kind::Postfix.start(internet, &ways)?;
    for way in &ways {
        letters(mx, sender.as_mut(), way, expected, &log)?;
    }
    let status = screener.json(&["status", "--json"])?;
    let handed_off = status["sessions"]["handed_off"].as_u64().unwrap_or_default();
    // Two scripted clients and two new senders; whoever has a pass goes straight to the MTA, in steer mode.
    let right = if status["mode"] == "steer" { handed_off == 4 } else { handed_off >= 6 };
    ensure!(right, "{status}");
    Ok(())
}

/// The offer, the refusal of a recipient, and a mail by BDAT after the handoff where the MTA knows it.
fn a_scripted_client(mx: &Host, internet: &Host, source: IpAddr, expected: &Expected) -> Result<()> {
    let server = SocketAddr::new(mx.address(Family::of(source))?, 25);
    let mut client = Client::connect(internet, source, server)?;
    client.expect(220)?;
    let offer = client.ask("EHLO client.example.net", 250)?.text();
    let has = |keyword: &&str| offer.lines().any(|line| line.get(4..).is_some_and(|rest| rest.starts_with(*keyword)));
    ensure!(expected.offered.iter().all(&has), "{offer}");
    ensure!(!WITHHELD.iter().any(has), "{offer}");
    client.ask("MAIL FROM:<alice@example.net>", 250)?;
    // Refused at the line that begins the handoff, and again when the MTA has the session.
    for _ in 0..2 {
        let refusal = client.ask(&format!("RCPT TO:<{NOBODY}>"), 550)?;
        ensure!(refusal.text().starts_with(expected.refusal) && !refusal.contains("session="), "{}", refusal.text());
    }
    client.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
    client.ask("DATA", 354)?;
    let id = format!("scripted.{source}@example.net").replace(':', "-");
    client.send_line(&format!("Message-ID: <{id}>\r\nSubject: x\r\n\r\nHello.\r\n."))?;
    client.expect(250)?;
    client.ask("QUIT", 221)?;
    let mail = Mailbox::of(mx, BOB).wait_for_message(&id, SOON, String::new)?;
    ensure!(mail.was_received_from(source), "{:?}", mail.headers);
    Ok(())
}

/// A letter for two mailboxes and nobody, and a large one.
fn letters(
    mx: &Host,
    sender: &mut dyn Mailer,
    way: &Way,
    expected: &Expected,
    log: &impl Fn() -> String,
) -> Result<()> {
    let letter = Letter::new(&way.route.from, &[NOBODY, BOB, CAROL]);
    let large = Letter::new(&way.route.from, &[BOB]).with_body(large_body(3_000_000));
    let fates = sender.send(std::slice::from_ref(&letter))?;
    for fate in fates.iter().flatten() {
        ensure!(fate.accepted == (fate.to != NOBODY), "{fate:?}\n{}\n{}", log(), sender.log());
        ensure!(fate.accepted || fate.said.contains(expected.refusal), "{fate:?}\n{}", log());
    }
    ensure!(sender.send(std::slice::from_ref(&large))?.iter().flatten().all(|fate| fate.accepted), "{}", sender.log());
    for (letter, address) in [(&letter, BOB), (&letter, CAROL), (&large, BOB)] {
        let mail = Mailbox::of(mx, address).wait_for_message(&letter.id, SOON, log)?;
        ensure!(mail.bytes == letter.body, "{} bytes of {}", mail.bytes.len(), letter.body.len());
        ensure!(mail.was_received_from(way.route.source), "{:?}", mail.headers);
    }
    ensure!(Mailbox::of(mx, NOBODY).count(&letter.id)? == 0);
    let name = (expected.log_name)(way.route.source);
    ensure!(log().contains(&name), "no {name} in\n{}", log());
    Ok(())
}
