//! What passes between the daemon's memory and the kernel's maps: passes down, hits up.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};

use crate::client::ClientKey;
use crate::clock::{Now, UnixTime};
use crate::config::Config;
use crate::feed::{DenyAction, Source, StaticAction, StaticSet};
use crate::kernel::text::Line;
use crate::kernel::{EventStream, Kernel, KernelError, PassRoom};
use crate::ledger::{Change, Changes, Dropped, Ledger, Pass, What};
use crate::pass::TestSet;

use super::daemon::Daemon;

/// How often the kernel is told how many findings shall become events.
const ADAPT: Duration = Duration::from_secs(1);

/// How often the maps of passes are looked after, and every how many times the uses of passes are taken over.
const TEND: Duration = Duration::from_secs(60);
const USES_ROUNDS: usize = 10;
/// A use of a pass so much later than what is known of its client is noted.
const USE_IS_NEWS: Duration = Duration::from_secs(3600);

/// How long a round of changes rests before the next: where passes are earned by the hundred each second, a thread that is woken
/// for each takes more time than the entries do. A change after a silence does not wait.
const REST: Duration = Duration::from_millis(2);

/// How many changes are taken from the ledger at a time.
const PAGE: usize = 4096;

/// Until when a pass leaves the client to the MTA, if a pass must cover these tests; `None`: it does not, some test is owed.
pub(super) fn valid_until(pass: &Pass, enabled: TestSet) -> Option<UnixTime> {
    pass.stamps.complete_until(enabled).filter(|&until| until > Now::read().unix)
}

/// Until when the kernel is to give the client to the MTA. Never, where a proxy's address is among the client's: its
/// connections begin with a header that only the daemon takes.
fn kernel_until(client: ClientKey, pass: &Pass, config: &Config) -> Option<UnixTime> {
    let proxies = config.listen.meets_proxy(client.network(config.ledger.ipv6_prefix));
    valid_until(pass, config.tests.enabled()).filter(|_| !proxies)
}

/// How many entries a log line names.
const NAMED: usize = 3;

/// Says which entries the kernel holds that nobody here knows: they go when the lists are made equal. A command made them
/// while no daemon was there, or they were taken out of the configuration.
pub(super) fn tell_strangers(statics: &StaticSet, kernel: &Kernel) {
    let (mut permits, mut denies, mut named) = (0_usize, 0_usize, Vec::new());
    for (prefix, action) in kernel.statics() {
        let (known, count) = match action {
            StaticAction::Permit => (statics.permits_exactly(prefix), &mut permits),
            StaticAction::Deny(_) => (statics.denies_exactly(prefix).is_some(), &mut denies),
        };
        if !known {
            *count += 1;
            if named.len() < NAMED {
                named.push(Line::Static(prefix, action).to_string());
            }
        }
    }
    if !named.is_empty() {
        let more = (permits + denies).saturating_sub(named.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        warn!(
            "{permits} permits and {denies} denies leave the kernel, because neither the configuration nor a command to a \
             daemon made them: {}{more}; `screener deny import` and `permit add` make entries that stay",
            named.join(", ")
        );
    }
}

/// Makes the kernel's passes equal to the ledger's, and returns the changes from then on.
pub(super) fn align(ledger: &Ledger, config: &Config, kernel: &Kernel) -> Result<Changes, KernelError> {
    let mut changes = ledger.changes();
    kernel.sync_passes(Beginning { config, changes: &mut changes, page: VecDeque::new() })?;
    Ok(changes)
}

/// Every pass that is worth something, page by page: a million of them need not stand in memory twice.
struct Beginning<'a> {
    config: &'a Config,
    changes: &'a mut Changes,
    page: VecDeque<Change>,
}

impl Iterator for Beginning<'_> {
    type Item = (ClientKey, UnixTime);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while let Some(change) = self.page.pop_front() {
                if let Some(until) = change.pass.and_then(|pass| kernel_until(change.client, &pass, self.config)) {
                    return Some((change.client, until));
                }
            }
            if self.changes.caught_up() {
                return None;
            }
            self.page = self.changes.take(PAGE).into();
        }
    }
}

/// Asks for the kernel's passes to be made equal to the ledger's again, because other tests are done or other proxies are
/// known now; hears when they are.
pub(super) type Realign = oneshot::Sender<Result<(), KernelError>>;

