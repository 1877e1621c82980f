//! The rules about `[[feed]]`: lists of prefixes that somebody else keeps.
//!
//! Knows what a source looks like and how often it may be asked; how a list is got and what it may say is known to `fetch/`
//! and `feed/`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::check::{HOUR, Judge, MINUTE, SECOND, YEARS};
use super::raw::{At, Feed as RawFeed};
use super::value::{PrivateRanges, absolute_path};
use crate::dns::is_domain;
use crate::feed::{DenyAction, Format, StaticAction};

/// The longest name: it is a file's name too, and a label.
const LONGEST_NAME: usize = 64;

/// `[[feed]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// What it is called; no two alike.
    pub name: FeedName,
    /// Where it comes from.
    pub source: FeedSource,
    /// What happens to its prefixes.
    pub action: StaticAction,
    /// How often the source is asked; a file is looked at so often, and read when it has changed.
    pub refresh: Duration,
    /// How long one answer may take in all.
    pub timeout: Duration,
    /// What becomes of private ranges among what is denied.
    pub private: PrivateRanges,
    /// A list without a prefix may take the place of one that has some.
    pub may_be_empty: bool,
}

/// The name of a feed: letters, digits, `-`, `_` and `.`, so that it can be a file's name, a part of a path and a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FeedName(Arc<str>);

/// Where a feed comes from: `feed.source`, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedSource {
    /// An `http://` or `https://` address.
    Url(FeedUrl, Format),
    /// A file.
    File(PathBuf, Format),
    /// The senders that a domain names in its SPF record.
    Spf(String),
}

/// The address of a list. What stands behind a `?` may be a key, so neither `Debug` nor `Display` shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct FeedUrl(Url);

impl FeedName {
    /// The name, to be shared.
    pub fn shared(&self) -> &Arc<str> {
        &self.0
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FeedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FeedName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.chars().all(fits) && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.len() <= LONGEST_NAME
        {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "{text:?} is no name of a feed: letters, digits, -, _ and . (at most {LONGEST_NAME}), a letter or digit first"
        ))
    }
}

impl FeedUrl {
    /// The address itself. It may hold a key.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for FeedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[..url::Position::AfterPath])?;
        if self.0.query().is_some() { f.write_str("?…") } else { Ok(()) }
    }
}

impl fmt::Debug for FeedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FeedUrl {
    type Err = String;

    /// The text may hold a key, so no message repeats it.
    fn from_str(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|error| format!("no address of a list: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "an address with a user is not supported: fetch such a list by a timer of yours, and name the \
                        file here"
                    .to_owned(),
            );
        }
        if url.fragment().is_some() {
            return Err("a # and what is behind it are no part of what is fetched: take that out".to_owned());
        }
        Ok(Self(url))
    }
}

impl FeedSource {
    /// Everything about it, to tell one source from another. It may hold a key.
    pub fn identity(&self) -> String {
        match self {
            Self::Url(url, format) => format!("{format} {}", url.url()),
            Self::File(path, format) => format!("{format} {}", path.display()),
            Self::Spf(domain) => format!("spf:{domain}"),
        }
    }

    /// The form of its list; an SPF record has none.
    pub fn format(&self) -> Option<Format> {
        match self {
            Self::Url(_, format) | Self::File(_, format) => Some(*format),
            Self::Spf(_) => None,
        }
    }
}

impl fmt::Display for FeedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url, _) => url.fmt(f),
            Self::File(path, _) => path.display().fmt(f),
            Self::Spf(domain) => write!(f, "spf:{domain}"),
        }
    }
}

/// What a source is before its format is known.
enum Place {
    Url(FeedUrl),
    File(PathBuf),
    Spf(String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(domain) = text.strip_prefix("spf:") {
            let wrong = || format!("{domain:?} is no domain: write it like \"spf:google.com\"");
            let domain = is_domain(domain).then(|| domain.trim_end_matches('.').to_ascii_lowercase());
            return domain.map(Self::Spf).ok_or_else(wrong);
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return text.parse().map(Self::Url);
        }
        if text.starts_with('/') {
            return absolute_path(text).map(Self::File);
        }
        // The text may be an address with a key that is written wrongly.
        Err("no source of a list: write https://…, http://…, the absolute path of a file, or spf:DOMAIN".to_owned())
    }
}

impl Judge<'_, '_> {
    pub(super) fn feeds(&mut self, raw: &[At<RawFeed>]) -> Vec<Feed> {
        let feeds: Vec<_> = raw.iter().map(At::get_ref).filter_map(|raw| Some((raw, self.feed(raw)?))).collect();
        // As files they may be one where case does not count.
        let names = feeds.iter().map(|(raw, feed)| (feed.name.as_str().to_ascii_lowercase(), raw.name.span()));
        self.twice(names, |name| format!("there are two feeds named {name:?}: rename one"));
        feeds.into_iter().map(|(_, feed)| feed).collect()
    }

