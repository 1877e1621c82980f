//! A web server of the lab's: Python's own, which gives one list, or behaves as real servers do on bad days.
//!
//! Over HTTPS too, with a certificate that a host trusts if it is told to.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::certificate::Certificate;
use crate::host::Host;
use crate::proc::Proc;

const PROGRAM: &str = include_str!("web.py");
const START: Duration = Duration::from_secs(15);
/// Where a host keeps the certificates that it trusts.
const TRUSTED: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The server.
#[derive(Debug)]
pub struct Web {
    host: Host,
    address: IpAddr,
    port: u16,
    certificate: Option<(String, String)>,
    server: Proc,
}

impl Web {
    /// Starts on a port of an address of a host, over HTTPS if there is a certificate; it gives an empty list at first.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(host: &Host, address: IpAddr, port: u16, certificate: Option<&Certificate>) -> Result<Self> {
        let directory = format!("/tmp/web-{port}");
        host.write(&format!("{directory}/web.py"), PROGRAM)?;
        host.write(&format!("{directory}/list"), "")?;
        host.write(&format!("{directory}/manner"), "good")?;
        if let Some(certificate) = certificate {
            certificate.install(host, &directory)?;
        }
        let certificate = certificate.map(|_| (format!("{directory}/cert.pem"), format!("{directory}/key.pem")));
        let server = launch(host, address, port, certificate.as_ref())?;
        Ok(Self { host: host.clone(), address, port, certificate, server })
    }

    /// Gives another list from now on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn give(&self, list: &str) -> Result<()> {
        self.host.write(&format!("/tmp/web-{}/list", self.port), list)
    }

    /// Behaves otherwise from now on: `good`, `truncated`, `drip`, `endless`, `encoded`, `unsized` (it does not say how long its
    /// list is), `forgetful` (it never says that nothing has changed), `loop`, `redirect PLACE`, `status CODE`.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn behave(&self, manner: &str) -> Result<()> {
        self.host.write(&format!("/tmp/web-{}/manner", self.port), manner)
    }

    /// What it was asked since it was last started, a line each.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.server.log().lines().filter(|line| line.starts_with("GET")).map(str::to_owned).collect()
    }

    /// Goes away.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(&mut self) -> Result<()> {
        self.server.kill()
    }

    /// Comes back.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.server = launch(&self.host, self.address, self.port, self.certificate.as_ref())?;
        Ok(())
    }
}

fn launch(host: &Host, address: IpAddr, port: u16, certificate: Option<&(String, String)>) -> Result<Proc> {
    let directory = format!("/tmp/web-{port}");
    let mut command = host.command("python3");
    command.args([&format!("{directory}/web.py"), &address.to_string(), &port.to_string(), &directory]);
    if let Some((chain, key)) = certificate {
        command.args([chain, key]);
    }
    let mut server = host.spawn(&mut command)?;
    server.wait_for_line("ready", START)?;
    Ok(server)
}

/// Has a host trust a certificate as it trusts those of the system.
///
/// # Errors
/// When its list of them cannot be changed.
pub fn trust(host: &Host, certificate: &Certificate) -> Result<()> {
    let others = host.read(TRUSTED).context("the trusted certificates; is ca-certificates installed?")?;
    host.write(TRUSTED, &format!("{others}\n{}", certificate.chain()))
}
