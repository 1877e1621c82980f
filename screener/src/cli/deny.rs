//! `screener deny list|add|del|import|export`

mod list;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::output::Form;
use super::{Answer, output, prefix};
use crate::control::Client;
use crate::control::api::{self, DenyRequest};
use crate::feed::DenyAction;

#[derive(Debug, Subcommand)]
pub(super) enum Deny {
    /// Every denied prefix, where it comes from, and how often it was met
    List(Form),
    /// Deny a prefix, or change what is done with it
    Add(Add),
    /// Remove an entry made by `deny add`
    Del(Del),
    /// Deny every prefix of a list, or none
    Import(list::Import),
    /// The deny entries as a list
    Export(list::Export),
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The prefix, or a single address
    #[arg(value_parser = prefix::parse)]
    prefix: IpNet,
    /// drop (no answer), reject (refused at once), tag (let in, screened harder) or count (dry run)
    #[arg(long, default_value = "drop")]
    action: DenyAction,
    /// Why
    #[arg(long)]
    comment: Option<String>,
    /// Even if it is very wide, or covers own addresses, a gateway or what is permitted (permits still win)
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(super) struct Del {
    /// The prefix
    #[arg(value_parser = prefix::parse)]
    prefix: IpNet,
}

impl Deny {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::List(form) => {
                let entries: Vec<api::Static> = client.get("/v1/denies").await?;
                if form.json {
                    output::json(&entries)?;
                } else {
                    show(entries)?;
                }
            }
            Self::Add(add) => {
                let request = DenyRequest { action: add.action, comment: add.comment, force: add.force };
                let entry: api::Static = client.put(&format!("/v1/denies/{}", add.prefix), &request).await?;
                output::line(format!("{}: {}", entry.prefix, entry.action))?;
            }
            Self::Del(del) => {
                client.delete(&format!("/v1/denies/{}", del.prefix)).await?;
                output::line(format!("{}: removed", del.prefix))?;
            }
            Self::Import(import) => return import.carry_out(client).await,
            Self::Export(export) => return export.carry_out(client).await,
        }
        Ok(Answer::Yes)
    }
}

/// Shows permits or denies.
pub(super) fn show(entries: Vec<api::Static>) -> std::io::Result<()> {
    output::rows(
        ["prefix", "action", "origin", "added", "hits", "last seen", "comment"],
        entries.into_iter().map(|entry| {
            let last_seen = output::or_dash(entry.last_seen.as_ref());
            let hits = entry.hits.to_string();
            [entry.prefix, entry.action, entry.origin, entry.added, hits, last_seen, entry.comment.unwrap_or_default()]
        }),
    )
}
