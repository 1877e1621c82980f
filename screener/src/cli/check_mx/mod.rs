//! `screener check-mx`: whether the backup-MX trick works for a domain here, and what senders will do.
//!
//! Asks the DNS, the configuration and this host's interfaces; needs no daemon and changes nothing.

mod walk;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use super::output::Form;
use super::{Answer, output};
use crate::config::{AfterTests, Config};
use crate::dns::{Mx, Resolver, is_domain};
use crate::host;

use walk::{Families, Outcome, Sender, Server, outcome};

#[derive(Debug, Args)]
pub(super) struct CheckMx {
    /// The domain that mail is addressed to
    domain: String,
    /// An address of this host that its interfaces do not have: behind address translation (may be repeated)
    #[arg(long, value_name = "ADDRESS")]
    own: Vec<IpAddr>,
    /// The configuration; without it /etc/screener/screener.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// The answer, as JSON has it.
#[derive(Debug, Serialize)]
struct Checked {
    domain: String,
    /// `not_needed`, `works`, `partly` or `fails`.
    verdict: &'static str,
    summary: String,
    servers: Vec<Server>,
    senders: Vec<Expected>,
    findings: Vec<String>,
}

/// What is to be expected of one kind of sender.
#[derive(Debug, Serialize)]
struct Expected {
    sender: Sender,
    families: Families,
    outcome: Outcome,
    /// Only if the sender's EHLO name has both its addresses, or a pool both of them.
    if_linked: bool,
}

impl CheckMx {
    /// No if some sender will have to wait.
    pub(super) async fn carry_out(self) -> anyhow::Result<Answer> {
        let config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::load_default()?,
        };
        if !is_domain(&self.domain) {
            bail!("{:?} is no domain: write what stands behind the @, like example.com", self.domain);
        }
        let domain = self.domain.trim_end_matches('.').to_ascii_lowercase();
        let resolver = Resolver::new(&config.tests.dnsbl.resolvers)?;
        let own = own(&config, &self.own)?;
        let (servers, findings) = servers(&resolver, &domain, &config, &own).await?;
        let checked = judge(domain, servers, findings, &config);
        if self.form.json {
            output::json(&checked)?;
        } else {
            show(&checked, &config)?;
        }
        Ok(if matches!(checked.verdict, "not_needed" | "works") { Answer::Yes } else { Answer::No })
    }
}

/// The addresses of this host where clients connect.
fn own(config: &Config, more: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
    let mut own = host::own_addresses().context("the host's own addresses cannot be read")?;
    own.extend(more.iter().map(IpAddr::to_canonical));
    let listens = |address: &IpAddr| {
        config.listen.addresses.iter().any(|listen| {
            let any = listen.ip().is_unspecified() && (listen.is_ipv6() || address.is_ipv4());
            any || listen.ip() == *address
        })
    };
    own.retain(|address| !address.is_loopback() && listens(address));
    Ok(own)
}

/// The domain's mail exchangers with their addresses, and what is to be said of the records themselves.
async fn servers(
    resolver: &Resolver,
    domain: &str,
    config: &Config,
    own: &[IpAddr],
) -> anyhow::Result<(Vec<Server>, Vec<String>)> {
    let mut findings = Vec::new();
    let mut exchangers = resolver.mx(domain).await?.records;
    if exchangers.is_empty() {
        findings.push(format!("{domain} has no MX record: senders take its own address (RFC 5321 section 5.1)"));
        exchangers.push(Mx { preference: 0, host: domain.to_owned() });
    }
    let mut servers = Vec::new();
    for Mx { preference, host } in exchangers {
        if host.is_empty() {
            findings.push(format!("{domain} says that it takes no mail (a null MX, RFC 7505)"));
            continue;
        }
        let found = resolver.addresses(&host).await?.records;
        if found.is_empty() {
            findings.push(format!("{host} has no address: every sender wastes its time on it"));
        }
        for address in found {
            let ours = own.contains(&address);
            let port = config.listen.addresses.first().map_or(25, std::net::SocketAddr::port);
            let earns = ours && config.listen.earns_pass((address, port).into());
            servers.push(Server { preference, host: host.clone(), address, ours, earns });
        }
    }
    Ok((servers, findings))
}

