//! `screener test`: every DNS list asked about an address, now. Changes nothing, and needs no daemon.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::Form;
use super::{Answer, output};
use crate::config::{Config, DnsblTest};
use crate::dnsbl::{self, Asked, Single};

#[derive(Debug, Args)]
pub(super) struct Test {
    /// The host's address
    address: IpAddr,
    /// The configuration; without it /etc/screener/screener.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

#[derive(Serialize)]
struct Tested {
    address: IpAddr,
    score: i32,
    threshold: i32,
    allow_threshold: Option<i32>,
    verdict: &'static str,
    lists: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    list: String,
    level: &'static str,
    said: &'static str,
    codes: Vec<std::net::Ipv4Addr>,
    weight: i32,
    counts: bool,
    milliseconds: f64,
    ttl_seconds: Option<u64>,
    text: Option<String>,
    url: Option<String>,
    wrong: Option<String>,
}

impl Test {
    /// No if the address would fail.
    pub(super) async fn carry_out(self) -> anyhow::Result<Answer> {
        let config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::load_default()?,
        };
        let dnsbl = &config.tests.dnsbl;
        anyhow::ensure!(!dnsbl.lists.is_empty(), "there is no [[tests.dnsbl.list]] to ask");
        let asked = dnsbl::ask_once(dnsbl, self.address).await?;
        let verdict = verdict(dnsbl, &asked);
        let tested = Tested {
            address: self.address.to_canonical(),
            score: asked.score,
            threshold: dnsbl.threshold,
            allow_threshold: dnsbl.allow_threshold,
            verdict,
            lists: asked.lists.into_iter().map(row).collect(),
        };
        if self.form.json {
            output::json(&tested)?;
        } else {
            show(&tested)?;
        }
        Ok(if verdict == "fails" { Answer::No } else { Answer::Yes })
    }
}

fn verdict(dnsbl: &DnsblTest, asked: &Single) -> &'static str {
    if asked.score >= dnsbl.threshold {
        "fails"
    } else if dnsbl.allow_threshold.is_some_and(|allow| asked.score <= allow) {
        "allowed"
    } else {
        "passes"
    }
}

fn row(asked: Asked) -> Row {
    Row {
        list: asked.list,
        level: asked.level.name(),
        said: asked.said,
        codes: asked.codes,
        weight: asked.weight,
        counts: asked.counts,
        milliseconds: asked.took.as_secs_f64() * 1e3,
        ttl_seconds: asked.ttl.map(|ttl| ttl.as_secs()),
        text: asked.text,
        url: asked.url,
        wrong: asked.wrong,
    }
}

fn show(tested: &Tested) -> anyhow::Result<()> {
    output::rows(
        ["list", "says", "codes", "weight", "time", "ttl", "more"],
        tested.lists.iter().map(|list| {
            let codes: Vec<_> = list.codes.iter().map(ToString::to_string).collect();
            let weight = match (list.weight, list.counts) {
                (0, _) => "-".to_owned(),
                (weight, true) => format!("{weight:+}"),
                (weight, false) => format!("({weight:+})"),
            };
            [
                list.list.clone(),
                list.said.replace('_', " "),
                if codes.is_empty() { "-".to_owned() } else { codes.join(" ") },
                weight,
                format!("{:.1} ms", list.milliseconds),
                list.ttl_seconds.map_or_else(|| "-".to_owned(), |ttl| format!("{ttl} s")),
                output::or_dash(list.wrong.as_ref().or(list.text.as_ref()).or(list.url.as_ref())),
            ]
        }),
    )?;
    let outcome = match tested.verdict {
        "fails" => "it would fail".to_owned(),
        "allowed" => format!(
            "it would be spared the other tests (at {} or less)",
            tested.allow_threshold.map_or_else(String::new, |allow| allow.to_string())
        ),
        _ => "it would pass".to_owned(),
    };
    output::line(format!("{}: score {} at threshold {}: {outcome}", tested.address, tested.score, tested.threshold))?;
    Ok(())
}
