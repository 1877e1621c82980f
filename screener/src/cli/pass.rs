//! `screener pass list|add|del`

use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::output::Form;
use super::{Answer, output};
use crate::control::Client;
use crate::control::api::{self, PageRequest, PassRequest};

#[derive(Debug, Subcommand)]
pub(super) enum Pass {
    /// Every client with a pass, in the order of the addresses
    List(Form),
    /// Give a client a pass for every test
    Add(Add),
    /// Take a client's pass away: it is screened when it comes again
    Del(Del),
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The client's address
    address: IpAddr,
    /// How long, e.g. 30d
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30d")]
    ttl: Duration,
    /// Why
    #[arg(long)]
    comment: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Del {
    /// The client's address
    address: IpAddr,
}

impl Pass {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::List(form) if form.json => list_json(client).await?,
            Self::List(_) => list_lines(client).await?,
            Self::Add(add) => {
                let request = PassRequest { ttl_seconds: Some(add.ttl.as_secs()), comment: add.comment };
                let pass: api::Pass = client.put(&format!("/v1/passes/{}", add.address), &request).await?;
                output::line(format!("{} has a pass until {}", pass.client, until(&pass)))?;
            }
            Self::Del(del) => {
                client.delete(&format!("/v1/passes/{}", del.address)).await?;
                output::line(format!("{} has no pass any more", del.address))?;
            }
        }
        Ok(Answer::Yes)
    }
}

/// One array, written as the pages come.
async fn list_json(client: &Client) -> anyhow::Result<()> {
    let mut pages = Pages::new(client);
    let mut separator = "[";
    while let Some(page) = pages.next().await? {
        let mut out = std::io::stdout().lock();
        for pass in page {
            write!(out, "{separator}\n  {}", serde_json::to_string(&pass)?)?;
            separator = ",";
        }
    }
    output::line(if separator == "[" { "[]" } else { "\n]" })?;
    Ok(())
}

async fn list_lines(client: &Client) -> anyhow::Result<()> {
    let mut pages = Pages::new(client);
    while let Some(page) = pages.next().await? {
        output::rows(
            ["client", "until", "origin", "since", "comment"],
            page.into_iter().map(|pass| {
                let until = until(&pass);
                [pass.client, until, pass.origin, pass.created, pass.comment.unwrap_or_default()]
            }),
        )?;
    }
    Ok(())
}

/// The earliest expiry: until then the client is left alone.
fn until(pass: &api::Pass) -> String {
    if pass.expires.values().any(Option::is_none) {
        return "-".to_owned();
    }
    output::or_dash(pass.expires.values().flatten().min())
}

struct Pages<'a> {
    client: &'a Client,
    after: Option<IpAddr>,
    done: bool,
}

impl<'a> Pages<'a> {
    fn new(client: &'a Client) -> Self {
        Self { client, after: None, done: false }
    }

    async fn next(&mut self) -> anyhow::Result<Option<Vec<api::Pass>>> {
        if self.done {
            return Ok(None);
        }
        let after = self.after.map_or_else(String::new, |after| format!("&after={after}"));
        let path = format!("/v1/passes?most={}{after}", PageRequest::MOST);
        let page: Vec<api::Pass> = self.client.get(&path).await?;
        self.done = page.len() < PageRequest::MOST;
        if let Some(last) = page.last() {
            self.after = Some(last.client.parse().context("the daemon names a client that is no address")?);
        }
        Ok((!page.is_empty()).then_some(page))
    }
}