fn judge(domain: String, servers: Vec<Server>, mut findings: Vec<String>, config: &Config) -> Checked {
    let defers = config.backend.after_tests == AfterTests::Defer;
    let mut senders = Vec::new();
    for sender in Sender::ALL {
        for families in Families::ALL {
            let plain = outcome(&servers, sender, families, false);
            let linked = outcome(&servers, sender, families, config.link.is_some());
            if plain != Outcome::Unreachable || families == Families::Both {
                senders.push(Expected { sender, families, outcome: linked, if_linked: plain != linked });
            }
        }
    }
    let ours = servers.iter().filter(|server| server.ours).count();
    let at_once = senders.iter().filter(|expected| expected.outcome == Outcome::AtOnce).count();
    let (verdict, summary) = if servers.is_empty() {
        ("fails", format!("no sender finds a way to {domain}"))
    } else if ours == 0 {
        let why = "behind address translation, name the public ones with --own";
        ("fails", format!("none of the addresses of {domain} is this host's; {why}"))
    } else if !defers {
        let why = "backend.after_tests is \"relay\": a client that passes goes on in the same session";
        ("not_needed", format!("{why}, no sender hears 450 for being new, and no backup MX is needed for that"))
    } else if at_once == senders.len() {
        ("works", "the backup-MX trick works: a new sender is deferred once and served in the same run".to_owned())
    } else if at_once > 0 {
        ("partly", "the backup-MX trick works for some senders, others wait in their queues".to_owned())
    } else {
        ("fails", "the backup-MX trick does not work: every new sender waits in its queue".to_owned())
    };
    if defers && ours > 0 {
        findings.extend(advice(&servers, &senders, config));
    } else if ours > 0 && servers.iter().any(|server| server.ours && !server.earns) {
        findings.push(
            "on the addresses that are not in listen.pass_on clients are tested and served, and earn no pass"
                .to_owned(),
        );
    }
    Checked { domain, verdict, summary, servers, senders, findings }
}

/// What stands in the way under `defer`, and what to do about it.
fn advice(servers: &[Server], senders: &[Expected], config: &Config) -> Vec<String> {
    let mut advice = Vec::new();
    let ours = || servers.iter().filter(|server| server.ours);
    for server in servers.iter().filter(|server| !server.ours) {
        advice.push(format!(
            "{} ({}) is not this host's: a pass that was earned here counts there only if it shares this ledger",
            server.address, server.host
        ));
    }
    let first = ours().filter(|server| server.earns).map(|server| server.preference).min();
    for server in ours().filter(|server| !server.earns) {
        if first.is_none_or(|first| server.preference <= first) {
            let Server { address, host, preference, .. } = server;
            advice.push(format!(
                "{address} ({host}, preference {preference}) earns no pass and does not come behind one that does: give \
                 it a higher preference, or put it into listen.pass_on"
            ));
        }
    }
    let mut families = BTreeMap::new();
    for server in ours() {
        families.entry(server.address.is_ipv6()).or_insert_with(Vec::new).push(server);
    }
    for (ipv6, servers) in families {
        if let [only] = servers[..] {
            let family = if ipv6 { "IPv6" } else { "IPv4" };
            let Server { address, host, .. } = only;
            advice.push(format!(
                "{address} ({host}) is the only {family} address: a sender with {family} alone has nowhere to come again \
                 in the same run; give a second one to a backup MX"
            ));
        }
    }
    for address in &config.listen.pass_on {
        if !servers.iter().any(|server| server.address == address.ip) {
            advice.push(format!("{} is in listen.pass_on, but no MX of the domain leads there", address.ip));
        }
    }
    let both = |expected: &&Expected| expected.families == Families::Both && expected.outcome != Outcome::AtOnce;
    if config.link.is_none() && senders.iter().find(both).is_some() {
        advice.push("link.enable is false: with it a sender's IPv4 and IPv6 addresses are known as one".to_owned());
    }
    advice.push(
        "services that come from another address each time and try no other MX (Gmail, Microsoft 365) gain nothing from \
         this: give them a [[pool]], permit them, or set after_tests = \"relay\""
            .to_owned(),
    );
    advice
}

fn show(checked: &Checked, config: &Config) -> anyhow::Result<()> {
    output::line(format!("{}: {}", checked.domain, checked.summary))?;
    output::rows(
        ["MX", "host", "address", "this host", "a pass can be earned"],
        checked.servers.iter().map(|server| {
            let yes = |yes| if yes { "yes" } else { "no" }.to_owned();
            [
                server.preference.to_string(),
                server.host.clone(),
                server.address.to_string(),
                yes(server.ours),
                yes(server.earns),
            ]
        }),
    )?;
    if config.backend.after_tests == AfterTests::Defer {
        for expected in &checked.senders {
            output::line(sentence(expected))?;
        }
    }
    for finding in &checked.findings {
        output::line(format!("- {finding}"))?;
    }
    Ok(())
}

fn sentence(expected: &Expected) -> String {
    let who = format!("{} {}", expected.sender.name(), expected.families.name());
    let limit = match expected.sender {
        Sender::Postfix => "it makes 2 sessions for a mail",
        Sender::Exim => "it tries up to 5 addresses",
        Sender::Sendmail => "it tries one address of each MX host, and keeps the first session open",
    };
    let linked = if expected.if_linked { ", if its EHLO name has both its addresses" } else { "" };
    match expected.outcome {
        Outcome::AtOnce => format!("{who}: deferred once and served in the same run{linked} ({limit})"),
        Outcome::Sometimes => {
            format!(
                "{who}: served in the same run or deferred, as the order of equal addresses falls{linked} ({limit})"
            )
        }
        Outcome::Later => format!("{who}: deferred until its next try, for Postfix 5 minutes at least ({limit})"),
        Outcome::Unreachable => format!("{who}: reaches no address"),
    }
}
