//! The store of passes and of what is known about clients.
//!
//! Holds everything in memory and a copy of it in one file. Reads and updates work in memory, take a short lock and are
//! done; a thread of its own writes what changed, in batches. Never awaited in the accept path, never blocks its caller
//! on the disk, and never refuses to start because of a file: what is damaged is set aside, what cannot be written is
//! kept in memory, and both are said in [`Ledger::status`]. A kill loses at most the last batch (a quarter of a second).
//!
//! What it does not hold: the configuration's and the feeds' static entries (`feed`), what the kernel counts (`kernel`).

mod change;
mod copy;
mod failure;
mod heir;
mod histories;
mod history;
mod key;
mod known;
mod load;
mod news;
mod offenders;
mod open;
mod origin;
mod pages;
mod pardons;
mod pass;
mod pending;
mod restore;
mod schema;
mod shared;
mod statics;
mod status;
mod store;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnet::IpNet;
use thiserror::Error;

pub use change::{Change, Changes};
pub use copy::{Copied, CopyError, may_write_copy, write_copy};
pub use heir::Said;
pub use history::{Contact, Dropped, Ended, Event, Finding, History, Listed, Name, Refused, SessionNote, What};
pub use news::{Happened, News};
pub use offenders::{OffenderChange, OffenderChanges, OffenderWitness};
pub use open::{OpenError, OpenReport, Options};
pub use pass::{COMMENT_MAX, Grant, Origin, Pass};
pub use shared::{Sharing, Taken, Witness};
pub use statics::StoredStatic;
pub use status::LedgerStatus;
pub use walk::Found;

use crate::client::{ClientKey, Ipv6KeyLength};
use crate::clock::{Now, UnixTime};
use crate::pass::{Stamps, Test};
use change::Watcher;
use failure::Failure;
use heir::Heirs;
use histories::{Histories, Limits};
use load::Loaded;
use offenders::Offenders;
use pass::Packed;
use pending::Pending;
use schema::Schema;
use shared::Epochs;
use status::StoreStatus;
use store::{Aside, Store};
use writer::Writer;

/// How many records a walk through a table looks at under one lock.
const PAGE: usize = 4096;

/// What was noted is not on the disk (yet): it is in memory, and will be tried again.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("not on the disk yet: {0}")]
pub struct FlushError(String);

/// What [`Ledger::expire`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Passes.
    pub passes: usize,
    /// Clients whose history went.
    pub histories: usize,
}

#[derive(Debug, Default)]
struct Passes {
    by_client: BTreeMap<ClientKey, Packed>,
    /// When clients were last revoked: see `shared`.
    epochs: BTreeMap<ClientKey, Epochs>,
    watchers: Vec<Weak<Watcher>>,
    news: news::Watched,
}

/// What the ledger, its writer and its followers have in common. Locks are taken one at a time, but for the queue's and
/// the watchers', which are taken last.
#[derive(Debug)]
struct Shared {
    options: Options,
    passes: Mutex<Passes>,
    histories: Mutex<Histories>,
    statics: Mutex<BTreeMap<IpNet, Arc<StoredStatic>>>,
    offenders: Mutex<Offenders>,
    pending: Pending,
    status: Mutex<StoreStatus>,
    heirs: Heirs,
    /// False: there is no file and no writer, so nothing is noted as pending.
    durable: bool,
}

impl Shared {
    fn new(options: Options, durable: bool) -> Self {
        let limits = Limits {
            events: options.events_per_client,
            clients: options.history_clients,
            bytes: options.history_bytes,
        };
        Self {
            options,
            passes: Mutex::default(),
            histories: Mutex::new(Histories::new(limits)),
            statics: Mutex::default(),
            offenders: Mutex::new(Offenders::new(&options)),
            pending: Pending::new(options.queue, options.batch_changes),
            status: Mutex::default(),
            heirs: Heirs::default(),
            durable,
        }
    }

    fn passes(&self) -> MutexGuard<'_, Passes> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn histories(&self) -> MutexGuard<'_, Histories> {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statics(&self) -> MutexGuard<'_, BTreeMap<IpNet, Arc<StoredStatic>>> {
        self.statics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_statics(&self) -> Vec<(IpNet, Arc<StoredStatic>)> {
        self.statics().iter().map(|(&prefix, entry)| (prefix, Arc::clone(entry))).collect()
    }

    fn store_status(&self) -> MutexGuard<'_, StoreStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, after: Bound<ClientKey>, most: usize) -> Vec<(ClientKey, Pass)> {
        let passes = self.passes();
        let page = passes.by_client.range((after, Bound::Unbounded)).take(most);
        page.map(|(&client, pass)| (client, pass.unpack())).collect()
    }