    fn feed(&mut self, raw: &RawFeed) -> Option<Feed> {
        let name = self.parsed(&raw.name);
        let place = self.parsed(&raw.source);
        let format = raw.format.as_ref().map(|format| self.parsed(format));
        let action = raw.action.as_ref().map(|action| self.word(action));
        let timeout = self.duration(&raw.timeout, SECOND..=HOUR);
        let private = self.word(&raw.private);
        let refresh = self.refresh(raw, place.as_ref()?);
        let source = self.source(raw, place?, format)?;
        if matches!(source, FeedSource::Spf(_)) && action.is_none() {
            let why = "an SPF record names senders: say what is done with them, as action = \"permit\"";
            self.refuse(raw.source.span(), why);
        }
        if let (Some(Format::PostscreenAccess), Some(StaticAction::Permit), Some(raw)) =
            (source.format(), action, &raw.action)
        {
            let why = "a postscreen table is read for what it rejects: that cannot be meant to be permitted";
            self.refuse(raw.span(), why);
        }
        let action = action.unwrap_or(StaticAction::Deny(DenyAction::Drop));
        Some(Feed { name: name?, source, action, refresh, timeout, private, may_be_empty: raw.may_be_empty })
    }

    fn refresh(&mut self, raw: &RawFeed, place: &Place) -> Duration {
        let (least, usual) = match place {
            // Spamhaus keeps out at its firewall who comes more often.
            Place::Url(_) => (HOUR, 12 * HOUR),
            Place::File(_) => (SECOND, 10 * SECOND),
            Place::Spf(_) => (MINUTE, HOUR),
        };
        let Some(raw) = &raw.refresh else { return usual };
        let refresh = self.duration(raw, SECOND..=YEARS);
        if (SECOND..least).contains(&refresh) {
            let least = humantime::format_duration(least);
            let why = "whoever asks more often is kept out by some who publish lists";
            self.refuse(raw.span(), format!("{:?} is too short: at least {least}; {why}", raw.get_ref()));
        }
        refresh
    }

    /// A place with the format of its list. `format`: what was written, `Some(None)` if that is none.
    fn source(&mut self, raw: &RawFeed, place: Place, format: Option<Option<Format>>) -> Option<FeedSource> {
        match (place, format) {
            (Place::Spf(domain), None) => Some(FeedSource::Spf(domain)),
            (Place::Spf(_), Some(_)) => {
                let span = raw.format.as_ref().map_or(0..0, At::span);
                self.refuse(span, "an SPF record is no list in a format: remove this");
                None
            }
            (Place::Url(_) | Place::File(_), None) => {
                let known = Format::ALL.map(Format::name).join(", ");
                self.refuse(raw.source.span(), format!("a list has a format: set format to one of {known}"));
                None
            }
            (Place::Url(url), Some(format)) => Some(FeedSource::Url(url, format?)),
            (Place::File(path), Some(format)) => Some(FeedSource::File(path, format?)),
        }
    }
}

