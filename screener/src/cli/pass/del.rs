//! `screener pass del`

use std::net::IpAddr;

use anyhow::{bail, ensure};
use clap::Args;
use ipnet::IpNet;

use super::super::progress::Progress;
use super::super::{Answer, output, prefix};
use super::pages::Pages;
use crate::control::api_pass::{DeleteRequest, Deleted, DeletedPage, ListRequest};
use crate::control::{Client, ClientError, query};

#[derive(Debug, Args)]
pub(in crate::cli) struct Del {
    /// The clients' addresses
    #[arg(required_unless_present = "prefix", value_name = "ADDRESS")]
    addresses: Vec<IpAddr>,
    /// Every client in this prefix
    #[arg(long, value_parser = prefix::parse, conflicts_with = "addresses")]
    prefix: Option<IpNet>,
    /// With --prefix: yes, all of them
    #[arg(long)]
    yes: bool,
}

impl Del {
    /// No if one of the clients had no pass.
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        if let Some(prefix) = self.prefix {
            return all_of(client, prefix, self.yes).await;
        }
        // clap lets go of a requirement that would conflict.
        ensure!(!self.yes, "--yes goes with --prefix: nothing was changed");
        let mut answer = Answer::Yes;
        for address in self.addresses {
            match client.delete_told::<Deleted>(&format!("/v1/passes/{address}")).await {
                Ok(Deleted { network, notes }) => {
                    let whole = network.prefix_len() != network.max_prefix_len();
                    let whole = if whole { format!(" (the client is all of {network})") } else { String::new() };
                    output::line(format!("{address} has no pass any more{whole}"))?;
                    for note in notes {
                        eprintln!("screener: note: {note}");
                    }
                }
                Err(ClientError::NotFound(why)) => {
                    eprintln!("screener: {why}");
                    answer = Answer::No;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(answer)
    }
}

async fn all_of(client: &Client, prefix: IpNet, yes: bool) -> anyhow::Result<Answer> {
    if !yes {
        let mut pages = Pages::new(client, ListRequest { prefix: Some(prefix), ..ListRequest::default() });
        let mut count = 0;
        while let Some(page) = pages.next().await? {
            count += page.passes.len();
        }
        if count == 0 {
            output::line(format!("no client in {prefix} has a pass"))?;
            return Ok(Answer::No);
        }
        bail!("{count} clients in {prefix} have a pass: to take all of them away, say --yes");
    }
    let (mut deleted, mut request) = (0, DeleteRequest { prefix, after: None });
    let progress = Progress::begin("taking passes away", 0);
    let notes = loop {
        let page: DeletedPage = client.delete_told(&format!("/v1/passes?{}", query(&request)?)).await?;
        deleted += page.deleted;
        request.after = page.next;
        if page.next.is_none() {
            break page.notes;
        }
    };
    drop(progress);
    match deleted {
        0 => output::line(format!("no client in {prefix} had a pass"))?,
        1 => output::line(format!("one client in {prefix} has no pass any more"))?,
        many => output::line(format!("{many} clients in {prefix} have no pass any more"))?,
    }
    for note in notes {
        eprintln!("screener: note: {note}");
    }
    Ok(if deleted == 0 { Answer::No } else { Answer::Yes })
}