/// Brings each change of a pass to the kernel. To be run beside the sessions ([`super::aside`]): where many passes change, by a
/// restore or because a host joins a store, this does not pause before the last of them.
pub(super) async fn follow(daemon: Arc<Daemon>, mut changes: Changes, mut orders: mpsc::Receiver<Realign>) {
    let Some(kernel) = &daemon.kernel else { return };
    loop {
        let news = tokio::select! {
            news = changes.next(PAGE) => news,
            Some(done) = orders.recv() => {
                // It walks over every pass. What changes meanwhile is in the new stream of changes.
                let aligned = align(&daemon.ledger, &daemon.live().config, kernel).map(|new| changes = new);
                // Whoever asked may have left.
                let _ = done.send(aligned);
                continue;
            }
            () = daemon.retired.cancelled() => return,
        };
        let more = news.len() == PAGE;
        for Change { client, pass } in news {
            let until = pass.as_ref().and_then(|pass: &Pass| kernel_until(client, pass, &daemon.live.load().config));
            let done = match until {
                Some(until) => kernel.put_pass(client, until),
                None => remove(&daemon, kernel, client),
            };
            match done {
                // The daemon serves this client: it hands over whoever has a pass.
                Err(KernelError::MapFull { .. }) => tell_room(&daemon, kernel),
                Ok(()) => {
                    if daemon.degraded.clear("passes") {
                        info!("passes reach the kernel again");
                    }
                }
                Err(error) => {
                    let text = format!("passes do not reach the kernel, so these clients are screened again: {error}");
                    if daemon.degraded.set("passes", text.clone()) {
                        warn!("{text}");
                    }
                }
            }
        }
        if !more {
            tokio::time::sleep(REST).await;
        }
    }
}

/// Takes a pass out of the kernel. When it was last used is known there alone.
fn remove(daemon: &Daemon, kernel: &Kernel, client: ClientKey) -> Result<(), KernelError> {
    if let Some(at) = kernel.pass_last_used(client)? {
        daemon.ledger.note_let_through(client, at);
    }
    kernel.del_pass(client).map(drop)
}

/// Says how full the maps of passes are, where that matters.
fn tell_room(daemon: &Daemon, kernel: &Kernel) {
    let rooms = kernel.pass_room();
    let tight = rooms.iter().filter(|room| room.left_out > 0 || room.entries * 10 >= room.capacity * 9);
    let sentences: Vec<_> = tight.map(in_a_sentence).collect();
    if sentences.is_empty() {
        if daemon.degraded.clear("pass_room") {
            info!("the kernel has room for passes again");
        }
    } else if daemon.degraded.set("pass_room", sentences.join("; ")) {
        warn!("{}", sentences.join("; "));
    }
}

fn in_a_sentence(room: &PassRoom) -> String {
    let PassRoom { map, entries, capacity, left_out, .. } = room;
    match left_out {
        0 => format!("the kernel's map {map} is nearly full: {entries} of {capacity} passes"),
        _ => format!(
            "the kernel's map {map} is full with {capacity} passes: {left_out} clients with a pass reach the daemon instead, \
             which hands them to the MTA without a wait"
        ),
    }
}

/// Looks after the maps of passes: makes room where there is none, says how full they are, and takes over now and then when
/// passes were last used, so that this is known after the maps are gone too.
pub(super) async fn tend_passes(daemon: Arc<Daemon>) {
    let mut rounds = (0..USES_ROUNDS).cycle();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TEND) => {}
            () = daemon.retired.cancelled() => return,
        }
        let (worker, with_uses) = (Arc::clone(&daemon), rounds.next() == Some(0));
        let again = spawn_blocking(move || tended(&worker, with_uses)).await.unwrap_or(false);
        if again {
            let (done, aligned) = oneshot::channel();
            // Whoever follows the passes has gone with the daemon, or says in its own place what is wrong.
            if daemon.realign.send(done).await.is_ok() {
                let _ = aligned.await;
            }
            if let Some(kernel) = &daemon.kernel {
                tell_room(&daemon, kernel);
            }
        }
    }
}

/// True: somebody who found no room may find some now.
fn tended(daemon: &Daemon, with_uses: bool) -> bool {
    let Some(kernel) = &daemon.kernel else { return false };
    if with_uses {
        match kernel.passes_used() {
            Ok(used) => note_uses(&daemon.ledger, used),
            Err(error) => debug!("not seen which passes were used: {error}"),
        }
    }
    let left_out = || kernel.pass_room().into_iter().filter(|room| room.left_out > 0).collect::<Vec<_>>();
    if !left_out().is_empty()
        && let Err(error) = kernel.sweep_passes()
    {
        debug!("no room was made for passes: {error}");
    }
    tell_room(daemon, kernel);
    left_out().iter().any(|room| room.entries < room.capacity)
}

