//! `screener feed`: lists of prefixes that somebody else keeps.

use anyhow::bail;
use clap::{Args, Subcommand};

use super::output::Form;
use super::{Answer, output};
use crate::config::FeedName;
use crate::control::api_feed::{self, RefreshRequest};
use crate::control::{Client, ClientError};

#[derive(Debug, Subcommand)]
pub(super) enum Feed {
    /// Every feed: its entries and hits, how old it is, and what is wrong with it
    Status(Named),
    /// Ask the source now; or take in a list that was refused
    Refresh(Refresh),
    /// What a list that was refused would change
    Diff(Named),
}

#[derive(Debug, Args)]
pub(super) struct Named {
    /// Only this feed
    name: Option<FeedName>,
    #[command(flatten)]
    form: Form,
}

#[derive(Debug, Args)]
pub(super) struct Refresh {
    /// The feed; without it every feed
    name: Option<FeedName>,
    /// Take the list that was refused and that `feed diff` shows, without asking the source again
    #[arg(long, requires = "name")]
    force: bool,
    #[command(flatten)]
    form: Form,
}

impl Feed {
    pub(super) async fn carry_out(self, client: &Client) -> anyhow::Result<Answer> {
        match self {
            Self::Status(named) => status(client, named).await,
            Self::Refresh(refresh) => refreshed(client, refresh).await,
            Self::Diff(named) => diff(client, named).await,
        }
    }
}

/// No if a feed is not as it should be, or there is no such feed.
async fn status(client: &Client, named: Named) -> anyhow::Result<Answer> {
    let feeds = match &named.name {
        Some(name) => vec![client.get::<api_feed::Feed>(&format!("/v1/feeds/{name}")).await?],
        None => client.get("/v1/feeds").await?,
    };
    let well = feeds.iter().all(|feed| feed.trouble.is_none() && feed.unsaved.is_none());
    let answer = if well { Answer::Yes } else { Answer::No };
    if named.form.json {
        match (&named.name, &feeds[..]) {
            (Some(_), [feed]) => output::json(feed)?,
            _ => output::json(&feeds)?,
        }
        return Ok(answer);
    }
    if feeds.is_empty() {
        output::line("no feed is configured: name a list in a [[feed]]")?;
    }
    output::rows(
        ["feed", "state", "action", "entries", "hits", "checked", "next", "source"],
        feeds.iter().map(|feed| {
            [
                feed.name.clone(),
                feed.state.clone(),
                feed.action.clone(),
                feed.entries.to_string(),
                feed.hits.to_string(),
                output::or_dash(feed.checked.as_ref()),
                feed.next.clone(),
                feed.source.clone(),
            ]
        }),
    )?;
    for feed in &feeds {
        if named.name.is_some() && feed.taken.is_some() {
            output::line(format!("it covers {}", feed.covers))?;
        }
        for note in &feed.notes {
            output::line(format!("note: feed {}: {note}", feed.name))?;
        }
        if let Some(trouble) = &feed.trouble {
            output::line(trouble)?;
        }
        if let Some(unsaved) = &feed.unsaved {
            output::line(format!("feed {}: {unsaved}", feed.name))?;
        }
    }
    Ok(answer)
}

async fn names(client: &Client, name: Option<&FeedName>) -> Result<Vec<String>, ClientError> {
    match name {
        Some(name) => Ok(vec![name.to_string()]),
        None => {
            let feeds: Vec<api_feed::Feed> = client.get("/v1/feeds").await?;
            Ok(feeds.into_iter().map(|feed| feed.name).collect())
        }
    }
}

async fn refreshed(client: &Client, refresh: Refresh) -> anyhow::Result<Answer> {
    let names = names(client, refresh.name.as_ref()).await?;
    let paths = names.iter().map(|name| format!("/v1/feeds/{name}/refresh"));
    let (done, failed) = client.post_to_each(paths, &RefreshRequest { force: refresh.force }).await?;
    if refresh.form.json {
        output::json(&done)?;
    } else {
        for api_feed::Refreshed { name, prefixes, added, removed, notes } in &done {
            output::line(format!("{name}: {prefixes} prefixes: {added} came, {removed} went"))?;
            for note in notes {
                output::line(format!("note: {note}"))?;
            }
        }
    }
    if failed.is_empty() { Ok(Answer::Yes) } else { bail!("{}", failed.join("\n")) }
}

/// Yes if a list waits to be looked at.
async fn diff(client: &Client, named: Named) -> anyhow::Result<Answer> {
    let mut diffs = Vec::new();
    for name in names(client, named.name.as_ref()).await? {
        match client.get::<api_feed::Diff>(&format!("/v1/feeds/{name}/diff")).await {
            Ok(diff) => diffs.push(diff),
            // Of one by its name, or of all of them.
            Err(ClientError::NotFound(_)) if named.name.is_none() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let answer = if diffs.is_empty() { Answer::No } else { Answer::Yes };
    if named.form.json {
        match (&named.name, &diffs[..]) {
            (Some(_), [diff]) => output::json(diff)?,
            _ => output::json(&diffs)?,
        }
        return Ok(answer);
    }
    if diffs.is_empty() {
        output::line("no list waits to be looked at: what the sources said last is in force, or was not understood")?;
    }
    for diff in &diffs {
        let api_feed::Diff { name, refused, in_force, added_count, removed_count, kept, .. } = diff;
        output::line(format!(
            "{name}: the list of {} is refused: {}; from {in_force} prefixes to {}: {added_count} would come (+), \
             {removed_count} go (-), {kept} stay",
            refused.at, refused.why, refused.prefixes
        ))?;
        let lines = diff.removed.iter().map(|net| ('-', net)).chain(diff.added.iter().map(|net| ('+', net)));
        for (sign, net) in lines {
            output::line(format!("{sign}{net}"))?;
        }
        let more = (added_count - diff.added.len().min(*added_count))
            + (removed_count - diff.removed.len().min(*removed_count));
        if more > 0 {
            output::line(format!("and {more} more"))?;
        }
    }
    Ok(answer)
}