    /// To be called under the lock of the passes, so that nobody sees the pass without the note.
    fn pass_changed(&self, passes: &mut Passes, client: ClientKey) {
        self.pass_changed_but_for(passes, client, None);
    }

    /// As [`Shared::pass_changed`]; one of the watchers knows already.
    fn pass_changed_but_for(&self, passes: &mut Passes, client: ClientKey, told: Option<&Arc<Watcher>>) {
        passes.watchers.retain(|watcher| {
            watcher.upgrade().is_some_and(|watcher| {
                if !told.is_some_and(|told| Arc::ptr_eq(told, &watcher)) {
                    watcher.note(client);
                }
                true
            })
        });
        if self.durable {
            self.pending.pass(client);
        }
    }

    fn histories_changed(&self, clients: impl IntoIterator<Item = ClientKey>) {
        if self.durable {
            clients.into_iter().for_each(|client| self.pending.history(client));
        }
    }
}

/// The ledger. All methods may be called from any thread; only [`Ledger::flush`] and dropping it wait for the disk.
#[derive(Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for Ledger {
    /// Writes what is pending and closes the file.
    fn drop(&mut self) {
        self.shared.pending.stop();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Ledger {
    /// Opens the file, creating it and its directory if missing, and reads everything in it.
    ///
    /// # Errors
    /// Only if another process uses the file, or the system has no thread left.
    pub fn open(path: &Path, options: Options) -> Result<(Self, OpenReport), OpenError> {
        let shared = Shared::new(options, true);
        let mut report = OpenReport::default();
        let (store, loaded) = match open_and_load(path, options.ipv6_key) {
            Ok((store, loaded)) => (Some(store), loaded),
            Err(Failure::Locked) => return Err(OpenError::Locked(path.to_owned())),
            Err(Failure::Damaged(reason)) => match store::set_aside(path, Aside::Damaged, Now::read().unix) {
                Ok(aside) => {
                    shared.store_status().set_aside(path, &aside, &reason);
                    report.set_aside = Some(aside);
                    match open_and_load(path, options.ipv6_key) {
                        Ok((store, loaded)) => (Some(store), loaded),
                        Err(Failure::Locked) => return Err(OpenError::Locked(path.to_owned())),
                        Err(failure) => {
                            shared.store_status().memory_only(path, &failure.to_string());
                            (None, Loaded::default())
                        }
                    }
                }
                Err(error) => {
                    shared
                        .store_status()
                        .memory_only(path, &format!("it is damaged ({reason}) and cannot be renamed: {error}"));
                    (None, Loaded::default())
                }
            },
            Err(Failure::Unavailable(reason)) => {
                shared.store_status().memory_only(path, &reason);
                (None, load::load_copy(path, options.ipv6_key).unwrap_or_default())
            }
            Err(failure @ Failure::Newer(_)) => {
                shared.store_status().memory_only(path, &failure.to_string());
                (None, Loaded::default())
            }
        };

        report.unreadable = loaded.unreadable;
        shared.store_status().unreadable(path, loaded.unreadable);
        shared.adopt(loaded);
        if store.as_ref().is_some_and(|store| store.schema != Schema::CURRENT) {
            shared.pending.everything();
        }
        report.passes = shared.passes().by_client.len();
        report.histories = shared.histories().len();
        report.statics = shared.statics().len();
        report.degraded = shared.store_status().sentences();

        let shared = Arc::new(shared);
        let writer = Writer::new(Arc::clone(&shared), path, store);
        let writer = std::thread::Builder::new().name("ledger".to_owned()).spawn(|| writer.run());
        let writer = writer.map_err(OpenError::Thread)?;
        Ok((Self { shared, writer: Some(writer) }, report))
    }

    /// A ledger without a file: for tests, and for a daemon that is told to remember nothing.
    pub fn in_memory(options: Options) -> Self {
        Self { shared: Arc::new(Shared::new(options, false)), writer: None }
    }

    /// Until when each test counts as passed for a client.
    pub fn stamps(&self, client: ClientKey) -> Option<Stamps> {
        self.shared.passes().by_client.get(&client).map(Packed::stamps)
    }

    /// The pass of a client.
    pub fn pass(&self, client: ClientKey) -> Option<Pass> {
        self.shared.passes().by_client.get(&client).map(Packed::unpack)
    }

    /// Gives or extends a pass. No expiry is ever shortened.
    ///
    /// While an older pass still counts for anything its `created` stays, and `Manual` and its comment outlive what
    /// screening adds; once it has wholly expired, the grant begins a new one. Of a comment 1024 bytes are kept.
    pub fn grant(
        &self,
        client: ClientKey,
        stamps: &Stamps,
        origin: Origin,
        comment: Option<&str>,
        now: UnixTime,
    ) -> Grant {
        let grant = {
            let mut passes = self.shared.passes();
            let (pass, grant) = Packed::granted(passes.by_client.get(&client), stamps, origin, comment, now);
            if grant != Grant::Unchanged {
                passes.news.tell(client, || (grant.into(), Some(pass.unpack())));
                passes.by_client.insert(client, pass);
                self.shared.pass_changed(&mut passes, client);
                self.shared.heirs.granted(client, stamps, origin, now);
            }
            grant
        };
        // Whoever has a pass begins from the ground again.
        self.shared.forgive(client.network(self.shared.options.ipv6_key), now);
        grant
    }

    /// Takes a pass away. False: there was none.
    pub fn revoke(&self, client: ClientKey) -> bool {
        let mut passes = self.shared.passes();
        let Some(pass) = passes.by_client.remove(&client) else { return false };
        // A copy of a pool's pass says nothing about the client itself.
        if pass.origin() != Origin::Pool {
            self.shared.revoked(&mut passes, client, None);
        }
        passes.news.tell(client, || (Happened::Revoked, Some(pass.unpack())));
        self.shared.pass_changed(&mut passes, client);
        true
    }

    /// Takes back one test of a pass that was earned by screening. False: there was nothing to take back; what the operator
    /// gave stays.
    pub fn withdraw(&self, client: ClientKey, test: Test) -> bool {
        let mut passes = self.shared.passes();
        let Passes { by_client, news, .. } = &mut *passes;
        let pass = by_client.get_mut(&client);
        let origin = pass.as_ref().map(|pass| pass.origin());
        let withdrawn = pass.is_some_and(|pass| {
            let withdrawn = pass.withdraw(test);
            if withdrawn {
                news.tell(client, || (Happened::Withdrawn(test), Some(pass.unpack())));
            }
            withdrawn
        });
        if withdrawn {
            if origin != Some(Origin::Pool) {
                self.shared.revoked(&mut passes, client, Some(test));
            }
            self.shared.pass_changed(&mut passes, client);
            self.shared.heirs.tell(|| Said::Withdrawn { client: client.address(), test });
        }
        withdrawn
    }

    /// How many passes there are, expired ones within the retention included.
    pub fn pass_count(&self) -> usize {
        self.shared.passes().by_client.len()
    }

    /// At most `most` passes in the order of their addresses, IPv4 first, behind the client `after`.
    ///
    /// To walk through all, go on behind the last one: a pass that is there throughout is seen exactly once.
    pub fn passes_after(&self, after: Option<ClientKey>, most: usize) -> Vec<(ClientKey, Pass)> {
        self.shared.page(after.map_or(Bound::Unbounded, Bound::Excluded), most)
    }

    /// Every pass, now, and each change of one from now on: for a mirror.
    pub fn changes(&self) -> Changes {
        let watcher = Arc::new(Watcher::default());
        self.shared.passes().watchers.push(Arc::downgrade(&watcher));
        Changes::new(Arc::clone(&self.shared), watcher)
    }

    /// Removes each pass whose every test expired longer than `retention` ago, and each history of a client without a pass that
    /// was not seen for as long.
    ///
    /// A test's expiry stands on its own: a pass stays as long as any test of it does, and with it the history that says why.
    /// To be called now and then; the tables are locked for a page at a time.
    pub fn expire(&self, now: UnixTime, retention: Duration) -> Expired {
        let limit = UnixTime(now.0.saturating_sub(retention.as_secs()));
        let mut expired = Expired::default();
        let mut after = Bound::Unbounded;
        loop {
            let mut passes = self.shared.passes();
            let mut last = None;
            let mut old = Vec::new();
            for (&client, pass) in passes.by_client.range((after, Bound::Unbounded)).take(PAGE) {
                last = Some(client);
                if pass.last_expiry() < limit {
                    old.push(client);
                }
            }
            expired.passes += old.len();
            for client in old {
                passes.by_client.remove(&client);
                self.shared.pass_changed(&mut passes, client);
            }
            match last {
                Some(client) => after = Bound::Excluded(client),
                None => break,
            }
        }
        self.shared.forget_revocations(now);
        self.shared.forget_pardons(now);
        let mut after = None;
        loop {
            let old = self.shared.histories().old(after, limit, PAGE);
            let Some(&last) = old.last() else { return expired };
            after = Some(last);
            let old: Vec<_> = {
                let passes = self.shared.passes();
                old.into_iter().filter(|(_, _, client)| !passes.by_client.contains_key(client)).collect()
            };
            let gone: Vec<_> = {
                let mut histories = self.shared.histories();
                old.into_iter().filter(|&aged| histories.remove_unchanged(aged)).map(|(_, _, client)| client).collect()
            };
            expired.histories += gone.len();
            self.shared.histories_changed(gone);
        }
    }

    /// Keeps a static entry made by command. Another one for the same prefix is replaced.
    pub fn put_static(&self, prefix: IpNet, entry: StoredStatic) {
        let mut statics = self.shared.statics();
        statics.insert(prefix, Arc::new(entry));
        if self.shared.durable {
            self.shared.pending.prefix(prefix);
        }
    }

    /// Keeps the same entry for each prefix of a list: in the file all of it appears at once, or none.
    pub fn put_statics(&self, prefixes: &[IpNet], entry: StoredStatic) {
        let entry = Arc::new(entry);
        let mut statics = self.shared.statics();
        statics.extend(prefixes.iter().map(|&prefix| (prefix, Arc::clone(&entry))));
        if self.shared.durable {
            self.shared.pending.all_statics();
        }
    }

    /// Removes a static entry made by command. False: there was none.
    pub fn del_static(&self, prefix: IpNet) -> bool {
        let mut statics = self.shared.statics();
        let had = statics.remove(&prefix).is_some();
        if had && self.shared.durable {
            self.shared.pending.prefix(prefix);
        }
        had
    }

    /// The static entries made by command, in the order of their prefixes.
    pub fn statics(&self) -> Vec<(IpNet, Arc<StoredStatic>)> {
        self.shared.all_statics()
    }

    /// Waits until everything noted before the call is on the disk. Blocks: not for an async task.
    ///
    /// # Errors
    /// If the disk does not take it. It stays in memory and is tried again.
    pub fn flush(&self) -> Result<(), FlushError> {
        if self.shared.durable { self.shared.pending.flush().map_err(FlushError) } else { Ok(()) }
    }

    /// Writes everything and closes the file, so that another process can open it. What comes from then on stays in memory.
    /// Blocks: not for an async task.
    ///
    /// # Errors
    /// If the disk does not take it; then the file stays open.
    pub fn let_go(&self) -> Result<(), FlushError> {
        if self.shared.durable { self.shared.pending.let_go().map_err(FlushError) } else { Ok(()) }
    }

    /// Opens the file again after [`Ledger::let_go`], and writes what came meanwhile.
    pub fn take_back(&self) {
        self.shared.pending.take_back();
    }

    /// For `status` and the metrics.
    pub fn status(&self) -> LedgerStatus {
        let mut status = LedgerStatus { passes: self.pass_count(), ..LedgerStatus::default() };
        (status.queued, status.dropped) = self.shared.pending.depth();
        status.statics = self.shared.statics().len();
        {
            let histories = self.shared.histories();
            (status.histories, status.history_bytes) = (histories.len(), histories.cost());
        }
        self.shared.store_status().fill(&mut status);
        status
    }
}

fn open_and_load(path: &Path, length: Ipv6KeyLength) -> Result<(Store, Loaded), Failure> {
    let store = Store::open(path)?;
    let loaded = store.load(length)?;
    Ok((store, loaded))
}

impl Shared {
    /// Takes in what the file held.
    fn adopt(&self, loaded: Loaded) {
        for client in loaded.stale {
            // Under the old key nothing stands any more, under the new one there is something to write.
            let now = ClientKey::of(client.address(), self.options.ipv6_key);
            for client in [client, now] {
                self.pending.pass(client);
                self.pending.history(client);
            }
        }
        // From a sorted sequence the tree is built densely.
        {
            let mut passes = self.passes();
            passes.by_client = loaded.passes.into_iter().collect();
            for (client, epochs) in loaded.epochs {
                let known = passes.epochs.entry(client).or_default();
                *known = known.joined(&epochs);
            }
        }
        *self.statics() = loaded.statics.into_iter().collect();
        self.adopt_offenders(loaded.offenders, loaded.pardons);
        let mut evicted = Vec::new();
        {
            let mut histories = self.histories();
            for (client, history) in loaded.histories {
                evicted.extend(histories.put(client, history));
            }
        }
        self.histories_changed(evicted);
    }
}