/// What is worth knowing though nothing is wrong.
pub(super) fn notes(feeds: &[Feed]) -> Vec<String> {
    let in_the_clear = |feed: &&Feed| matches!(&feed.source, FeedSource::Url(url, _) if url.url().scheme() == "http");
    let note = |feed: &Feed| {
        let name = &feed.name;
        format!("feed {name}: it is fetched in the clear: whoever sits between can put anything into it; use https")
    };
    feeds.iter().filter(in_the_clear).map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn refusal(text: &str) -> String {
        Config::parse(text, "test.toml").expect_err("it is wrong").to_string()
    }

    #[test]
    fn a_feed_has_defaults_that_fit_its_source() {
        let text = "[[feed]]\nname = \"drop-v4\"\nsource = \"https://lists.example/drop.json\"\nformat = \"spamhaus-json\"\n\
                    [[feed]]\nname = \"own\"\nsource = \"/etc/screener/own\"\nformat = \"cidr\"\naction = \"tag\"\n\
                    [[feed]]\nname = \"large\"\nsource = \"spf:Large.example.\"\naction = \"permit\"\nmay_be_empty = true\n\
                    private = \"leave-out\"\ntimeout = \"5s\"\n";
        let config = Config::parse(text, "test.toml").unwrap();
        let [url, file, spf] = &config.feeds[..] else { panic!("{:?}", config.feeds) };
        assert!(matches!(&url.source, FeedSource::Url(_, Format::SpamhausJson)), "{url:?}");
        assert_eq!((url.action, url.refresh), (StaticAction::Deny(DenyAction::Drop), 12 * HOUR));
        assert_eq!((url.timeout, url.private, url.may_be_empty), (2 * MINUTE, PrivateRanges::Refuse, false));
        assert_eq!(file.source, FeedSource::File("/etc/screener/own".into(), Format::Cidr));
        assert_eq!((file.action, file.refresh), (StaticAction::Deny(DenyAction::Tag), 10 * SECOND));
        assert_eq!(spf.source, FeedSource::Spf("large.example".to_owned()));
        assert_eq!((spf.action, spf.refresh, spf.timeout), (StaticAction::Permit, HOUR, 5 * SECOND));
        assert!(spf.may_be_empty && spf.private == PrivateRanges::LeaveOut);
    }

    #[test]
    fn what_is_no_feed_is_refused_where_it_stands() {
        let list = "name = \"a\"\nsource = \"https://a.example/list\"\nformat = \"cidr\"";
        for (entry, part) in [
            (list.replace("\"a\"", "\"\""), "test.toml:2:8: feed[0].name: \"\" is no name of a feed"),
            (list.replace("\"a\"", "\"../a\""), "letters, digits, -, _ and . (at most 64)"),
            (list.replace("https:", "ftp:"), "test.toml:3:10: feed[0].source: no source of a list: write https://"),
            (list.replace("https://a.example/list", "lists/a"), "the absolute path of a file, or spf:DOMAIN"),
            (list.replace("a.example/list", ""), "feed[0].source: no address of a list: empty host"),
            (list.replace("a.example", "user:pw@a.example"), "an address with a user is not supported"),
            (list.replace("/list", "/list#x"), "a # and what is behind it"),
            (list.replace("https://a.example/list", "spf:192.0.2.1"), "\"192.0.2.1\" is no domain"),
            (list.replace("https://a.example/list", "spf:a.example"), "test.toml:4:10: feed[0].format: an SPF record"),
            ("name = \"a\"\nsource = \"spf:a.example\"".to_owned(), "say what is done with them"),
            ("name = \"a\"\nsource = \"/list\"".to_owned(), "a list has a format: set format to one of cidr, netset"),
            (list.replace("cidr", "csv"), "test.toml:4:10: feed[0].format: 'csv' is no list format of this version"),
            (
                format!("{list}\naction = \"deny\""),
                "feed[0].action: \"deny\" is none of: drop, reject, tag, count, permit",
            ),
            (
                format!("{list}\nrefresh = \"30m\""),
                "test.toml:5:11: feed[0].refresh: \"30m\" is too short: at least 1h",
            ),
            (format!("{list}\nrefresh = \"often\""), "feed[0].refresh: \"often\" is no duration"),
            (format!("{list}\ntimeout = \"0s\""), "feed[0].timeout: \"0s\" is out of range: 1s to 1h"),
            (format!("{list}\nprivate = \"drop\""), "feed[0].private: \"drop\" is none of: refuse, leave-out"),
            (
                format!("{list}\n[[feed]]\n{}", list.replace("\"a\"", "\"A\"")),
                "there are two feeds named \"a\": rename one",
            ),
            (
                format!("{}\naction = \"permit\"", list.replace("cidr", "postscreen-access")),
                "test.toml:5:10: feed[0].action: a postscreen table is read for what it rejects",
            ),
            (format!("{list}\nurl = \"x\""), "unknown key"),
            ("name = \"a\"".to_owned(), "the key source is missing here: add it"),
        ] {
            let said = refusal(&format!("[[feed]]\n{entry}\n"));
            assert!(said.contains(part), "{entry}: {said}");
        }
        let file = "[[feed]]\nname = \"a\"\nsource = \"/list\"\nformat = \"cidr\"\nrefresh = \"10s\"\n";
        assert!(Config::parse(file, "test.toml").is_ok(), "a file may be looked at often");
    }

    #[test]
    fn what_may_be_a_key_is_never_shown() {
        let text = "[[feed]]\nname = \"a\"\nsource = \"http://a.example/list?key=secret\"\nformat = \"cidr\"\n";
        let config = Config::parse(text, "test.toml").unwrap();
        assert_eq!(config.feeds[0].source.to_string(), "http://a.example/list?…");
        assert!(!format!("{config:?}").contains("secret"));
        assert!(config.feeds[0].source.identity().contains("secret"));
        assert!(config.notes().iter().any(|note| note.starts_with("feed a: it is fetched in the clear")));
    }
}
