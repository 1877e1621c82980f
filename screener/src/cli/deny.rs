//! `screener deny list|add|del|import|export`

mod list;
mod offenders;

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::entries::Entries;
use super::{Answer, prefix};
use crate::control::Client;
use crate::control::api::DenyRequest;
use crate::feed::DenyAction;

const ENTRIES: Entries = Entries("/v1/denies");

#[derive(Debug, Subcommand)]
pub(super) enum Deny {
    /// Every denied prefix, where it comes from, and how often it was met; or those who keep failing
    List(offenders::List),
    /// Deny a prefix, or change what is done with it
    Add(Add),
    /// Remove an entry made by `deny add`, or take a client off the offence ladder
    Del(offenders::Del),
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

impl Deny {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::List(list) => return list.carry_out(client).await,
            Self::Add(add) => {
                let request = DenyRequest { action: add.action, comment: add.comment, force: add.force };
                ENTRIES.put(client, add.prefix, &request).await?;
            }
            Self::Del(del) => return del.carry_out(client).await,
            Self::Import(import) => return import.carry_out(client).await,
            Self::Export(export) => return export.carry_out(client).await,
        }
        Ok(Answer::Yes)
    }
}
