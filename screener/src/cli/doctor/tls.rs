//! TLS: is the certificate good, for how long, and can every client have TLS, whoever serves it.

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use super::finding::Findings;
use crate::clock::Now;
use crate::config::{self, Backend, BackendAddress, Config, HandoffMethod, Mode};
use crate::handoff;
use crate::tls::Identity;

/// How long an MTA may take to say what it offers. One that does not answer is told of where the MTA is looked at.
const PATIENCE: Duration = Duration::from_secs(15);

const MTA_CERTIFICATE: &str = "give the MTA the same certificate (Postfix: smtpd_tls_chain_files, and \
                               smtpd_tls_security_level = may)";

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    match &config.tls {
        Some(files) => {
            certificate(config, files, findings);
            demanding(config, findings).await;
            if config.listen.mode != Mode::Front {
                direct(config, findings).await;
            }
        }
        None => transparent(config, findings).await,
    }
}

fn certificate(config: &Config, files: &config::Tls, findings: &mut Findings) {
    const CHECK: &str = "certificate";
    let identity = match Identity::load(files) {
        Ok(identity) => identity,
        Err(error) => {
            let advice = "mend it; the daemon looks again every few seconds, and leaves STARTTLS to the MTA meanwhile \
                          if it has none in use";
            return findings.problem(CHECK, error.to_string(), advice);
        }
    };
    let now = Now::read().unix;
    let names = identity.names.join(", ");
    match identity.time_warning(now) {
        Some(text) => findings.warning(CHECK, format!("{names}: {text}"), "see why it is not renewed"),
        None => {
            let days = identity.days_left(now).unwrap_or(0);
            findings.ok(CHECK, format!("{names}, good until {}, {days} days left", identity.not_after));
        }
    }
    if !identity.covers(&config.hostname.to_string()) {
        findings.warning(
            CHECK,
            format!("it is good for {names}, and this host calls itself {}", config.hostname),
            "senders that check names (MTA-STS, DANE) look for the name in your MX record: get a certificate for that",
        );
    }
    let open = std::fs::metadata(&files.key).is_ok_and(|seen| seen.mode() & 0o007 != 0);
    if open {
        let advice = format!("chmod o-rwx {}", files.key.display());
        findings.warning("key", format!("everybody on this host may read {}", files.key.display()), advice);
    }
}

/// Whether the MTA wants TLS of what we hand over, which is in plain text, or on the same host.
async fn demanding(config: &Config, findings: &mut Findings) {
    let asked = handoff::demands_tls(&config.backend, config.hostname.as_str());
    if let Ok(Ok(true)) = tokio::time::timeout(PATIENCE, asked).await {
        findings.problem(
            format!("TLS at {}", config.backend.address),
            "the MTA demands TLS of what is handed to it, so that mail is put off with 451",
            "switch that off for this door alone (Postfix, in master.cf: -o smtpd_tls_security_level=none): TLS ends in \
             the daemon, and the way from there to the MTA is its own",
        );
    }
}

/// Whether the MTA offers TLS where clients reach it without the daemon.
async fn direct(config: &Config, findings: &mut Findings) {
    let mut ports: Vec<_> = config.listen.addresses.iter().map(std::net::SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        // From loopback nobody is steered.
        let host = Ipv4Addr::LOCALHOST.to_string();
        let door = Backend {
            address: BackendAddress::Tcp { host, port },
            handoff: HandoffMethod::None,
            ..config.backend.clone()
        };
        let check = format!("TLS at port {port}");
        match offers_tls(&door, config).await {
            Some(true) => findings.ok(check, "the MTA offers it, too, to clients that it serves directly"),
            Some(false) => {
                let found = "the MTA offers none to clients that it serves directly: permits, and those with a pass";
                findings.warning(check, found, MTA_CERTIFICATE);
            }
            None => {}
        }
    }
}

async fn transparent(config: &Config, findings: &mut Findings) {
    let check = "TLS";
    match offers_tls(&config.backend, config).await {
        Some(true) => findings.ok(check, "the MTA's own, from STARTTLS on"),
        Some(false) => findings.warning(
            check,
            "nobody offers STARTTLS: mail comes in plain text",
            format!("set tls.certificate and tls.key, or {MTA_CERTIFICATE}"),
        ),
        None => {}
    }
}

/// `None`: it does not say.
async fn offers_tls(door: &Backend, config: &Config) -> Option<bool> {
    let learned = tokio::time::timeout(PATIENCE, handoff::learn(door, config.hostname.as_str())).await;
    Some(learned.ok()?.ok()?.features.offers("STARTTLS"))
}
