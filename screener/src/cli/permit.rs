//! `screener permit list|add|del`

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::output::Form;
use super::{Answer, output, prefix};
use crate::control::Client;
use crate::control::api::{self, PermitRequest};

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

#[derive(Debug, Args)]
pub(super) struct Del {
    /// The prefix
    #[arg(value_parser = prefix::parse)]
    prefix: IpNet,
}

impl Permit {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::List(form) => {
                let entries: Vec<api::Static> = client.get("/v1/permits").await?;
                if form.json {
                    output::json(&entries)?;
                } else {
                    super::deny::show(entries)?;
                }
            }
            Self::Add(add) => {
                let request = PermitRequest { comment: add.comment, force: add.force };
                let entry: api::Static = client.put(&format!("/v1/permits/{}", add.prefix), &request).await?;
                output::line(format!("{}: {}", entry.prefix, entry.action))?;
            }
            Self::Del(del) => {
                client.delete(&format!("/v1/permits/{}", del.prefix)).await?;
                output::line(format!("{}: removed", del.prefix))?;
            }
        }
        Ok(Answer::Yes)
    }
}
