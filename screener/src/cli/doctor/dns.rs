//! The DNS: are the resolvers such that lists can be asked through them, and are the lists alive.

use super::finding::Findings;
use crate::config::Config;
use crate::dnsbl::doctor::{Severity, examine};

const CHECK: &str = "DNS lists";

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    for found in examine(&config.tests.dnsbl).await {
        match found.severity {
            Severity::Good => findings.ok(CHECK, found.finding),
            // It is well as it is, and could be otherwise.
            Severity::Note => findings.ok(CHECK, format!("{}: {}", found.finding, found.remedy)),
            Severity::Warning => findings.warning(CHECK, found.finding, found.remedy),
            Severity::Problem => findings.problem(CHECK, found.finding, found.remedy),
        }
    }
}
