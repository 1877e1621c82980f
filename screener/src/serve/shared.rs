//! What the daemon does with the shared store: it tells what this host learns, takes in what the others do, and says how that
//! goes.
//!
//! All of it happens on a thread of its own with a runtime of its own, so that nothing here can hold up a session, not even a
//! name that is looked up for long or a certificate store that is read. Sessions know nothing of it: they change the ledger,
//! and this follows the ledger. What cannot be told waits by name in a bounded queue; where that runs over everything is told.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::client::ClientKey;
use crate::clock::{Now, UnixTime};
use crate::config::Config;
use crate::control::api;
use crate::ledger::{self, Change, Changes, OffenderChange, OffenderChanges, OffenderWitness, What};
use crate::share::{Content, Error, Finder, Link, News, Position, Queue, Reader, Settings, Word};

use super::answers::stamp;
use super::aside;
use super::daemon::Daemon;
use super::shared_offenders::{untold, worth_telling};

/// How many clients, and how many offenders, may wait to be told about. Their names take 6 MB each.
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
    queue: Queue<ClientKey>,
    offenders: Queue<IpNet>,
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

impl State {
    fn queued(&self) -> usize {
        self.queue.len() + self.offenders.len()
    }

    fn is_everything(&self) -> bool {
        self.queue.is_everything() || self.offenders.is_everything()
    }

    fn tell_everything(&mut self) {
        self.queue.tell_everything();
        self.offenders.tell_everything();
    }

    fn begin_everything(&mut self) {
        self.queue.begin_everything();
        self.offenders.begin_everything();
    }

    fn put_back(&mut self) {
        self.queue.put_back();
        self.offenders.put_back();
    }
}

/// What changes here.
struct Followed {
    passes: Changes,
    offenders: OffenderChanges,
}

/// For what is taken in not to come back out of [`Followed`].
#[derive(Clone)]
struct Witnesses {
    passes: ledger::Witness,
    offenders: OffenderWitness,
}

/// Of whom others have said something.
#[derive(Default)]
struct Heard {
    /// And whether this host knows more about each.
    clients: Vec<(ClientKey, bool)>,
    /// Those of whom this host knows more.
    offenders: Vec<IpNet>,
}

impl Followed {
    fn witnesses(&self) -> Witnesses {
        Witnesses { passes: self.passes.witness(), offenders: self.offenders.witness() }
    }

    /// What has changed by now waits to be told.
    fn queue(&mut self, daemon: &Daemon, sharing: &Sharing) {
        let (passes, offenders) = (self.passes.take(BATCH), self.offenders.take(BATCH));
        sharing.queue(daemon, passes, offenders);
    }

    /// Waits for a change, which waits to be told then. Dropping the future loses nothing.
    async fn queue_next(&mut self, daemon: &Daemon, sharing: &Sharing) {
        tokio::select! {
            passes = self.passes.next(BATCH) => sharing.queue(daemon, passes, Vec::new()),
            offenders = self.offenders.next(BATCH) => sharing.queue(daemon, Vec::new(), offenders),
        }
    }
}

