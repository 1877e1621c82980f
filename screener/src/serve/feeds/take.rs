//! From asking a source to its list in force: as a whole or not at all.
//!
//! Holds the steps: asked, understood, judged, in the set and in the kernel, on the disk. A list that was understood and is
//! refused waits to be looked at, and an operator may force it; one that was not understood never comes in.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipnet::IpNet;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::clock::{Now, UnixTime};
use crate::config::{self, FeedSource, PrivateRanges};
use crate::control::{Refusal, api_feed};
use crate::feed::{self, BadList, Coverage, Difference, Format, Origin, StaticAction, check_change, check_permits};
use crate::fetch::{self, Copied, FetchError, Got, Head, Looked, Stamp, Validators};
use crate::pool::{self, ExpandError};

use super::super::daemon::{Daemon, Mode};
use super::super::door;
use super::{Feed, InForce, Outcome, Pending, pause, spread};

/// How often a file is looked at again that somebody is writing.
const SETTLING: Duration = Duration::from_millis(500);

/// What a source said.
enum Said {
    /// The file is as it was at the last look, whatever came of that.
    Seen,
    /// The server has the list that is in force.
    Same,
    /// A list as it came.
    Text(String, Format, Validators, Option<Stamp>),
    /// The senders of an SPF record, and what of it could not be expanded.
    Senders(Vec<IpNet>, Vec<String>),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The list is not taken.
    Refused(String),
    /// There is no list, or it could not be put in force.
    Failed { why: String, answered: bool },
    /// Nobody waits for it any more.
    Gone(&'static str),
}

impl From<FetchError> for Trouble {
    fn from(error: FetchError) -> Self {
        let answered = matches!(error, FetchError::Answered(_));
        Self::Failed { why: error.to_string(), answered }
    }
}

/// The list that is in force now, held against the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taken {
    added: usize,
    removed: usize,
}

impl Daemon {
    /// Asks a feed's source, and takes in what it says. The feed's `asking` is held by whoever calls. `by_hand`: also what
    /// was looked at before is looked at again.
    pub(super) async fn ask_feed(self: &Arc<Self>, feed: &Arc<Feed>, by_hand: bool) -> Result<Taken, Trouble> {
        let config = &feed.config;
        let late = || {
            let within = humantime::format_duration(config.timeout);
            let why = match &config.source {
                FeedSource::File(path, _) => {
                    format!("{} was not whole within {within}: does somebody write to it all the time?", path.display())
                }
                FeedSource::Url(..) | FeedSource::Spf(_) => format!("there was no whole answer within {within}"),
            };
            Trouble::Failed { why, answered: true }
        };
        let said = timeout(config.timeout, self.source_of(feed, by_hand)).await.unwrap_or_else(|_| Err(late()));
        let seen = matches!(said, Ok(Said::Seen));
        let worker = (Arc::clone(self), Arc::clone(feed));
        let outcome = aside(move || worker.0.understand(&worker.1, said?)).await;
        if !seen {
            self.note_outcome(feed, &outcome);
        }
        outcome
    }

    async fn source_of(&self, feed: &Feed, by_hand: bool) -> Result<Said, Trouble> {
        match &feed.config.source {
            FeedSource::Url(url, format) => {
                let known = {
                    let state = feed.state();
                    let same = state.list.as_ref().filter(|list| list.source == feed.config.source.identity());
                    same.map(|list| list.validators.clone()).unwrap_or_default()
                };
                match fetch::get(url.url(), &known).await? {
                    Got::Same => Ok(Said::Same),
                    Got::List(text, validators) => Ok(Said::Text(text, *format, validators, None)),
                }
            }
            FeedSource::File(path, format) => loop {
                let (path, known) = (path.clone(), feed.state().seen.filter(|_| !by_hand));
                let Ok(alone) = Arc::clone(&feed.looking).try_lock_owned() else {
                    let why = format!("the last look at {} has not come back: does its disk answer?", path.display());
                    return Err(Trouble::Failed { why, answered: false });
                };
                let looked = spawn_blocking(move || {
                    let looked = fetch::look(&path, known);
                    drop(alone);
                    looked
                })
                .await;
                match looked.unwrap_or_else(|error| Err(FetchError::Away(error.to_string())))? {
                    Looked::Same => return Ok(Said::Seen),
                    Looked::Unsettled => sleep(SETTLING).await,
                    Looked::List(text, stamp) => {
                        return Ok(Said::Text(text, *format, Validators::default(), Some(stamp)));
                    }
                }
            },
            FeedSource::Spf(domain) => {
                let live = self.live();
                let away = |why: String| Trouble::Failed { why, answered: false };
                let resolver = live.names.as_ref().map_err(|why| away(why.clone()))?;
                match pool::senders(resolver, domain).await {
                    Ok(expansion) => Ok(Said::Senders(expansion.prefixes, expansion.left_out)),
                    Err(error @ ExpandError::Unanswered(_)) => Err(away(error.to_string())),
                    Err(error @ ExpandError::Wrong { .. }) => {
                        Err(Trouble::Failed { why: error.to_string(), answered: true })
                    }
                }
            }
        }
    }

