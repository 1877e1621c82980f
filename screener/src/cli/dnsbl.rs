//! `screener dnsbl`: the DNS lists as the daemon sees them.

use clap::{Args, Subcommand};

use super::output::Form;
use super::{Answer, output};
use crate::control::api_dnsbl::{List, Overlap};
use crate::control::{Client, api_dnsbl};

#[derive(Debug, Subcommand)]
pub(super) enum Dnsbl {
    /// State, rate, hits, errors, times, what each list alone contributed, and what lists have in common
    Status(Status),
}

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    form: Form,
}

impl Dnsbl {
    /// No if a list is parked.
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let Self::Status(Status { form }) = self;
        let dnsbl: api_dnsbl::Dnsbl = client.get("/v1/dnsbl").await?;
        if form.json {
            output::json(&dnsbl)?;
        } else {
            show(&dnsbl)?;
        }
        let parked = dnsbl.lists.iter().any(|list| list.state == "parked");
        Ok(if parked { Answer::No } else { Answer::Yes })
    }
}

/// Questions and their answers first, of which the cache spares some; from `listed` on it is clients.
const HEADS: [&str; 15] = [
    "list", "state", "q/s", "asked", "cached", "hits", "hit rate", "errors", "unknown", "p50", "p90", "p99", "listed",
    "alone", "decisive",
];

fn row(list: &List) -> [String; 15] {
    let state = if list.level == "count" { format!("{} (counted)", list.state) } else { list.state.clone() };
    [
        list.list.clone(),
        state,
        format!("{:.1}", list.rate),
        list.questions.to_string(),
        list.cached.to_string(),
        list.hits.to_string(),
        format!("{:.1} %", list.hit_rate * 100.0),
        list.errors.to_string(),
        list.unknown.to_string(),
        output::ms(list.p50),
        output::ms(list.p90),
        output::ms(list.p99),
        list.listed.to_string(),
        list.alone.to_string(),
        list.decisive.to_string(),
    ]
}

fn show(dnsbl: &api_dnsbl::Dnsbl) -> anyhow::Result<()> {
    if dnsbl.lists.is_empty() {
        output::line("no DNS list is configured")?;
        return Ok(());
    }
    output::rows(HEADS, dnsbl.lists.iter().map(row))?;
    for list in &dnsbl.lists {
        if let (Some(why), Some(since), Some(again)) = (&list.why, list.parked_seconds, list.again_in_seconds) {
            output::line(format!("{} is parked for {since} s, tested again in {again} s: {why}", list.list))?;
        }
        if list.ipv4_only {
            output::line(format!("{} knows no IPv6 and is asked about IPv4 clients only", list.list))?;
        }
    }
    if dnsbl.resolver_is_silent {
        output::line("no list answers at all: is the resolver alive?")?;
    }
    for sick in &dnsbl.sick_resolvers {
        output::line(sick)?;
    }
    output::line(format!(
        "clients: {}, of which {} reached the threshold; answers kept: {} ({} had to go early)",
        dnsbl.clients, dnsbl.failed, dnsbl.cached_answers, dnsbl.evicted_answers
    ))?;
    for Overlap { first, second, clients } in &dnsbl.overlap {
        output::line(format!("both {first} and {second}: {clients} clients"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_list_contributed_stands_beside_what_it_listed() {
        let list = List {
            list: "zen.test".to_owned(),
            state: "asked".to_owned(),
            // Of three clients two were known.
            questions: 1,
            cached: 2,
            hits: 1,
            listed: 3,
            alone: 2,
            decisive: 1,
            p50: Some(0.0005),
            p90: Some(0.016),
            ..List::default()
        };
        let row = row(&list);
        let of = |head: &str| row[HEADS.iter().position(|it| *it == head).expect("a column")].as_str();
        assert_eq!(["hits", "listed", "alone", "decisive"].map(of), ["1", "3", "2", "1"]);
        assert_eq!(["p50", "p90", "p99"].map(of), ["0.5 ms", "16 ms", "-"]);
    }
}
