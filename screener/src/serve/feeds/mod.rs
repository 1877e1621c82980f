//! What the daemon does with feeds: it asks their sources when it is time, takes in what is good, keeps what was good, and
//! tells how they stand.
//!
//! Holds what is known of each feed beside its entries, which stand in the static set. A list comes in by [`take`], as a whole
//! or not at all; the last good one stays until then, also over a restart (`fetch::Copied`). Sessions never wait for any of it.

mod apply;
mod shown;
mod take;

use std::collections::HashMap;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::clock::{Now, UnixTime};
use crate::config::{self, FeedSource};
use crate::feed::{Coverage, Origin, Source, StaticAction, StaticSet};
use crate::fetch::{Copied, Stamp, Validators};

use super::daemon::Daemon;

/// No more than one look at what is due in this time, whatever changes.
const PAUSE: Duration = Duration::from_millis(250);
/// How soon a source that was not reached is asked again, the first time; each further time twice as long.
const RETRY: Duration = Duration::from_secs(60);
/// The same for a server that answered: some keep out whoever comes more often than once in an hour.
const RETRY_ANSWERED: Duration = Duration::from_secs(3600);
/// How long after a start a list that is out of date waits at most: hosts that start together do not ask together.
const START_SPREAD: Duration = Duration::from_secs(30);
/// A time is put off by up to this part of it.
const SPREAD: u32 = 10;
/// How often a copy that could not be written is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(30);
/// How long nothing is looked for where there is no feed.
const A_DAY: Duration = Duration::from_secs(86_400);
/// What a copy's file is called behind the feed's name.
const COPY: &str = ".list";

/// All feeds.
pub(super) struct Feeds {
    feeds: RwLock<Vec<Arc<Feed>>>,
    /// Where the copies lie.
    directory: PathBuf,
    /// Told when another time may be the next.
    changed: Notify,
}

/// One feed, as one configuration has it.
pub(super) struct Feed {
    config: config::Feed,
    source: Source,
    state: Mutex<State>,
    /// Held while the source is asked and what it says is taken in.
    asking: Arc<tokio::sync::Mutex<()>>,
    /// Held by a look at the file, which may hang in the system for longer than anybody waits for it.
    looking: Arc<tokio::sync::Mutex<()>>,
    counts: Arc<Counts>,
}

/// What is counted since the daemon's start.
#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    /// Zero: never.
    last_hit: AtomicU64,
    results: [AtomicU64; Outcome::ALL.len()],
}

#[derive(Clone, Debug, Default)]
struct State {
    /// `None`: no list was ever good.
    list: Option<InForce>,
    next: UnixTime,
    failures: u32,
    last: Option<(UnixTime, Outcome)>,
    /// Why the last try changed nothing.
    trouble: Option<String>,
    /// The list that was refused, for an operator to look at and to force.
    pending: Option<Arc<Pending>>,
    /// What is wrong with the copy.
    unsaved: Option<String>,
    /// The state of the file that was looked at last.
    seen: Option<Stamp>,
}

/// The list whose entries stand in the set.
#[derive(Clone, Debug)]
struct InForce {
    /// Where it came from: `FeedSource::identity`.
    source: String,
    validators: Validators,
    taken: UnixTime,
    /// When the source last said that this is its list.
    checked: UnixTime,
    entries: usize,
    coverage: Coverage,
    notes: Vec<String>,
}

/// A list that was understood.
#[derive(Debug, Default)]
struct Pending {
    /// In order, each once.
    prefixes: Vec<IpNet>,
    validators: Validators,
    notes: Vec<String>,
    at: UnixTime,
    /// What speaks against it.
    why: String,
}

