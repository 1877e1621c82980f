//! The feeds: what the daemon says of them; without a daemon, whether they could be got at all. Asks no server for a list:
//! some keep out whoever asks too often.

use std::fs::File;

use super::finding::Findings;
use crate::config::{Config, FeedSource};
use crate::control::{Client, api_feed};
use crate::fetch;

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    if config.feeds.is_empty() {
        return;
    }
    if config.feeds.iter().any(|feed| matches!(&feed.source, FeedSource::Url(url, _) if url.url().scheme() == "https"))
        && let Err(error) = fetch::certificates()
    {
        let advice = "install ca-certificates: without it no list comes over https";
        findings.problem("feeds", format!("the system's certificates cannot be read: {error}"), advice);
    }
    let client = Client::new(config.control.socket.clone());
    if let Ok(feeds) = client.get::<Vec<api_feed::Feed>>("/v1/feeds").await {
        feeds.iter().for_each(|feed| shown(feed, findings));
        return;
    }
    for feed in &config.feeds {
        let check = format!("feed {}", feed.name);
        match &feed.source {
            FeedSource::File(path, _) => match File::open(path) {
                Ok(_) => findings.ok(check, format!("{} is there", path.display())),
                Err(error) => {
                    let found = format!("cannot read {}: {error}", path.display());
                    findings.problem(check, found, "put the list there, or remove the feed");
                }
            },
            FeedSource::Url(..) | FeedSource::Spf(_) => {
                findings.ok(check, format!("{} is asked by the daemon when it runs", feed.source));
            }
        }
    }
}

fn shown(feed: &api_feed::Feed, findings: &mut Findings) {
    let check = format!("feed {}", feed.name);
    let name = &feed.name;
    match (&feed.trouble, &feed.unsaved) {
        (Some(trouble), _) if feed.refused.is_some() => {
            let advice =
                format!("look at it with `screener feed diff {name}`; `screener feed refresh {name} --force` takes it");
            findings.problem(check, trouble, advice);
        }
        (Some(trouble), _) => {
            let advice = format!("`screener feed refresh {name}` asks the source again now");
            findings.problem(check, trouble, advice);
        }
        (None, Some(unsaved)) => {
            findings.warning(
                check,
                unsaved,
                "look at the disk: after a restart the list would have to be fetched first",
            );
        }
        (None, None) => match &feed.checked {
            Some(checked) => findings.ok(check, format!("{} prefixes, confirmed {checked}", feed.entries)),
            None => findings.ok(check, "its source has not answered yet"),
        },
    }
}