    /// Makes prefixes of what was said, and of these the list in force. Blocks.
    fn understand(&self, feed: &Arc<Feed>, said: Said) -> Result<Taken, Trouble> {
        let at = Now::read().unix;
        let mut pending = match said {
            Said::Seen => {
                let mut state = feed.state();
                state.next = at.plus(feed.config.refresh);
                // What was wrong with it still is.
                if state.trouble.is_none()
                    && let Some(list) = &mut state.list
                {
                    list.checked = at;
                }
                return Ok(Taken::default());
            }
            Said::Same => return self.confirm(feed, at),
            Said::Text(text, format, validators, stamp) => {
                {
                    let mut state = feed.state();
                    state.seen = stamp;
                    // It says something else now.
                    state.pending = None;
                }
                let list = format.read_even_empty(&text, at, &mut |_| ());
                let list = list.map_err(|bad| Trouble::Refused(told(&bad)))?;
                let notes = list.notes();
                Pending { prefixes: list.prefixes, validators, notes, at, why: String::new() }
            }
            Said::Senders(prefixes, notes) => {
                let mut prefixes: Vec<_> = prefixes.into_iter().filter_map(|net| feed::normal(net).ok()).collect();
                prefixes.sort_unstable();
                prefixes.dedup();
                Pending { prefixes, notes, at, ..Pending::default() }
            }
        };
        if !feed.permits() && feed.config.private == PrivateRanges::LeaveOut {
            let (whole, part) = feed::leave_out(&mut pending.prefixes);
            if !whole.is_empty() {
                let count = whole.len();
                pending.notes.push(format!("{count} private or reserved prefixes were left out: {whole}"));
            }
            if !part.is_empty() {
                let count = part.len();
                pending.notes.push(format!("private or reserved ranges were cut out of {count} prefixes: {part}"));
            }
        }
        self.take_in(feed, pending, false)
    }

    /// The list in force is still what the source says.
    fn confirm(&self, feed: &Arc<Feed>, at: UnixTime) -> Result<Taken, Trouble> {
        let _changing = self.changing();
        self.still_wants(feed)?;
        // Where the copy could not be written, one of another list may lie there, which nobody has confirmed.
        let saved = feed.state().unsaved.is_none();
        let touched = if saved { Copied::touch(&self.feeds.copy(feed), at) } else { Ok(()) };
        let mut state = feed.state();
        if let Some(list) = &mut state.list {
            list.checked = at;
        }
        if let (None, Err(error)) = (&state.unsaved, touched) {
            let why = unsaved(&error);
            warn!("feed {}: {why}", feed.name());
            state.unsaved = Some(why);
        }
        Ok(Taken::default())
    }

    /// Puts a list in force, if nothing speaks against it, or if that is what somebody wants who has looked at it. Blocks.
    fn take_in(&self, feed: &Arc<Feed>, mut list: Pending, force: bool) -> Result<Taken, Trouble> {
        let _changing = self.changing();
        self.still_wants(feed)?;
        let old = self.said_by(&feed.source);
        let difference = Difference::between(&old, &list.prefixes);
        if !force && let Err(why) = self.judge_list(feed, &old, &list.prefixes) {
            list.why.clone_from(&why);
            feed.state().pending = Some(Arc::new(list));
            return Err(Trouble::Refused(why));
        }
        // What is forced was said a while ago, and is in force from now on.
        let since = if force { Now::read().unix } else { list.at };
        if !difference.is_empty() {
            let origin = Arc::new(Origin { source: feed.source.clone(), comment: None, added: since });
            self.exchange_list(feed.config.action, &origin, &difference)
                .map_err(|error| Trouble::Failed { why: error.to_string(), answered: true })?;
            if feed.permits() {
                difference.added.iter().for_each(|&permit| self.pardon(permit));
                door::look_for_permits(self);
            }
            let forced = if force { ", forced by command" } else { "" };
            info!("feed {}: {} prefixes in force{forced}: {difference}", feed.name(), list.prefixes.len());
        }
        {
            let mut state = feed.state();
            let before = state.list.take().filter(|_| difference.is_empty());
            state.list = Some(InForce {
                source: feed.config.source.identity(),
                validators: list.validators,
                taken: before.map_or(since, |before| before.taken),
                checked: list.at,
                entries: list.prefixes.len(),
                coverage: Coverage::of(&list.prefixes),
                notes: list.notes,
            });
            state.pending = None;
        }
        self.save_feed(feed);
        Ok(Taken { added: difference.added.len(), removed: difference.removed.len() })
    }

