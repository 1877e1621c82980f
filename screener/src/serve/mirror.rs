//! What passes between the daemon's memory and the kernel's maps: passes down, hits up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tracing::{debug, info, warn};

use crate::client::ClientKey;
use crate::clock::{Now, UnixTime};
use crate::config::Config;
use crate::feed::{DenyAction, StaticAction, StaticSet};
use crate::kernel::text::Line;
use crate::kernel::{EventStream, Kernel, KernelError};
use crate::ledger::{Change, Changes, Dropped, Ledger, Pass, What};
use crate::pass::TestSet;

use super::daemon::Daemon;

/// How often the kernel is told how many findings shall become events.
const ADAPT: Duration = Duration::from_secs(1);

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
    let report = kernel.sync_passes(Beginning { config, changes: &mut changes, page: VecDeque::new() })?;
    if report.left_out > 0 {
        warn!("{} passes have no room in the kernel's map: these clients go through the daemon", report.left_out);
    }
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

/// Brings each change of a pass to the kernel.
pub(super) async fn follow(daemon: Arc<Daemon>, mut changes: Changes, mut orders: mpsc::Receiver<Realign>) {
    let Some(kernel) = &daemon.kernel else { return };
    loop {
        let news = tokio::select! {
            news = changes.next(PAGE) => news,
            Some(done) = orders.recv() => {
                let worker = Arc::clone(&daemon);
                // It walks over every pass. What changes meanwhile is in the new stream of changes.
                let aligned = spawn_blocking(move || {
                    let live = worker.live();
                    worker.kernel.as_ref().map(|kernel| align(&worker.ledger, &live.config, kernel)).transpose()
                });
                let aligned = aligned.await.unwrap_or(Ok(None)).map(|new| changes = new.unwrap_or_else(|| daemon.ledger.changes()));
                // Whoever asked may have left.
                let _ = done.send(aligned);
                continue;
            }
            () = daemon.retired.cancelled() => return,
        };
        for Change { client, pass } in news {
            let until = pass.as_ref().and_then(|pass: &Pass| kernel_until(client, pass, &daemon.live.load().config));
            let done = match until {
                Some(until) => kernel.put_pass(client, until),
                None => kernel.del_pass(client).map(drop),
            };
            match done {
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
        let (prefix, source) = {
            let statics = daemon.statics();
            let source = statics.lookup(event.address).map(|found| found.source.to_string());
            (statics.hit(event.address, event.weight.into(), event.at), source.unwrap_or_default())
        };
        // A tagged or counted client goes on to the daemon, which notes it there.
        if let Some(StaticAction::Deny(DenyAction::Drop | DenyAction::Reject)) = event.action {
            // Without a prefix: the entry has gone since.
            let (since, at, packets) = (event.at, event.at, event.weight.into());
            daemon.ledger.note_drop(daemon.key(event.address), Dropped { prefix, source, since, at, packets });
        }
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
