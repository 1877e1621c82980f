//! `screener pass list`

use std::io::Write;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::super::output::{self, Form};
use super::super::{Answer, prefix};
use super::pages::Pages;
use super::{origin_names, test_names, until};
use crate::control::Client;
use crate::control::api_pass::{ListRequest, Standing};

/// What the help ends with.
const HELP: &str = "\
Conditions add up. Without any, passes that have run out are shown too, for as long as ledger.retention keeps them. A column
\"until\" with - means that some test was never passed: the client is screened for it.";

/// Which passes.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    form: Form,
}

/// The conditions.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Only of clients in this prefix; an address means its client
    #[arg(long, value_parser = prefix::parse)]
    prefix: Option<IpNet>,
    /// Only those for which this test counts as passed
    #[arg(long, value_parser = test_names())]
    test: Option<String>,
    /// Only those that owe this test: never passed, or expired
    #[arg(long, value_name = "TEST", value_parser = test_names())]
    owed: Option<String>,
    /// Only those that are older, e.g. 30d
    #[arg(long, alias = "older-than", value_name = "AGE", value_parser = humantime::parse_duration)]
    older: Option<Duration>,
    /// Only those that are newer
    #[arg(long, alias = "newer-than", value_name = "AGE", value_parser = humantime::parse_duration)]
    newer: Option<Duration>,
    /// Only those that are valid now and run out within this time, e.g. 2h
    #[arg(long, value_name = "WITHIN", value_parser = humantime::parse_duration)]
    expiring: Option<Duration>,
    /// Only those that came about so
    #[arg(long, value_parser = origin_names())]
    origin: Option<String>,
    /// Only of clients that called themselves so in EHLO: mail*.example.com, or example.com for all below it
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only those that leave some test owed: the client is screened when it comes
    #[arg(long, conflicts_with = "valid")]
    expired: bool,
    /// Only those whose client goes to the MTA without a test
    #[arg(long)]
    valid: bool,
}

impl Which {
    pub(super) fn request(self) -> ListRequest {
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs());
        let standing = self.expired.then_some(Standing::Expired).or(self.valid.then_some(Standing::Valid));
        ListRequest {
            prefix: self.prefix,
            test: self.test,
            owed: self.owed,
            standing,
            expiring_seconds: seconds(self.expiring),
            older_seconds: seconds(self.older),
            newer_seconds: seconds(self.newer),
            origin: self.origin,
            name: self.name,
            ..ListRequest::default()
        }
    }
}

impl List {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        let mut pages = Pages::new(client, self.which.request());
        if self.form.json {
            list_json(&mut pages).await?;
        } else {
            list_lines(&mut pages).await?;
        }
        Ok(Answer::Yes)
    }
}

/// One array, written as the pages come.
async fn list_json(pages: &mut Pages<'_>) -> anyhow::Result<()> {
    let mut separator = "[";
    while let Some(page) = pages.next().await? {
        let mut out = std::io::stdout().lock();
        for pass in page.passes {
            write!(out, "{separator}\n  {}", serde_json::to_string(&pass)?)?;
            separator = ",";
        }
    }
    output::line(if separator == "[" { "[]" } else { "\n]" })?;
    Ok(())
}

async fn list_lines(pages: &mut Pages<'_>) -> anyhow::Result<()> {
    while let Some(page) = pages.next().await? {
        if page.passes.is_empty() {
            continue;
        }
        output::rows(
            ["client", "until", "origin", "since", "comment"],
            page.passes.into_iter().map(|pass| {
                let until = until(&pass);
                [pass.client, until, pass.origin, pass.created, plain(pass.comment.unwrap_or_default())]
            }),
        )?;
    }
    Ok(())
}

/// A comment may hold anything, and a line is a line.
pub(super) fn plain(comment: String) -> String {
    if comment.chars().any(char::is_control) { comment.escape_debug().to_string() } else { comment }
}
