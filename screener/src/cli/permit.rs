//! `screener permit list|add|del`

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::entries::{Del, Entries};
use super::output::Form;
use super::{Answer, prefix};
use crate::control::Client;
use crate::control::api::PermitRequest;

const ENTRIES: Entries = Entries("/v1/permits");

#[derive(Debug, Subcommand)]
pub(super) enum Permit {
    /// Every permitted prefix, and where it comes from
    List(Form),
    /// Permit a prefix: never screened, whatever denies it; a deny made by command on the same prefix goes
    Add(Add),
    /// Remove an entry made by `permit add`
    Del(Del),
}

#[derive(Debug, Args)]
pub(super) struct Add {
    /// The prefix, or a single address
    #[arg(value_parser = prefix::parse)]
    prefix: IpNet,
    /// Why
    #[arg(long)]
    comment: Option<String>,
    /// Even if it is very wide
    #[arg(long)]
    force: bool,
}

impl Permit {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::List(form) => ENTRIES.show(client, form).await?,
            Self::Add(add) => {
                let request = PermitRequest { comment: add.comment, force: add.force };
                ENTRIES.put(client, add.prefix, &request).await?;
            }
            Self::Del(del) => ENTRIES.remove(client, del).await?,
        }
        Ok(Answer::Yes)
    }
}