    fn still_wants(&self, feed: &Arc<Feed>) -> Result<(), Trouble> {
        if self.retired.is_cancelled() {
            return Err(Trouble::Gone("the daemon is going down"));
        }
        if !self.feeds.has(feed) {
            return Err(Trouble::Gone("the configuration has changed meanwhile: ask again"));
        }
        Ok(())
    }

    /// What speaks against a list, in a sentence. `old`: what is in force.
    fn judge_list(&self, feed: &Feed, old: &[IpNet], new: &[IpNet]) -> Result<(), String> {
        let config = &feed.config;
        let comparable = {
            let state = feed.state();
            state.list.as_ref().is_some_and(|list| list.source == config.source.identity())
        };
        let check_change =
            || check_change(comparable.then_some(old), new, config.may_be_empty).map_err(|why| why.to_string());
        if config.action == StaticAction::Permit {
            check_permits(old, new).map_err(|why| why.to_string())?;
            let live = self.live();
            let meets = |net: &&IpNet| live.config.listen.meets_proxy(**net);
            if let Some(met) = new.iter().find(meets).filter(|_| self.mode == Mode::Steer) {
                return Err(format!(
                    "{met} meets listen.proxy_from: in steer mode the kernel gives what is permitted to the MTA, which expects no \
                     PROXY header"
                ));
            }
            return check_change();
        }
        let private: feed::Few<_> = new.iter().filter(|net| feed::meets_private(net)).copied().collect();
        if config.private == PrivateRanges::Refuse && !private.is_empty() {
            return Err(format!(
                "it would deny private or reserved ranges: {private} (if the list holds them by design, set private = \
                 \"leave-out\")"
            ));
        }
        self.statics().judge_next(old, new).map_err(|objections| objections.to_string())?;
        check_change()
    }

    /// Writes the copy of what is in force; what comes of it is noted. Whoever calls holds [`Daemon::changing`].
    fn save_feed(&self, feed: &Feed) {
        let Some(list) = feed.state().list.clone() else { return };
        let head = Head::new(list.source, feed.permits(), list.taken, list.validators);
        let written = {
            let statics = self.statics();
            let own = statics.entries().filter(|found| *found.source == feed.source);
            head.write(&self.feeds.copy(feed), own.map(|found| (found.prefix, found.added)), list.checked)
        };
        let mut state = feed.state();
        let why = written.err().map(|error| unsaved(&error));
        match (&state.unsaved, &why) {
            (None, Some(why)) => warn!("feed {}: {why}", feed.name()),
            (Some(_), None) => info!("feed {}: its list is on the disk again", feed.name()),
            _ => {}
        }
        state.unsaved = why;
    }

    /// Tries again to write a copy that could not be written. Blocks.
    pub(super) fn save_feed_again(&self, feed: &Arc<Feed>) {
        let _changing = self.changing();
        if self.still_wants(feed).is_ok() {
            self.save_feed(feed);
        }
    }

