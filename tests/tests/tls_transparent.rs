//! STARTTLS without a certificate of the daemon's: the handoff point. What clients see is the MTA's own certificate.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};

use screener_tests::cell;
use screener_tests::certificate::Certificate;
use screener_tests::client::Client;
use screener_tests::host::Host;
use screener_tests::mta::{BOB, Mta, RELAY};
use screener_tests::net::{Family, Net};
use screener_tests::screener::{Screener, USUAL};
use screener_tests::sender::{Route, Sender};

const SOON: Duration = Duration::from_secs(20);

/// A screener without a certificate before an MTA with one.
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
        let certificate = Certificate::new("mx.example.com")?;
        mx.write("/etc/postfix/tls.pem", &(certificate.key().to_owned() + certificate.chain()))?;
        let own =
            "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = /etc/postfix/tls.pem\nsmtpd_tls_loglevel = 1\n";
        let mta = Mta::start(&mx, own)?;
        let screener = Screener::start(&mx, USUAL)?;
        Ok(Self { mx, internet, mta, screener, certificate })
    }

    fn greeted(&self, source: &str) -> Result<Client> {
        let server = SocketAddr::new(self.mx.address(Family::V4)?, 25);
        let mut client = Client::connect(&self.internet, source.parse()?, server)?;
        client.expect(220)?;
        let offer = client.ask("EHLO sender.example.net", 250)?;
        ensure!(offer.contains("STARTTLS"), "{}", offer.text());
        Ok(client)
    }
}

#[test]
fn starttls_leads_to_the_mtas_own_certificate_and_earns_the_pass() {
    cell::test("starttls_leads_to_the_mtas_own_certificate_and_earns_the_pass", || {
        let rig = Rig::new()?;
        let source: IpAddr = "198.51.100.70".parse()?;
        let mut client = rig.greeted("198.51.100.70")?;
        let ready = client.ask("STARTTLS", 220)?;
        ensure!(ready.contains("2.0.0 Ready to start TLS"), "{}", ready.text());
        client.start_tls(&rig.certificate)?;
        // From here on it is the MTA itself: it offers what the engine withholds.
        let offer = client.ask("EHLO sender.example.net", 250)?;
        ensure!(offer.contains("PIPELINING") && offer.contains("CHUNKING"), "{}", offer.text());
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        client.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
        client.ask("DATA", 354)?;
        client.ask("Subject: hello\r\n\r\nunder the MTA's TLS\r\n.", 250)?;
        client.ask("QUIT", 221)?;
        let mail = &rig.mta.wait_for_mail(1, SOON)?[0];
        ensure!(mail.was_received_from(source) && mail.body == "under the MTA's TLS\n", "{mail:?}");
        ensure!(
            mail.header("Received").is_some_and(|line| line.contains("with ESMTPS")),
            "the MTA knows of TLS: {mail:?}"
        );
        rig.mta.wait_until_seen(RELAY, source, SOON)?;
        ensure!(rig.screener.has_pass(source)?, "no pass");
        Ok(())
    });
}

#[test]
fn plain_text_injected_behind_starttls_never_reaches_the_mta() {
    cell::test("plain_text_injected_behind_starttls_never_reaches_the_mta", || {
        let mut rig = Rig::new()?;
        let mut client = rig.greeted("198.51.100.71")?;
        client.send_raw(b"STARTTLS\r\nMAIL FROM:<evil@example.net>\r\n")?;
        let name = client.log_name();
        // Sent ahead, it is a failed test: without a certificate of its own the daemon has no TLS to refuse the client in.
        let refused = client.expect(454)?;
        ensure!(refused.contains("4.7.0 TLS not available"), "{}", refused.text());
        rig.screener.wait_for_log(&format!("COMMAND PIPELINING from {name} after STARTTLS: MAIL FROM"), SOON)?;
        // It is still plain text, and so is what was sent ahead.
        client.expect(250)?;
        client.ask(&format!("RCPT TO:<{BOB}>"), 550)?;
        ensure!(!rig.mta.has_seen(RELAY, client.local().ip()), "the MTA has seen it");
        Ok(())
    });
}

#[test]
fn what_is_injected_is_thrown_away_also_where_pipelining_is_not_tested() {
    cell::test("what_is_injected_is_thrown_away_also_where_pipelining_is_not_tested", || {
        let mut rig = Rig::new()?;
        rig.screener.stop()?;
        rig.screener = Screener::start(&rig.mx, &format!("{USUAL}[tests.pipelining]\nenable = false\n"))?;
        let mut client = rig.greeted("198.51.100.72")?;
        client.send_raw(b"STARTTLS\r\nMAIL FROM:<evil@example.net>\r\n")?;
        client.expect(220)?;
        client.start_tls(&rig.certificate)?;
        client.silent_for(Duration::from_millis(500))?;
        client.ask("EHLO sender.example.net", 250)?;
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        client.ask("QUIT", 221)?;
        Ok(())
    });
}

#[test]
fn a_refused_client_gets_no_tls_and_hears_its_refusal_in_plain_text() {
    cell::test("a_refused_client_gets_no_tls_and_hears_its_refusal_in_plain_text", || {
        let rig = Rig::new()?;
        let server = SocketAddr::new(rig.mx.address(Family::V4)?, 25);
        let (source, early) = ("198.51.100.73".parse()?, b"EHLO sender.example.net\r\n");
        let mut client = Client::connect_saying(&rig.internet, source, server, early)?;
        client.expect(220)?;
        client.expect(250)?;
        client.ask("STARTTLS", 454)?;
        client.ask("MAIL FROM:<a@example.net>", 250)?;
        client.ask(&format!("RCPT TO:<{BOB}>"), 550)?;
        Ok(())
    });
}

#[test]
fn a_sending_postfix_that_insists_on_tls_has_it_with_the_mta() {
    cell::test("a_sending_postfix_that_insists_on_tls_has_it_with_the_mta", || {
        let rig = Rig::new()?;
        rig.internet.write("/etc/ssl/mx.pem", rig.certificate.chain())?;
        let source: IpAddr = "198.51.100.74".parse()?;
        let from = "alice@example.net".to_owned();
        let route = Route { from: from.clone(), source, server: rig.mx.address(Family::V4)? };
        let insist = "smtp_tls_security_level = secure\nsmtp_tls_secure_cert_match = mx.example.com\n\
                      smtp_tls_CAfile = /etc/ssl/mx.pem\nsmtp_tls_loglevel = 1\n";
        let sender = Sender::start_with(&rig.internet, [(&route, String::new())], insist)?;
        // The first time by way of the daemon, the second time without it: the same certificate.
        for _ in 0..2 {
            let id = sender.send(&from, BOB, "Hello Bob")?;
            sender.wait_for_sent(&id, SOON)?;
            rig.mta.wait_for_message(&id, SOON)?;
            rig.screener.wait_for_kernel_pass(source)?;
        }
        let trusted = sender.postfix().log().matches("Verified TLS connection established to 192.0.2.10").count();
        ensure!(trusted == 2, "{}", sender.postfix().log());
        ensure!(rig.screener.sessions()? == 1, "the second time it has a pass");
        Ok(())
    });
}
