//! What the daemon does with the shared store: it tells what this host learns, takes in what the others do, and says how that
//! goes.
//!
//! All of it happens on a thread of its own with a runtime of its own, so that nothing here can hold up a session, not even a
//! name that is looked up for long or a certificate store that is read. Sessions know nothing of it: they change the ledger,
//! and this follows the ledger. What cannot be told waits by name in a bounded queue; where that runs over everything is told.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::client::ClientKey;
use crate::clock::{Now, UnixTime};
use crate::config::Config;
use crate::control::api;
use crate::ledger::{self, Changes, What};
use crate::share::{Content, Error, Finder, Link, News, Position, Queue, Reader, Settings, Word};

use super::answers::stamp;
use super::daemon::Daemon;

/// How many clients may wait to be told about. Their names take 6 MB.
const WAITING: usize = 100_000;
/// How many are told about in one go.
const BATCH: usize = 500;
/// How often the store is asked whether it is still what it was.
const CHECK: Duration = Duration::from_secs(1);
/// How often the sentinels are asked who the master is.
const ASK_SENTINELS: Duration = Duration::from_secs(5);
/// How long after a failure the store is tried again: at first, at most, and where somebody has to do something first.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(3);
const RETRY_AFTER_SOMEBODY: Duration = Duration::from_secs(10);
/// How far the store's clock and this host's may be apart before that is said: expiries are moments, so a pass counts for so
/// much longer or shorter elsewhere.
const SKEW: Duration = Duration::from_secs(30);

/// How it stands with the shared store.
pub(super) struct Sharing {
    settings: Settings,
    host: String,
    state: Mutex<State>,
    /// There is something in the queue that the ledger did not put there.
    more: Notify,
}

struct State {
    queue: Queue,
    /// What is being told.
    in_flight: Vec<ClientKey>,
    /// What the store had, and how far it was read.
    known: Option<(Content, Position)>,
    phase: Phase,
    told: u64,
    heard: u64,
    unreadable: u64,
    failures: u64,
    last_contact: Option<UnixTime>,
    round_trip: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It cannot be reached, or not used.
    Away,
    /// What is there and what is here are made equal.
    Joining,
    /// Changes go to and fro as they happen.
    Sharing,
}

/// Why a connection was given up.
enum End {
    Failed(Error),
    /// Nothing failed, but what is there may be something else than what was read.
    Anew(&'static str),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Sharing {
    /// `None`: nothing is shared.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let store = config.ledger.shared.clone()?;
        let state = State {
            queue: Queue::new(WAITING),
            in_flight: Vec::new(),
            known: None,
            phase: Phase::Away,
            told: 0,
            heard: 0,
            unreadable: 0,
            failures: 0,
            last_contact: None,
            round_trip: None,
        };
        let host = config.shared.name();
        let settings = Settings { store, shared: config.shared.clone() };
        Some(Self { settings, host, state: Mutex::new(state), more: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledgers(&self) -> ledger::Sharing<'_> {
        ledger::Sharing { host: &self.host, manual: self.settings.shared.manual }
    }

    fn contact(&self) {
        self.state().last_contact = Some(Now::read().unix);
    }

    /// For `status`.
    pub(super) fn shown(&self) -> api::Shared {
        let state = self.state();
        api::Shared {
            store: self.settings.store.to_string(),
            name: self.host.clone(),
            state: match state.phase {
                Phase::Away => "away",
                Phase::Joining => "joining",
                Phase::Sharing => "sharing",
            }
            .to_owned(),
            queued: state.queue.len() + state.in_flight.len(),
            queue_overflows: state.queue.overflows(),
            told: state.told,
            heard: state.heard,
            unreadable: state.unreadable,
            failures: state.failures,
            last_contact: state.last_contact.map(stamp),
            round_trip_ms: state.round_trip.map(|time| time.as_secs_f64() * 1e3),
        }
    }
}

/// Begins to share, if that is wanted.
pub(super) fn begin(daemon: &Arc<Daemon>) -> anyhow::Result<()> {
    if daemon.sharing.is_none() {
        return Ok(());
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime to share with")?;
    let daemon = Arc::clone(daemon);
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                () = share(&daemon) => {}
                () = daemon.retired.cancelled() => {}
            }
        });
        // A lookup of a name may still hang in the system's resolver; nobody waits for it.
        runtime.shutdown_background();
    };
    std::thread::Builder::new().name("shared-store".to_owned()).spawn(run).context("no thread to share with")?;
    Ok(())
}

