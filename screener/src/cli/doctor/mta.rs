//! The MTA: does somebody listen where clients come, and does the MTA answer where we hand them over.

use std::time::Duration;

use super::finding::Findings;
use super::ports::{Listener, listeners};
use crate::config::{Config, HandoffMethod, Mode};
use crate::handoff::{self, HandoffError};

/// How long the MTA may take. Postfix waits 5 s for a PROXY header that does not come.
const PATIENCE: Duration = Duration::from_secs(15);

const MISSING: &str = "in steer mode the port is the MTA's: start it, with this address in its configuration (Postfix: \
                       inet_interfaces, inet_protocols), or take the address out of listen.addresses";

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    let mut ports: Vec<_> = config.listen.addresses.iter().map(std::net::SocketAddr::port).collect();
    ports.sort_unstable();
    ports.dedup();
    let found = listeners(&ports);
    for address in &config.listen.addresses {
        let covering: Vec<_> = found.iter().filter(|listener| listener.covers(*address)).collect();
        let check = format!("port {}, {}", address.port(), family(address));
        if covering.is_empty() && !found.is_empty() && config.listen.mode != Mode::Front {
            // A host without the other family, perhaps.
            findings.warning(check, "nobody listens here, elsewhere somebody does", MISSING);
        } else {
            port(config.listen.mode, &check, &covering, findings);
        }
    }
    backend(config, findings).await;
}

fn family(address: &std::net::SocketAddr) -> String {
    match (address.ip().is_unspecified(), address.is_ipv4()) {
        (true, true) => "IPv4".to_owned(),
        (true, false) => "IPv6".to_owned(),
        (false, _) => address.ip().to_string(),
    }
}

/// Whether the one listens there who should.
fn port(mode: Mode, check: &str, covering: &[&Listener], findings: &mut Findings) {
    let shown: Vec<_> = covering.iter().map(|listener| listener.shown()).collect();
    let ours = covering.iter().any(|listener| listener.is_ours());
    match (covering.is_empty(), ours, mode) {
        (true, _, Mode::Front) => findings.ok(check, "free for the daemon, which does not run"),
        (true, _, _) => findings.problem(check, "nobody listens, so that mail stops where the daemon does", MISSING),
        (false, true, _) => findings.ok(check, format!("{}: front mode", shown.join(", "))),
        (false, false, Mode::Front) => findings.problem(
            check,
            format!("{} has the port that front mode needs", shown.join(", ")),
            "move the MTA to backend.address, or set listen.mode = \"auto\"",
        ),
        (false, false, _) => findings.ok(check, format!("{}, also without a daemon", shown.join(", "))),
    }
}

/// Speaks to the MTA as a handoff does.
async fn backend(config: &Config, findings: &mut Findings) {
    let check = format!("MTA at {}", config.backend.address);
    let way = config.backend.handoff.name();
    let hostname = config.hostname.to_string();
    let learned = tokio::time::timeout(PATIENCE, handoff::learn(&config.backend, &hostname)).await;
    let expects = expects_proxy(config.backend.handoff);
    match learned {
        Err(_) => findings.problem(
            check,
            format!("does not answer within {} s behind {way}", PATIENCE.as_secs()),
            format!("look into the MTA's log{expects}"),
        ),
        Ok(Ok(learned)) => findings.ok(check, format!("answers behind {way}: {}", learned.banner)),
        Ok(Err(error)) => findings.problem(check, error.to_string(), advice(&error, expects)),
    }
}

fn expects_proxy(method: HandoffMethod) -> &'static str {
    match method {
        HandoffMethod::ProxyV1 | HandoffMethod::ProxyV2 => {
            ", and let it expect a PROXY header (Postfix: smtpd_upstream_proxy_protocol=haproxy)"
        }
        HandoffMethod::PostfixPass | HandoffMethod::None => "",
    }
}

fn advice(error: &HandoffError, expects: &str) -> String {
    match error {
        HandoffError::Away { .. } => format!("start the MTA, or correct backend.address{expects}"),
        HandoffError::Refused { .. } | HandoffError::DemandsTls { .. } => format!("look into the MTA's log{expects}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(mode: Mode, covering: &[&Listener]) -> String {
        let mut findings = Findings::default();
        port(mode, "port 25, IPv4", covering, &mut findings);
        findings.into_list().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_empty_port_is_a_problem_only_where_the_mta_should_have_it() {
        assert!(state(Mode::Front, &[]).starts_with("ok "));
        for mode in [Mode::Auto, Mode::Steer] {
            assert!(state(mode, &[]).starts_with("problem  port 25, IPv4: nobody listens"), "{mode}");
        }
    }
}
