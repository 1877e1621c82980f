//! A screener that terminates TLS, before a real MTA, and clients on their way into it.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::certificate::Certificate;
use crate::client::Client;
use crate::host::Host;
use crate::mta::{BOB, Mta};
use crate::net::{Family, Net};
use crate::screener::{Screener, USUAL};

/// Where the certificate and its key lie on the MX host.
pub const PLACE: &str = "/etc/screener/tls";

/// The section of the configuration that names them.
pub const SECTION: &str = "[tls]\ncertificate = \"/etc/screener/tls/cert.pem\"\nkey = \"/etc/screener/tls/key.pem\"\n";

/// The hosts, the MTA, the screener and its certificate.
#[derive(Debug)]
pub struct Rig {
    /// The MX host.
    pub mx: Host,
    /// Where clients are.
    pub internet: Host,
    /// The MTA, without a certificate of its own unless it was started with one.
    pub mta: Mta,
    /// The screener.
    pub screener: Screener,
    /// What it shows.
    pub certificate: Certificate,
}

impl Rig {
    /// With everything as it usually is.
    ///
    /// # Errors
    /// When something does not start.
    pub fn new() -> Result<Self> {
        Self::with("", "")
    }

    /// With settings of the MTA's and the screener's own; TOML that goes behind the usual configuration.
    ///
    /// # Errors
    /// When something does not start.
    pub fn with(mta: &str, screener: &str) -> Result<Self> {
        let (mx, internet) = Net::mx_and_internet()?;
        let mta = Mta::start(&mx, mta)?;
        let certificate = Certificate::new("mx.example.com")?;
        certificate.install(&mx, PLACE)?;
        let screener = Screener::start(&mx, &format!("{USUAL}{SECTION}{screener}"))?;
        Ok(Self { mx, internet, mta, screener, certificate })
    }

    /// Port 25 of the MX host.
    ///
    /// # Errors
    /// When the host has no IPv4 address.
    pub fn server(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.mx.address(Family::V4)?, 25))
    }

    /// A client that has said EHLO.
    ///
    /// # Errors
    /// When it is not greeted, or not offered STARTTLS.
    pub fn greeted(&self, source: &str) -> Result<Client> {
        let mut client = Client::connect(&self.internet, source.parse()?, self.server()?)?;
        client.expect(220)?;
        let offer = client.ask("EHLO sender.example.net", 250)?;
        ensure!(offer.contains("STARTTLS"), "not offered: {}", offer.text());
        Ok(client)
    }

    /// A client up to the reply to its STARTTLS.
    ///
    /// # Errors
    /// When it does not come so far.
    pub fn before_handshake(&self, source: &str) -> Result<Client> {
        let mut client = self.greeted(source)?;
        client.ask("STARTTLS", 220)?;
        Ok(client)
    }

    /// A client under TLS.
    ///
    /// # Errors
    /// When it does not come so far, or is shown another certificate.
    pub fn under_tls(&self, source: &str) -> Result<Client> {
        let mut client = self.before_handshake(source)?;
        client.start_tls(&self.certificate)?;
        Ok(client)
    }

    /// What the metrics say.
    ///
    /// # Errors
    /// When they cannot be had.
    pub fn metrics(&self) -> Result<String> {
        self.mx.ask("curl", &["-s", "http://127.0.0.1:9725/metrics"])
    }
}

/// A mail in a session under TLS, from EHLO to QUIT.
///
/// # Errors
/// When any part of it is not taken, or STARTTLS is offered once more.
pub fn mail(client: &mut Client, body: &str) -> Result<()> {
    let offer = client.ask("EHLO sender.example.net", 250)?;
    ensure!(!offer.contains("STARTTLS"), "offered again: {}", offer.text());
    client.ask("MAIL FROM:<a@example.net>", 250)?;
    client.ask(&format!("RCPT TO:<{BOB}>"), 250)?;
    client.ask("DATA", 354)?;
    client.ask(&format!("Subject: hello\r\n\r\n{body}\r\n."), 250)?;
    client.ask("QUIT", 221)?;
    Ok(())
}