/// How asking a source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Taken,
    Unchanged,
    Refused,
    Failed,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Taken, Self::Unchanged, Self::Refused, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Feed {
    fn new(config: &config::Feed, state: State, counts: Arc<Counts>) -> Arc<Self> {
        let source = Source::Feed(Arc::clone(config.name.shared()));
        let (asking, looking) = (Arc::default(), Arc::default());
        Arc::new(Self { config: config.clone(), source, state: Mutex::new(state), asking, looking, counts })
    }

    fn name(&self) -> &str {
        self.config.name.as_str()
    }

    fn permits(&self) -> bool {
        self.config.action == StaticAction::Permit
    }

    fn is_due(&self, now: UnixTime) -> bool {
        let refresh = self.config.refresh;
        self.state().next.is_due(now, refresh + refresh / SPREAD)
    }

    // A panic elsewhere leaves at worst a field of an older moment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feeds {
    /// The feeds of a configuration, with their last good copies, which go into the set.
    pub(super) fn open(directory: PathBuf, wanted: &[config::Feed], set: &mut StaticSet, now: UnixTime) -> Self {
        let feeds: Vec<_> = wanted.iter().map(|config| begin_with_copy(config, &directory, set, now)).collect();
        Self { feeds: RwLock::new(feeds), directory, changed: Notify::new() }
    }

    fn all(&self) -> RwLockReadGuard<'_, Vec<Arc<Feed>>> {
        self.feeds.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Option<Arc<Feed>> {
        self.all().iter().find(|feed| feed.name() == name).map(Arc::clone)
    }

    /// Whether a feed is still one of the configuration's.
    fn has(&self, feed: &Arc<Feed>) -> bool {
        self.all().iter().any(|other| Arc::ptr_eq(other, feed))
    }

    /// The feeds of another configuration; those that stay keep what is known of them. Returns the feeds as they were. What
    /// they say in the set is [`Daemon::renew_statics`]'s to change.
    pub(super) fn reconfigure(&self, wanted: &[config::Feed], now: UnixTime) -> Vec<Arc<Feed>> {
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        let new = wanted.iter().map(|config| {
            match feeds.iter().find(|feed| feed.config.name == config.name) {
                Some(known) if known.config == *config => Arc::clone(known),
                // What was denied is not permitted by a word in the configuration: that list has to pass other rails.
                Some(known) if known.permits() == (config.action == StaticAction::Permit) => {
                    let state = State { next: now, seen: None, pending: None, ..known.state().clone() };
                    Feed::new(config, state, Arc::clone(&known.counts))
                }
                _ => Feed::new(config, State { next: now, ..State::default() }, Arc::default()),
            }
        });
        let new = new.collect();
        std::mem::replace(&mut *feeds, new)
    }

    /// Takes [`Feeds::reconfigure`] back.
    pub(super) fn give_back(&self, before: Vec<Arc<Feed>>) {
        *self.feeds.write().unwrap_or_else(PoisonError::into_inner) = before;
    }

    /// Other feeds are in force for good: copies of those that are no more go, and what is new is asked for. Blocks.
    pub(super) fn reconfigured(&self) {
        self.sweep();
        self.changed.notify_one();
    }

    /// Removes copies that belong to no feed.
    fn sweep(&self) {
        let Ok(files) = fs::read_dir(&self.directory) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            let feed = name.to_str().and_then(|name| name.strip_suffix(COPY));
            if let Some(feed) = feed.filter(|feed| !self.all().iter().any(|known| known.name() == *feed)) {
                match fs::remove_file(file.path()) {
                    Ok(()) => info!("feed {feed}: not in the configuration any more, its copy is removed"),
                    Err(error) => warn!("{} cannot be removed: {error}", file.path().display()),
                }
            }
        }
    }

    /// Entries of a feed have met so many packets.
    pub(super) fn hit(&self, name: &str, weight: u64, at: UnixTime) {
        if let Some(feed) = self.all().iter().find(|feed| feed.name() == name) {
            feed.counts.hits.fetch_add(weight, Ordering::Relaxed);
            feed.counts.last_hit.fetch_max(at.0, Ordering::Relaxed);
        }
    }

    /// The feeds whose sources are to be asked now, each to be asked by nobody else meanwhile.
    fn due(&self, now: UnixTime) -> Vec<(Arc<Feed>, OwnedMutexGuard<()>)> {
        let due = |feed: &Arc<Feed>| {
            let alone = Arc::clone(&feed.asking).try_lock_owned().ok()?;
            feed.is_due(now).then(|| (Arc::clone(feed), alone))
        };
        self.all().iter().filter_map(due).collect()
    }

    /// When the next one is due; those that are being asked tell their time when they have been.
    fn next(&self) -> Option<UnixTime> {
        let feeds = self.all();
        feeds.iter().filter(|feed| feed.asking.try_lock().is_ok()).map(|feed| feed.state().next).min()
    }

    /// Those whose copy could not be written.
    fn unsaved(&self) -> Vec<Arc<Feed>> {
        self.all().iter().filter(|feed| feed.state().unsaved.is_some()).map(Arc::clone).collect()
    }

    /// What is not as it should be, a sentence each.
    pub(super) fn troubles(&self) -> Vec<String> {
        let feeds = self.all();
        let troubles = feeds.iter().flat_map(|feed| {
            let state = feed.state();
            let unsaved = state.unsaved.as_ref().map(|why| format!("feed {}: {why}", feed.name()));
            [state.trouble.clone(), unsaved]
        });
        troubles.flatten().collect()
    }

    fn copy(&self, feed: &Feed) -> PathBuf {
        copy_of(&self.directory, feed.name())
    }
}