impl Sharing {
    /// `None`: nothing is shared.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let store = config.ledger.shared.clone()?;
        let state = State {
            queue: Queue::new(WAITING),
            offenders: Queue::new(WAITING),
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

    fn queue(&self, daemon: &Daemon, passes: Vec<Change>, offenders: Vec<OffenderChange>) {
        let told = worth_telling(&daemon.ledger, offenders, Now::read().unix);
        let mut state = self.state();
        state.queue.add(passes.into_iter().map(|change| change.client));
        state.offenders.add(told);
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
            queued: state.queued(),
            queue_overflows: state.queue.overflows() + state.offenders.overflows(),
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
    let daemon = Arc::clone(daemon);
    aside::run("shared-store", move || async move {
        tokio::select! {
            () = share(&daemon) => {}
            () = daemon.retired.cancelled() => {}
        }
    })
}

async fn share(daemon: &Daemon) {
    let Some(sharing) = &daemon.sharing else { return };
    let finder = Finder::new(sharing.settings.clone());
    let mut followed = Followed { passes: daemon.ledger.news(), offenders: daemon.ledger.offender_changes() };
    // Those there are now are among everything that is told first.
    drop(followed.offenders.take(usize::MAX));
    // Whatever happened while no daemon was there, and whatever could not be told before its end.
    sharing.state().tell_everything();
    let mut pause = RETRY;
    loop {
        let session = Session { daemon, sharing, finder: &finder };
        let end = session.run(&mut followed).await;
        {
            let mut state = sharing.state();
            state.put_back();
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
        while tokio::time::timeout_at(end, followed.queue_next(daemon, sharing)).await.is_ok() {}
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
            state.queued()
        };
        let waiting = if queued > 0 { format!(" {queued} changes wait.") } else { String::new() };
        let text = format!("nothing is shared by {store}: {error}. Passes of this host count here as ever.{waiting}");
        if self.daemon.degraded.set("shared", text.clone()) {
            warn!("{text}");
        } else {
            debug!("{text}");
        }
    }

    async fn run(self, followed: &mut Followed) -> End {
        match self.connected(followed).await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn connected(self, followed: &mut Followed) -> Result<End, End> {
        let (mut link, mut reader) = self.found(followed).await?;
        let master = self.finder.master().await?;
        let content = link.content(self.daemon.key_length.bits()).await?;
        self.look_at_clock(&mut link).await?;
        let known = {
            let mut state = self.sharing.state();
            state.phase = Phase::Joining;
            let everything = state.is_everything();
            state.known.take().filter(|(known, _)| !everything && known.is_the_same_as(&content))
        };
        let begun = Instant::now();
        match known {
            Some((_, position)) if link.reaches_back_to(position).await? => reader.go_on_from(position),
            _ => {
                let end = link.end().await?;
                self.make_equal(&mut link, &followed.witnesses()).await?;
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
        let hearing = self.hear(link.clone(), reader, &content, followed.witnesses());
        let telling = self.tell(link, followed);
        Ok(tokio::select! {
            end = hearing => end.err().unwrap_or(End::Anew("it is read anew")),
            end = telling => end,
            () = self.watch_for_another_master(master) => End::Anew("the sentinels have made another server the master"),
        })
    }

    /// Connects. That may take long: what changes meanwhile is taken over from the ledger, so that what waits is bounded.
    async fn found(&self, followed: &mut Followed) -> Result<(Link, Reader), Error> {
        let connecting = self.finder.connect();
        tokio::pin!(connecting);
        loop {
            tokio::select! {
                connected = &mut connecting => return connected,
                () = followed.queue_next(self.daemon, self.sharing) => {}
            }
        }
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
    async fn make_equal(&self, link: &mut Link, witnesses: &Witnesses) -> Result<(), End> {
        self.sharing.state().begin_everything();
        let done = self.all(link, witnesses).await;
        if done.is_err() {
            self.sharing.state().tell_everything();
        }
        Ok(done?)
    }

    async fn all(&self, link: &mut Link, witnesses: &Witnesses) -> Result<(), Error> {
        let ledger = &self.daemon.ledger;
        let (mut known, mut offenders) = (HashSet::new(), HashMap::new());
        let mut cursor = 0;
        loop {
            let (next, news) = link.some(cursor).await?;
            self.sharing.contact();
            offenders.extend(news.offenders.iter().cloned());
            let heard = self.take_in(news, witnesses);
            known.extend(heard.clients.into_iter().filter(|(_, ahead)| !ahead).map(|(client, _)| client));
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let now = Now::read().unix;
        for words in untold(ledger, &offenders, now).chunks(BATCH) {
            link.tell_offenders(words, now).await?;
            self.sharing.state().told += words.len() as u64;
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

    /// Takes words into the ledger.
    fn take_in(&self, news: News, witnesses: &Witnesses) -> Heard {
        let now = Now::read().unix;
        let mut heard = 0;
        let mut said = Heard::default();
        for Word { client, state } in news.words {
            let client = self.daemon.key(client);
            let taken = self.daemon.ledger.take_in(client, &state, self.sharing.ledgers(), now, &witnesses.passes);
            heard += u64::from(taken.changed);
            if taken.revoked {
                info!("{client}: pass taken back, another host has revoked it");
                self.daemon.ledger.note(client, What::Revoked, "by another host".to_owned(), now);
            }
            said.clients.push((client, taken.ahead));
        }
        for (network, word) in news.offenders {
            let taken = self.daemon.ledger.take_in_offence(network, &word, now, &witnesses.offenders);
            heard += u64::from(taken.changed);
            said.offenders.extend(taken.ahead.then_some(network));
        }
        let mut state = self.sharing.state();
        state.heard += heard;
        state.unreadable += news.unreadable;
        said
    }

    /// Takes in what others say, as they say it, and watches whether the store is still what it was.
    async fn hear(
        self,
        mut link: Link,
        mut reader: Reader,
        content: &Content,
        witnesses: Witnesses,
    ) -> Result<(), End> {
        let mut checked = Instant::now();
        loop {
            let before = reader.position();
            let news = reader.news().await?;
            let more = news.more;
            let heard = self.take_in(news, &witnesses);
            {
                let mut state = self.sharing.state();
                state.known = Some((content.clone(), reader.position()));
                state.queue.add(heard.clients.into_iter().filter(|(_, ahead)| *ahead).map(|(client, _)| client));
                state.offenders.add(heard.offenders);
            }
            self.sharing.contact();
            self.sharing.more.notify_one();
            if more && before != Position::default() && !link.reaches_back_to(before).await? {
                self.sharing.state().tell_everything();
                return Err(End::Anew("changes came faster than they were read, so everything is looked at"));
            }
            if checked.elapsed() >= CHECK {
                checked = Instant::now();
                if !link.still_has(content).await? {
                    self.sharing.state().tell_everything();
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
    async fn tell(self, mut link: Link, followed: &mut Followed) -> End {
        loop {
            followed.queue(self.daemon, self.sharing);
            let (clients, offenders) = {
                let mut state = self.sharing.state();
                if state.is_everything() {
                    return End::Anew("too much has changed to be told singly, so everything is looked at");
                }
                (state.queue.take(BATCH), state.offenders.take(BATCH))
            };
            if clients.is_empty() && offenders.is_empty() {
                tokio::select! {
                    () = followed.queue_next(self.daemon, self.sharing) => {}
                    () = self.sharing.more.notified() => {}
                }
                continue;
            }
            let now = Now::read().unix;
            let word = |network| (network, self.daemon.ledger.offence_word(network, now));
            let offences: Vec<_> = offenders.into_iter().map(word).collect();
            let told = link.tell_offenders(&offences, now).await;
            let told = match told {
                Ok(()) => link.tell(&self.words(clients.into_iter())).await,
                Err(error) => Err(error),
            };
            match told {
                Ok(new) => {
                    let mut state = self.sharing.state();
                    state.told += new + offences.len() as u64;
                    state.queue.told();
                    state.offenders.told();
                }
                Err(error) => return End::Failed(error),
            }
            self.sharing.contact();
        }
    }
}