async fn share(daemon: &Daemon) {
    let Some(sharing) = &daemon.sharing else { return };
    let finder = Finder::new(sharing.settings.clone());
    let mut changes = daemon.ledger.news();
    // Whatever happened while no daemon was there, and whatever could not be told before its end.
    sharing.state().queue.tell_everything();
    let mut pause = RETRY;
    loop {
        let session = Session { daemon, sharing, finder: &finder };
        let end = session.run(&mut changes).await;
        {
            let mut state = sharing.state();
            let unfinished = std::mem::take(&mut state.in_flight);
            state.queue.add(unfinished);
            if state.phase == Phase::Sharing {
                pause = RETRY;
            }
            state.phase = Phase::Away;
        }
        let wait = match end {
            End::Anew(why) => {
                info!("the shared store {}: {why}", sharing.settings.store);
                jittered(RETRY)
            }
            End::Failed(error) => {
                session.failed(&error);
                let wait = if error.needs_somebody() { RETRY_AFTER_SOMEBODY } else { jittered(pause) };
                pause = (pause * 2).min(RETRY_MOST);
                wait
            }
        };
        let end = tokio::time::Instant::now() + wait;
        // Names are taken over from the ledger meanwhile, so that what waits is bounded.
        while let Ok(news) = tokio::time::timeout_at(end, changes.next(BATCH)).await {
            sharing.state().queue.add(news.into_iter().map(|change| change.client));
        }
    }
}

/// Somewhere between half and the whole, so that hosts that lost the store together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let share = RandomState::new().build_hasher().finish() % 1000;
    pause.mul_f64(0.5 + share as f64 / 2000.0)
}

/// One connection's life.
#[derive(Clone, Copy)]
struct Session<'a> {
    daemon: &'a Daemon,
    sharing: &'a Sharing,
    finder: &'a Finder,
}