fn copy_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}{COPY}"))
}

/// A feed at the daemon's start. What its copy holds was judged when it was taken.
fn begin_with_copy(config: &config::Feed, directory: &Path, set: &mut StaticSet, now: UnixTime) -> Arc<Feed> {
    let mut state = State { next: now, ..State::default() };
    let permits = config.action == StaticAction::Permit;
    match Copied::read(&copy_of(directory, config.name.as_str())) {
        Ok(Some(copied)) if copied.head.permits == permits => {
            if copied.head.source == config.source.identity() {
                let soon = START_SPREAD.min(config.refresh).mul_f64(share());
                state.next = copied.checked.plus(spread(config.refresh)).max(now.plus(soon));
            }
            let list = put(config, copied, set);
            // Nobody can have confirmed it after now: that clock was wrong.
            state.list = Some(InForce { checked: list.checked.min(now), ..list });
        }
        // A copy of the other kind is none of this feed.
        Ok(_) => {}
        Err(error) => {
            let why = format!("its last good copy cannot be used: {error}");
            warn!("feed {}: {why}", config.name);
            state.unsaved = Some(why);
        }
    }
    Feed::new(config, state, Arc::default())
}

/// Puts a copy's entries into the set.
fn put(config: &config::Feed, copied: Copied, set: &mut StaticSet) -> InForce {
    let mut origins: HashMap<UnixTime, Arc<Origin>> = HashMap::new();
    let source = Source::Feed(Arc::clone(config.name.shared()));
    for &(prefix, added) in &copied.entries {
        let origin = origins.entry(added).or_insert_with(|| {
            let source = source.clone();
            Arc::new(Origin { source, comment: None, added })
        });
        // It stood in a set when it was written: there are no bits behind its length.
        let _ = set.say(prefix, config.action, origin);
    }
    let prefixes: Vec<_> = copied.entries.iter().map(|(prefix, _)| *prefix).collect();
    InForce {
        source: copied.head.source,
        validators: copied.head.validators,
        taken: copied.head.taken,
        checked: copied.checked,
        entries: prefixes.len(),
        coverage: Coverage::of(&prefixes),
        notes: Vec::new(),
    }
}

/// Somewhere between 0 and 1, another time elsewhere.
fn share() -> f64 {
    (RandomState::new().build_hasher().finish() % 1000) as f64 / 1000.0
}

/// A little longer: feeds, and hosts, do not ask together for ever because they once did.
fn spread(time: Duration) -> Duration {
    time + (time / SPREAD).mul_f64(share())
}

/// Begins to look after the feeds.
pub(super) fn begin(daemon: &Arc<Daemon>) {
    // The configuration may have lost a feed while no daemon was there.
    daemon.feeds.sweep();
    tokio::spawn(keep(Arc::clone(daemon)));
}

async fn keep(daemon: Arc<Daemon>) {
    let work = async {
        loop {
            for (feed, alone) in daemon.feeds.due(Now::read().unix) {
                let daemon = Arc::clone(&daemon);
                tokio::spawn(async move {
                    tokio::select! {
                        // What went wrong was told.
                        _ = daemon.ask_feed(&feed, false) => {}
                        () = daemon.retired.cancelled() => {}
                    }
                    drop(alone);
                    daemon.feeds.changed.notify_one();
                });
            }
            tokio::time::sleep(PAUSE).await;
            let mut until_next = daemon.feeds.next().map_or(A_DAY, |next| next.since(Now::read().unix));
            let unsaved = daemon.feeds.unsaved();
            if !unsaved.is_empty() {
                until_next = until_next.min(SAVE_AGAIN);
            }
            tokio::select! {
                () = tokio::time::sleep(until_next) => {}
                () = daemon.feeds.changed.notified() => {}
            }
            for feed in unsaved {
                let daemon = Arc::clone(&daemon);
                let _ = spawn_blocking(move || daemon.save_feed_again(&feed)).await;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = daemon.retired.cancelled() => {}
    }
}

/// How long to wait after a failure.
fn pause(config: &config::Feed, failures: u32, answered: bool) -> Duration {
    let first = match config.source {
        FeedSource::Url(..) if answered => RETRY_ANSWERED,
        FeedSource::Url(..) | FeedSource::File(..) | FeedSource::Spf(_) => RETRY,
    };
    spread(first.saturating_mul(1 << failures.min(16)).min(config.refresh))
}

#[cfg(test)]
mod tests;
