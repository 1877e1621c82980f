//! STARTTLS that the daemon terminates: what its clients meet, and what comes of it at the MTA.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use rustls::version::{TLS12, TLS13};

use screener_tests::cell;
use screener_tests::certificate::Certificate;
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::mta::{BOB, Mta, RELAY};
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};

const SOON: Duration = Duration::from_secs(20);
const PLACE: &str = "/etc/screener/tls";
const TLS: &str = "[tls]\ncertificate = \"/etc/screener/tls/cert.pem\"\nkey = \"/etc/screener/tls/key.pem\"\n";

/// A screener with a certificate, before an MTA without one.
struct Rig {
    mx: Host,
    internet: Host,
    mta: Mta,
    screener: Screener,
    certificate: Certificate,
}

impl Rig {
    fn new() -> Result<Self> {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, "")?;
        let certificate = Certificate::new("mx.example.com")?;
        certificate.install(&mx, PLACE)?;
        let screener = Screener::start(&mx, &(USUAL.to_owned() + TLS))?;
        Ok(Self { mx, internet, mta, screener, certificate })
    }

    fn server(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.mx.address(Family::V4)?, 25))
    }

    /// A client up to the reply to its STARTTLS.
    fn before_handshake(&self, source: &str) -> Result<Client> {
        let mut client = Client::connect(&self.internet, source.parse()?, self.server()?)?;
        client.expect(220)?;
        let offer = client.ask("EHLO sender.example.net", 250)?;
        ensure!(offer.contains("STARTTLS"), "{}", offer.text());
        client.ask("STARTTLS", 220)?;
        Ok(client)
    }

    /// A client under TLS.
    fn under_tls(&self, source: &str) -> Result<Client> {
        let mut client = self.before_handshake(source)?;
        client.start_tls(&self.certificate)?;
        Ok(client)
    }
}

/// From EHLO to the end of a mail.
fn mail(client: &mut Client, body: &str) -> Result<()> {
    let offer = client.ask("EHLO sender.example.net", 250)?;
    ensure!(!offer.contains("STARTTLS"), "offered again: {}", offer.text());
    client.ask("MAIL FROM:<a@example.net>", 250)?;
    client.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
    client.ask("DATA", 354)?;
    client.ask(&format!("Subject: hello\r\n\r\n{body}\r\n."), 250)?;
    client.ask("QUIT", 221)?;
    Ok(())
}

#[test]
fn both_versions_of_tls_bring_a_mail_to_the_mailbox() {
    cell::test("both_versions_of_tls_bring_a_mail_to_the_mailbox", || {
        let mut rig = Rig::new()?;
        let versions =
            [("198.51.100.40", &TLS12, "TLSv1_2", "TLSv1.2"), ("198.51.100.41", &TLS13, "TLSv1_3", "TLSv1.3")];
        for (number, (source, version, spoken, logged)) in versions.into_iter().enumerate() {
            let mut client = rig.before_handshake(source)?;
            client.start_tls_in(&rig.certificate, &[version])?;
            ensure!(client.tls_protocol().as_deref() == Some(spoken));
            mail(&mut client, logged)?;
            let mails = rig.mta.wait_for_mail(number + 1, SOON)?;
            ensure!(mails[number].body == format!("{logged}\n"), "{mails:?}");
            let address: IpAddr = source.parse()?;
            ensure!(mails[number].was_received_from(address), "{mails:?}");
            rig.mta.wait_until_seen(RELAY, address, SOON)?;
            let name = client.log_name();
            let line =
                rig.screener.wait_for_log(&format!("Anonymous TLS connection established from {name}: "), SOON)?;
            ensure!(line.contains(&format!("{logged} with cipher ")), "{line}");
            ensure!(rig.screener.has_pass(address)?, "no pass");
        }
        Ok(())
    });
}

#[test]
fn plain_text_behind_starttls_is_never_heard_under_tls_and_costs_the_client_its_pass() {
    cell::test("plain_text_behind_starttls_is_never_heard_under_tls_and_costs_the_client_its_pass", || {
        let mut rig = Rig::new()?;
        let mut client = Client::connect(&rig.internet, "198.51.100.42".parse()?, rig.server()?)?;
        client.expect(220)?;
        client.ask("EHLO sender.example.net", 250)?;
        client.send_raw(b"STARTTLS\r\nMAIL FROM:<evil@example.net>\r\n")?;
        client.expect(220)?;
        client.start_tls(&rig.certificate)?;
        client.silent_for(Duration::from_millis(500))?;
        client.ask("EHLO sender.example.net", 250)?;
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        let refused = client.ask(&format!("RCPT TO:<{BOB}>"), 550)?;
        ensure!(refused.contains("550 5.5.1 Protocol error"), "{}", refused.text());
        client.ask("QUIT", 221)?;
        let line = format!("COMMAND PIPELINING from {} after STARTTLS: MAIL FROM", client.log_name());
        rig.screener.wait_for_log(&line, SOON)?;
        ensure!(!rig.screener.has_pass(client.local().ip())?, "a pass");
        Ok(())
    });
}

#[test]
fn starttls_is_refused_under_tls_and_the_session_goes_on() {
    cell::test("starttls_is_refused_under_tls_and_the_session_goes_on", || {
        let rig = Rig::new()?;
        let mut client = rig.under_tls("198.51.100.43")?;
        let refused = client.ask("STARTTLS", 554)?;
        ensure!(refused.contains("554 5.5.1 Error: TLS already active"), "{}", refused.text());
        mail(&mut client, "once")
    });
}
