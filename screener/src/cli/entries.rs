//! What `permit` and `deny` do alike with their entries: show them, put one in, take one out.
//!
//! Holds the asking and the showing. Never knows what an entry means.

use std::io;

use clap::Args;
use ipnet::IpNet;
use serde::Serialize;

use super::output::Form;
use super::{output, prefix};
use crate::control::Client;
use crate::control::api::Static;

/// A list of entries, by its place in the control interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entries(pub(super) &'static str);

/// Which entry to remove.
#[derive(Debug, Args)]
pub(super) struct Del {
    /// The prefix
    #[arg(value_parser = prefix::parse)]
    prefix: IpNet,
}

impl Entries {
    /// Shows every entry.
    pub(super) async fn show(self, client: &Client, form: Form) -> anyhow::Result<()> {
        let entries: Vec<Static> = client.get(self.0).await?;
        if form.json { output::json(&entries) } else { Ok(rows(entries)?) }
    }

    /// Puts an entry in, or changes it, and says what it is now.
    pub(super) async fn put(self, client: &Client, prefix: IpNet, request: &impl Serialize) -> anyhow::Result<()> {
        let entry: Static = client.put(&self.path(prefix), request).await?;
        Ok(output::line(format!("{}: {}", entry.prefix, entry.action))?)
    }

    /// Takes an entry out that was made by command.
    pub(super) async fn remove(self, client: &Client, Del { prefix }: Del) -> anyhow::Result<()> {
        client.delete(&self.path(prefix)).await?;
        Ok(output::line(format!("{prefix}: removed"))?)
    }

    pub(super) fn path(self, prefix: IpNet) -> String {
        format!("{}/{prefix}", self.0)
    }
}

fn rows(entries: Vec<Static>) -> io::Result<()> {
    output::rows(
        ["prefix", "action", "origin", "added", "hits", "last seen", "comment"],
        entries.into_iter().map(|entry| {
            let last_seen = output::or_dash(entry.last_seen.as_ref());
            let hits = entry.hits.to_string();
            [entry.prefix, entry.action, entry.origin, entry.added, hits, last_seen, entry.comment.unwrap_or_default()]
        }),
    )
}