/// Notes uses that are news: each of them is a record to write, so an hour more or less is none.
fn note_uses(ledger: &Ledger, used: Vec<(ClientKey, UnixTime)>) {
    for (client, at) in used {
        let known = ledger.history(client).map(|history| history.last_seen);
        if known.is_none_or(|known| at.since(known) >= USE_IS_NEWS) {
            ledger.note_let_through(client, at);
        }
    }
}

/// Takes in what the kernel tells of denied clients: hits for the prefix, and a line in the client's history.
pub(super) async fn hear(daemon: Arc<Daemon>, mut events: EventStream) {
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = daemon.retired.cancelled() => return,
        };
        let Some(event) = event else { return };
        if event.over_rate {
            let detail = "more new connections than kernel.syn_rate allows".to_owned();
            daemon.ledger.note(daemon.key(event.address), What::Limited, detail, event.at);
            continue;
        }
        if event.offender {
            let prefix = daemon.ledger.offender(event.address, event.at).map(|(network, ..)| network);
            let (source, since, at, packets) =
                ("the offence ladder".to_owned(), event.at, event.at, event.weight.into());
            daemon.ledger.note_drop(daemon.key(event.address), Dropped { prefix, source, since, at, packets });
            continue;
        }
        let (prefix, source) = {
            let statics = daemon.statics();
            let source = statics.lookup(event.address).map(|found| found.source.to_string());
            (daemon.met(&statics, event.address, event.weight, event.at), source.unwrap_or_default())
        };
        // A tagged or counted client goes on to the daemon, which notes it there.
        if let Some(StaticAction::Deny(DenyAction::Drop | DenyAction::Reject)) = event.action {
            // Without a prefix: the entry has gone since.
            let (since, at, packets) = (event.at, event.at, event.weight.into());
            daemon.ledger.note_drop(daemon.key(event.address), Dropped { prefix, source, since, at, packets });
        }
    }
}

impl Daemon {
    /// Entries have met a client so many times: credits the one that decides, and its feed. Returns its prefix.
    pub(super) fn met(&self, statics: &StaticSet, address: IpAddr, times: u32, at: UnixTime) -> Option<IpNet> {
        statics.hit(address, times.into(), at, |source| {
            if let Source::Feed(name) = source {
                self.feeds.hit(name, times.into(), at);
            }
        })
    }
}

/// Keeps the kernel telling as much as is worth reading: everything on a quiet day, a sample of a flood.
pub(super) async fn adapt(daemon: Arc<Daemon>) {
    let Some(kernel) = &daemon.kernel else { return };
    let mut known = 1;
    loop {
        tokio::select! {
            () = tokio::time::sleep(ADAPT) => {}
            () = daemon.retired.cancelled() => return,
        }
        // Whoever has it is about to leave the kernel half to another daemon.
        let Ok(_hand) = daemon.kernel_hand.try_lock() else { continue };
        match kernel.adapt_sampling() {
            Ok(sample) if sample != known => {
                debug!("one of {sample} findings in the kernel becomes an event");
                known = sample;
            }
            Ok(_) => {}
            // Nothing is lost by that but events; the next try is near.
            Err(error) => debug!("the rate of events stays as it is: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Ipv6KeyLength;
    use crate::ledger::Options;

    #[test]
    fn a_use_is_noted_when_it_is_news_and_makes_a_client_known() {
        let ledger = Ledger::in_memory(Options::default());
        let key = |last| ClientKey::of([192, 0, 2, last].into(), Ipv6KeyLength::default());
        ledger.note(key(1), What::Passed, String::new(), UnixTime(10_000));
        note_uses(&ledger, vec![(key(1), UnixTime(12_000)), (key(2), UnixTime(12_000))]);
        assert_eq!(ledger.history(key(1)).unwrap().last_seen, UnixTime(10_000), "half an hour is none");
        assert_eq!(ledger.history(key(2)).unwrap().let_through, Some(UnixTime(12_000)));
        note_uses(&ledger, vec![(key(1), UnixTime(14_000))]);
        assert_eq!(ledger.history(key(1)).unwrap().let_through, Some(UnixTime(14_000)));
    }

    #[test]
    fn a_full_map_and_one_that_is_nearly_full_are_told_apart() {
        let room = PassRoom { family: "ipv4", map: "PASS4", entries: 9, capacity: 10, left_out: 0 };
        assert_eq!(in_a_sentence(&room), "the kernel's map PASS4 is nearly full: 9 of 10 passes");
        let full = in_a_sentence(&PassRoom { entries: 10, left_out: 3, ..room });
        assert!(
            full.starts_with("the kernel's map PASS4 is full with 10 passes: 3 clients with a pass reach"),
            "{full}"
        );
    }
}