    /// Notes how asking ended, and when to ask again; a trouble is told when it is new.
    fn note_outcome(&self, feed: &Feed, outcome: &Result<Taken, Trouble>) {
        let now = Now::read().unix;
        let (name, config) = (feed.name(), &feed.config);
        let mut state = feed.state();
        let keeps = match &state.list {
            Some(list) => format!("the list of {} stays ({} prefixes)", list.taken, list.entries),
            None => "it has no list".to_owned(),
        };
        let (result, trouble, next) = match outcome {
            Ok(taken) => {
                let result = if taken.added + taken.removed > 0 { Outcome::Taken } else { Outcome::Unchanged };
                (result, None, again(config))
            }
            Err(Trouble::Refused(why)) => {
                let look =
                    if state.pending.is_some() { format!("; see `screener feed diff {name}`") } else { String::new() };
                let trouble = format!("feed {name}: the list is refused: {why}; {keeps}{look}");
                (Outcome::Refused, Some(trouble), pause(config, state.failures, true))
            }
            Err(Trouble::Failed { why, answered }) => {
                // Whatever was seen of a file, it has to be looked at again.
                state.seen = None;
                let trouble = format!("feed {name}: {why}; {keeps}");
                (Outcome::Failed, Some(trouble), pause(config, state.failures, *answered))
            }
            Err(Trouble::Gone(_)) => return,
        };
        state.failures = if trouble.is_some() { state.failures.saturating_add(1) } else { 0 };
        if trouble.is_none() {
            state.pending = None;
        }
        match (&state.trouble, &trouble) {
            (before, Some(now)) if before.as_ref() != Some(now) => warn!("{now}"),
            (Some(_), None) => info!("feed {name}: as it should be again"),
            _ => {}
        }
        state.trouble = trouble;
        state.last = Some((now, result));
        state.next = now.plus(next);
        feed.counts.results[result as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// For `feed refresh`.
    pub(in super::super) async fn feed_refreshed(
        self: &Arc<Self>,
        name: &str,
        request: api_feed::RefreshRequest,
    ) -> Result<api_feed::Refreshed, Refusal> {
        let feed = self.feed_named(name)?;
        let worker = (Arc::clone(self), Arc::clone(&feed));
        // Whoever asked may go away: what has begun is brought to its end all the same.
        let task = tokio::spawn(async move {
            let (daemon, feed) = worker;
            let alone = feed.asking.lock().await;
            let outcome =
                if request.force { daemon.force(&feed).await } else { Ok(daemon.ask_feed(&feed, true).await) };
            drop(alone);
            daemon.feeds.changed.notify_one();
            outcome
        });
        let outcome = task.await.unwrap_or_else(|error| Err(Refusal::Failed(error.to_string())))?;
        let shown = |fallback: String| feed.state().trouble.clone().unwrap_or(fallback);
        match outcome {
            Ok(Taken { added, removed }) => {
                let state = feed.state();
                let prefixes = state.list.as_ref().map_or(0, |list| list.entries);
                let notes = state.list.iter().flat_map(|list| list.notes.clone()).collect();
                Ok(api_feed::Refreshed { name: name.to_owned(), prefixes, added, removed, notes })
            }
            Err(Trouble::Refused(why)) => Err(Refusal::Wrong(shown(why))),
            Err(Trouble::Failed { why, .. }) => Err(Refusal::Failed(shown(why))),
            Err(Trouble::Gone(why)) => Err(Refusal::Failed(why.to_owned())),
        }
    }

    /// Takes the list in that was refused: the one that could be looked at, not what the source says by now. The feed's
    /// `asking` is held by whoever calls.
    async fn force(self: &Arc<Self>, feed: &Arc<Feed>) -> Result<Result<Taken, Trouble>, Refusal> {
        let nothing = || {
            Refusal::Wrong(format!(
                "no refused list of {0} waits to be forced: `screener feed refresh {0}` asks its source, and `screener feed diff \
                 {0}` shows what was refused",
                feed.name()
            ))
        };
        let pending = feed.state().pending.clone().ok_or_else(nothing)?;
        let worker = (Arc::clone(self), Arc::clone(feed));
        let outcome = aside(move || {
            let Pending { prefixes, validators, notes, at, why } = &*pending;
            let list = Pending {
                prefixes: prefixes.clone(),
                validators: validators.clone(),
                notes: [notes.clone(), vec![format!("forced, though {why}")]].concat(),
                at: *at,
                why: String::new(),
            };
            worker.0.take_in(&worker.1, list, true)
        });
        let outcome = outcome.await;
        self.note_outcome(feed, &outcome);
        Ok(outcome)
    }

    pub(super) fn feed_named(&self, name: &str) -> Result<Arc<Feed>, Refusal> {
        let missing =
            || Refusal::Missing(format!("there is no feed {name}: `screener feed status` shows those there are"));
        self.feeds.find(name).ok_or_else(missing)
    }
}

/// Does what may take long where nobody waits for it.
async fn aside(work: impl FnOnce() -> Result<Taken, Trouble> + Send + 'static) -> Result<Taken, Trouble> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(Trouble::Failed { why: error.to_string(), answered: true }))
}

/// When a source is asked again that has answered well.
fn again(config: &config::Feed) -> Duration {
    match config.source {
        // Nobody else is bothered by a look at a file.
        FeedSource::File(..) => config.refresh,
        FeedSource::Url(..) | FeedSource::Spf(_) => spread(config.refresh),
    }
}

/// The first complaint about a list, and how many more there are.
fn told(bad: &BadList) -> String {
    let all = bad.told("line ");
    let first = all.lines().next().unwrap_or_default().replacen("line :", "line ", 1);
    match bad.count() {
        0 | 1 => first,
        more => format!("{first} (and {} more lines are not understood)", more - 1),
    }
}

fn unsaved(error: &impl ToString) -> String {
    format!("its list is in force, but not on the disk: {}", error.to_string())
}
