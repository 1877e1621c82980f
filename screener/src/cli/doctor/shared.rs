//! The shared store: does it answer, does it let us in, does it mean the same by a client, and does it keep what it is told.

use super::finding::Findings;
use crate::clock::Now;
use crate::config::Config;
use crate::share::{Error, Finder, Settings};

const CHECK: &str = "shared store";

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    let Some(store) = config.ledger.shared.clone() else { return };
    let name = store.to_string();
    let finder = Finder::new(Settings { store, shared: config.shared.clone() });
    if let Err(error) = ask(config, &finder, &name, findings).await {
        let advice = if error.needs_somebody() {
            "nothing is shared until that is mended; each host goes on by itself"
        } else {
            "look at the server and at what lies between; each host goes on by itself meanwhile, and they merge when it is back"
        };
        findings.problem(CHECK, format!("{name}: {error}"), advice);
    }
}

async fn ask(config: &Config, finder: &Finder, name: &str, findings: &mut Findings) -> Result<(), Error> {
    let (mut link, _) = finder.connect().await?;
    link.content(config.ledger.ipv6_prefix.bits()).await?;
    let report = link.report().await;
    findings.ok(CHECK, format!("{name}: {} answers as {}", report.version, config.shared.name()));
    if report.policy.starts_with("allkeys") {
        let found = format!("maxmemory-policy is {}: passes go when it is full", report.policy);
        findings.warning(CHECK, found, "set it to noeviction or volatile-ttl, or give Screener a store of its own");
    }
    let (theirs, ours) = (link.clock().await?, Now::read().unix);
    let apart = theirs.since(ours).max(ours.since(theirs)).as_secs();
    if apart > 5 {
        let found = format!("its clock and this host's are {apart} s apart");
        findings.warning(CHECK, found, "set both by NTP: expiries are moments");
    }
    Ok(())
}