impl Session<'_> {
    fn failed(&self, error: &Error) {
        let store = &self.sharing.settings.store;
        let queued = {
            let mut state = self.sharing.state();
            state.failures += 1;
            state.queue.len()
        };
        let waiting = if queued > 0 { format!(" {queued} changes wait.") } else { String::new() };
        let text = format!("nothing is shared by {store}: {error}. Passes of this host count here as ever.{waiting}");
        if self.daemon.degraded.set("shared", text.clone()) {
            warn!("{text}");
        } else {
            debug!("{text}");
        }
    }

    async fn run(self, changes: &mut Changes) -> End {
        match self.connected(changes).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn connected(self, changes: &mut Changes) -> Result<End, End> {
        let (mut link, mut reader) = self.finder.connect().await?;
        let master = self.finder.master().await?;
        let content = link.content(self.daemon.key_length.bits()).await?;
        self.look_at_clock(&mut link).await?;
        let known = {
            let mut state = self.sharing.state();
            state.phase = Phase::Joining;
            let everything = state.queue.is_everything();
            state.known.take().filter(|(known, _)| !everything && known.is_the_same_as(&content))
        };
        let begun = Instant::now();
        match known {
            Some((_, position)) if link.reaches_back_to(position).await? => reader.go_on_from(position),
            _ => {
                let end = link.end().await?;
                self.make_equal(&mut link, changes).await?;
                reader.go_on_from(end);
                debug!("made equal with the shared store in {:?}", begun.elapsed());
            }
        }
        {
            let mut state = self.sharing.state();
            state.phase = Phase::Sharing;
            state.known = Some((content.clone(), reader.position()));
        }
        self.sharing.contact();
        let store = &self.sharing.settings.store;
        if self.daemon.degraded.clear("shared") {
            info!("passes are shared by {store} again");
        } else {
            info!("passes are shared by {store}");
        }
        let hearing = self.hear(link.clone(), reader, &content, changes.witness());
        let telling = self.tell(link, changes);
        Ok(tokio::select! {
            end = hearing => end.err().unwrap_or(End::Anew("it is read anew")),
            end = telling => end,
            () = self.watch_for_another_master(master) => End::Anew("the sentinels have made another server the master"),
        })
    }

    async fn look_at_clock(&self, link: &mut Link) -> Result<(), End> {
        let theirs = link.clock().await?;
        let ours = Now::read().unix;
        let apart = theirs.since(ours).max(ours.since(theirs));
        if apart > SKEW {
            let text = format!(
                "the clocks of this host and of the shared store are {} s apart: passes count for that much longer or shorter on \
                 one of them; set both by NTP",
                apart.as_secs()
            );
            if self.daemon.degraded.set("shared_clock", text.clone()) {
                warn!("{text}");
            }
        } else {
            self.daemon.degraded.clear("shared_clock");
        }
        Ok(())
    }

    /// Takes in all that is there, and tells all that is not.
    async fn make_equal(&self, link: &mut Link, changes: &Changes) -> Result<(), End> {
        self.sharing.state().queue.begin_everything();
        let done = self.all(link, changes).await;
        if done.is_err() {
            self.sharing.state().queue.tell_everything();
        }
        Ok(done?)
    }

    async fn all(&self, link: &mut Link, changes: &Changes) -> Result<(), Error> {
        let ledger = &self.daemon.ledger;
        let mut known = HashSet::new();
        let mut cursor = 0;
        loop {
            let (next, news) = link.some(cursor).await?;
            self.sharing.contact();
            for (client, ahead) in self.take_in(news, &changes.witness()) {
                if !ahead {
                    known.insert(client);
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let mut after = None;
        loop {
            let clients = ledger.clients_after(after, BATCH);
            let Some(&last) = clients.last() else { return Ok(()) };
            after = Some(last);
            let words = self.words(clients.into_iter().filter(|client| !known.contains(client)));
            let new = link.tell(&words).await?;
            self.sharing.state().told += new;
        }
    }

    fn words(&self, clients: impl Iterator<Item = ClientKey>) -> Vec<Word> {
        let now = Now::read().unix;
        let word = |client: ClientKey| {
            let state = self.daemon.ledger.state(client, self.sharing.ledgers(), now)?;
            Some(Word { client: client.address(), state })
        };
        clients.filter_map(word).collect()
    }

    /// Takes words into the ledger. Gives the clients, and whether this host knows more about each.
    fn take_in(&self, news: News, witness: &ledger::Witness) -> Vec<(ClientKey, bool)> {
        let now = Now::read().unix;
        let mut heard = 0;
        let mut taken_in = Vec::with_capacity(news.words.len());
        for Word { client, state } in news.words {
            let client = self.daemon.key(client);
            let taken = self.daemon.ledger.take_in(client, &state, self.sharing.ledgers(), now, witness);
            heard += u64::from(taken.changed);
            if taken.revoked {
                info!("{client}: pass taken back, another host has revoked it");
                self.daemon.ledger.note(client, What::Revoked, "by another host".to_owned(), now);
            }
            taken_in.push((client, taken.ahead));
        }
        let mut state = self.sharing.state();
        state.heard += heard;
        state.unreadable += news.unreadable;
        taken_in
    }

    /// Takes in what others say, as they say it, and watches whether the store is still what it was.
    async fn hear(
        self,
        mut link: Link,
        mut reader: Reader,
        content: &Content,
        witness: ledger::Witness,
    ) -> Result<(), End> {
        let mut checked = Instant::now();
        loop {
            let before = reader.position();
            let news = reader.news().await?;
            let more = news.more;
            let ahead = self.take_in(news, &witness);
            let ahead: Vec<_> = ahead.into_iter().filter(|(_, ahead)| *ahead).map(|(client, _)| client).collect();
            {
                let mut state = self.sharing.state();
                state.known = Some((content.clone(), reader.position()));
                state.queue.add(ahead);
            }
            self.sharing.contact();
            self.sharing.more.notify_one();
            if more && before != Position::default() && !link.reaches_back_to(before).await? {
                self.sharing.state().queue.tell_everything();
                return Err(End::Anew("changes came faster than they were read, so everything is looked at"));
            }
            if checked.elapsed() >= CHECK {
                checked = Instant::now();
                if !link.still_has(content).await? {
                    self.sharing.state().queue.tell_everything();
                    return Err(End::Anew("it was emptied; what this host knows is put back"));
                }
                self.sharing.state().round_trip = Some(checked.elapsed());
            }
        }
    }

    /// Returns when the sentinels lead elsewhere: a master that was cut off from them still answers.
    async fn watch_for_another_master(self, master: Option<String>) {
        if master.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(ASK_SENTINELS).await;
            // Sentinels that are away do no harm while the master is there.
            if self.finder.master().await.is_ok_and(|now| now != master) {
                return;
            }
        }
    }

    /// Tells what changes here.
    async fn tell(self, mut link: Link, changes: &mut Changes) -> End {
        loop {
            let fresh: Vec<_> = changes.take(BATCH).into_iter().map(|change| change.client).collect();
            let clients = {
                let mut state = self.sharing.state();
                state.queue.add(fresh);
                if state.queue.is_everything() {
                    return End::Anew("too much has changed to be told singly, so everything is looked at");
                }
                state.in_flight = state.queue.take(BATCH);
                state.in_flight.clone()
            };
            if clients.is_empty() {
                tokio::select! {
                    fresh = changes.next(BATCH) => {
                        self.sharing.state().queue.add(fresh.into_iter().map(|change| change.client));
                    }
                    () = self.sharing.more.notified() => {}
                }
                continue;
            }
            match link.tell(&self.words(clients.into_iter())).await {
                Ok(new) => {
                    let mut state = self.sharing.state();
                    state.told += new;
                    state.in_flight.clear();
                }
                Err(error) => return End::Failed(error),
            }
            self.sharing.contact();
        }
    }
}
