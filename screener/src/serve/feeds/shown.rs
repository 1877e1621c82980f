//! How feeds stand, for commands and metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::{Now, UnixTime};
use crate::config;
use crate::control::{Refusal, api_feed};
use crate::feed::{Difference, Format, StaticAction};

use super::super::answers::stamp;
use super::super::daemon::Daemon;
use super::{Feed, Outcome, Pending};

impl Daemon {
    /// For `feed status` and the metrics.
    pub(in super::super) fn feeds_shown(&self) -> Vec<api_feed::Feed> {
        let now = Now::read().unix;
        self.feeds.all().iter().map(|feed| feed.shown(now)).collect()
    }

    /// For `feed status NAME`.
    pub(in super::super) fn feed_shown(&self, name: &str) -> Result<api_feed::Feed, Refusal> {
        Ok(self.feed_named(name)?.shown(Now::read().unix))
    }

    /// For `feed diff`. Looks at every entry: not on a thread that serves sessions.
    pub(in super::super) fn feed_differs(&self, name: &str) -> Result<api_feed::Diff, Refusal> {
        let feed = self.feed_named(name)?;
        let nothing = || {
            Refusal::Missing(format!(
                "no list of {name} waits to be looked at: what its source said last is in force, or was not understood; see \
                 `screener feed status`"
            ))
        };
        let pending: Arc<Pending> = feed.state().pending.clone().ok_or_else(nothing)?;
        let old = self.said_by(&feed.source);
        let Difference { mut added, mut removed, kept } = Difference::between(&old, &pending.prefixes);
        let (added_count, removed_count) = (added.len(), removed.len());
        added.truncate(api_feed::Diff::MOST);
        removed.truncate(api_feed::Diff::MOST);
        Ok(api_feed::Diff {
            name: name.to_owned(),
            refused: pending.shown(),
            in_force: old.len(),
            added_count,
            removed_count,
            kept,
            added,
            removed,
        })
    }
}

impl Pending {
    fn shown(&self) -> api_feed::Refused {
        api_feed::Refused { at: stamp(self.at), prefixes: self.prefixes.len(), why: self.why.clone() }
    }
}

impl Feed {
    fn shown(&self, now: UnixTime) -> api_feed::Feed {
        let config::Feed { source, action, .. } = &self.config;
        let state = self.state();
        let list = state.list.as_ref();
        let last_hit = self.counts.last_hit.load(Ordering::Relaxed);
        let count = |outcome: Outcome| api_feed::Count {
            result: outcome.name().to_owned(),
            count: self.counts.results[outcome as usize].load(Ordering::Relaxed),
        };
        api_feed::Feed {
            name: self.name().to_owned(),
            source: source.to_string(),
            format: source.format().map(Format::name).map(str::to_owned),
            action: match action {
                StaticAction::Permit => "permit",
                StaticAction::Deny(action) => action.name(),
            }
            .to_owned(),
            state: match (&state.trouble, state.last, list) {
                (Some(_), Some((_, Outcome::Refused)), _) => "refused",
                (Some(_), _, _) => "failed",
                (None, _, None) => "waiting",
                (None, _, Some(_)) => "good",
            }
            .to_owned(),
            entries: list.map_or(0, |list| list.entries),
            covers: list.map_or_else(String::new, |list| list.coverage.to_string()),
            taken: list.map(|list| stamp(list.taken)),
            checked: list.map(|list| stamp(list.checked)),
            age_seconds: list.map(|list| now.since(list.checked).as_secs()),
            next: stamp(state.next),
            last: state.last.map(|(at, outcome)| api_feed::Last { at: stamp(at), result: outcome.name().to_owned() }),
            trouble: state.trouble.clone(),
            refused: state.pending.as_ref().map(|pending| pending.shown()),
            unsaved: state.unsaved.clone(),
            notes: list.map(|list| list.notes.clone()).unwrap_or_default(),
            hits: self.counts.hits.load(Ordering::Relaxed),
            last_hit: (last_hit != 0).then(|| stamp(UnixTime(last_hit))),
            results: Outcome::ALL.into_iter().map(count).collect(),
        }
    }
}
