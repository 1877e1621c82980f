//! `screener explain`: the manager's question.

use std::net::IpAddr;

use clap::Args;

use super::Answer;
use super::output::{self, Form};
use crate::control::Client;
use crate::control::api_explain::{Contact, Dropped, Explanation, Refused};

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The host's address
    address: IpAddr,
    #[command(flatten)]
    form: Form,
}

impl Explain {
    /// No if nothing is known of the client.
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let explanation: Explanation = client.get(&format!("/v1/explain/{}", self.address)).await?;
        if self.form.json {
            output::json(&explanation)?;
        } else {
            show(self.address, &explanation)?;
        }
        Ok(if explanation.is_known() { Answer::Yes } else { Answer::No })
    }
}

fn show(asked: IpAddr, explanation: &Explanation) -> anyhow::Result<()> {
    let network = explanation.network;
    // One of many addresses that are one client.
    let of =
        if network.prefix_len() < network.max_prefix_len() { format!(" (client {network})") } else { String::new() };
    output::line(format!("{}{of}: {}", asked.to_canonical(), explanation.summary))?;
    if let Some(pass) = &explanation.pass {
        let comment = pass.comment.as_ref().map_or_else(String::new, |comment| format!(": {comment}"));
        let used = explanation
            .last_used
            .as_ref()
            .map_or_else(|| ", not used since".to_owned(), |at| format!(", last used {at}"));
        output::line(format!("pass ({}, since {}{used}){comment}", pass.origin, pass.created))?;
        for (test, until) in &pass.expires {
            output::line(format!("  {test}: {}", until.as_ref().map_or("never passed", |until| until)))?;
        }
    }
    if let Some(linked) = &explanation.linked {
        output::line(format!("linked with {linked}"))?;
    }
    if let (Some(first), Some(last)) = (&explanation.first_seen, &explanation.last_seen) {
        let now = if explanation.connected > 0 { format!(", {} now", explanation.connected) } else { String::new() };
        let (sessions, handed_off) = (explanation.sessions, explanation.handed_off);
        output::line(format!("seen from {first} to {last}, {sessions} sessions{now}, {handed_off} handed to the MTA"))?;
    } else if explanation.connected > 0 {
        output::line(format!("{} sessions now", explanation.connected))?;
    }
    if let Some(at) = &explanation.let_through {
        output::line(format!("last let through by the kernel at {at}"))?;
    }
    section("calls itself", explanation.names.iter().rev().map(|name| format!("{}{}", name.name, times(name.times))))?;
    section("came to our addresses in this order", explanation.contacts.iter().map(came))?;
    section("refused", explanation.refusals.iter().map(why))?;
    section("kept out in the kernel", explanation.drops.iter().map(kept_out))?;
    section(
        "events",
        explanation
            .events
            .iter()
            .map(|event| format!("{} {}{} {}", event.at, event.what, times(event.times), event.detail)),
    )
}

/// A head, and a line each, if there are any.
fn section(head: &str, lines: impl Iterator<Item = String>) -> anyhow::Result<()> {
    for (position, line) in lines.enumerate() {
        if position == 0 {
            output::line(head)?;
        }
        output::line(format!("  {}", line.trim_end()))?;
    }
    Ok(())
}

fn times(times: u64) -> String {
    if times > 1 { format!(" x{times}") } else { String::new() }
}

fn came(contact: &Contact) -> String {
    let Contact { server, outcome, since, at, times: many, .. } = contact;
    let until = if *many > 1 { format!(" to {at}") } else { String::new() };
    let no_pass = if contact.earns_pass { "" } else { " (no pass is earned there)" };
    format!("{since}{until} {server}{no_pass} {outcome}{}", times(*many))
}

fn why(refused: &Refused) -> String {
    let evidence: Vec<_> = refused
        .evidence
        .iter()
        .map(|finding| format!("{} {:+} ({})", finding.test, finding.weight, finding.reason))
        .collect();
    let first = if refused.times > 1 { format!(", first at {}", refused.since) } else { String::new() };
    let name = refused.name.as_ref().map_or_else(String::new, |name| format!(", as {name}"));
    let sender = refused.sender.as_ref().map_or_else(String::new, |sender| format!(", from <{sender}>"));
    let recipients =
        if refused.recipients > 0 { format!(" to {} recipients", refused.recipients) } else { String::new() };
    let reply = if refused.reply.is_empty() { String::new() } else { format!(": {}", refused.reply) };
    let evidence = evidence.join("; ");
    format!("{}{}{first} {evidence}{name}{sender}{recipients}{reply}", refused.at, times(refused.times))
}

fn kept_out(dropped: &Dropped) -> String {
    let Dropped { prefix, source, since, at, packets } = dropped;
    let prefix = prefix.map_or_else(|| "an entry that has gone since".to_owned(), |prefix| prefix.to_string());
    let source = if source.is_empty() { String::new() } else { format!(" from {source}") };
    format!("{since} to {at} by {prefix}{source}, about {packets} SYNs")
}
