//! `screener pass watch`

use std::io::{IsTerminal, stdout};

use anyhow::bail;
use clap::Args;
use ipnet::IpNet;

use super::super::output::{self, Form};
use super::super::{Answer, prefix};
use super::list::plain;
use super::until;
use crate::control::api_pass::{Happened, News, WatchRequest};
use crate::control::{Client, query};

/// What the help ends with.
const HELP: &str = "\
granted: the client had no pass that counted. extended: it counts for longer or for more tests. withdrawn: a test was taken
back. revoked: it was taken away. expired: a test is owed from now on. lost: this command was too slow to read, so many were
lost. It ends by SIGINT, or with the daemon; an upgrade of the daemon it outlives.";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(in crate::cli) struct Watch {
    /// Only of clients in this prefix; an address means its client
    #[arg(long, value_parser = prefix::parse)]
    prefix: Option<IpNet>,
    /// As JSON, an object a line
    #[command(flatten)]
    form: Form,
}

/// How a stream ended.
enum End {
    /// The daemon said so.
    Told,
    /// Without a word.
    Broken(String),
}

impl Watch {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        tokio::select! {
            done = self.watch(client) => done,
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted.map(|()| Answer::Yes)?),
        }
    }

    async fn watch(&self, client: &Client) -> anyhow::Result<Answer> {
        let path = format!("/v1/watch/passes?{}", query(&WatchRequest { prefix: self.prefix })?);
        let mut before: Option<u32> = None;
        loop {
            let mut lines = match client.lines(&path).await {
                Ok(lines) => lines,
                Err(_) if before.is_some() => bail!("the daemon has ended"),
                Err(error) => return Err(error.into()),
            };
            if before.is_some() {
                eprintln!("screener: another daemon has taken over: what happened in between was not told");
            }
            let end = loop {
                match lines.next().await {
                    Ok(Some(line)) => {
                        let news: News = serde_json::from_slice(&line)?;
                        if news.what == Happened::End {
                            break End::Told;
                        }
                        self.show(&news, &line)?;
                    }
                    Ok(None) => break End::Broken("it broke off".to_owned()),
                    Err(error) => break End::Broken(error.to_string()),
                }
            };
            match end {
                // Where another has taken its place, that one answers at once.
                End::Told => before = Some(before.unwrap_or(0) + 1),
                End::Broken(why) => bail!("the daemon tells no more: {why}"),
            }
        }
    }

    fn show(&self, news: &News, line: &[u8]) -> anyhow::Result<()> {
        if self.form.json {
            return Ok(output::line(String::from_utf8_lossy(line))?);
        }
        let what = news.what.name();
        if let Some(lost) = news.lost {
            return Ok(output::line(format!("{}\t{what}\t{lost}", news.at))?);
        }
        let client = output::or_dash(news.client.as_ref());
        let (until, origin, comment) = news.pass.as_ref().map_or_else(Default::default, |pass| {
            (until(pass), pass.origin.clone(), plain(pass.comment.clone().unwrap_or_default()))
        });
        let what = news.test.as_ref().map_or_else(|| what.to_owned(), |test| format!("{what} {test}"));
        Ok(output::line(if stdout().is_terminal() {
            format!("{} {what:<10} {client:<24} until {until:<20} {origin:<8} {comment}", news.at)
        } else {
            [&news.at, &what, &client, &until, &origin, &comment].map(String::as_str).join("\t")
        })?)
    }
}
