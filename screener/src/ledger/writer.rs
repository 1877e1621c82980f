//! The writer's thread: takes what changed, reads its present value from memory, commits it.
//!
//! Memory is the truth and the file its copy. So a file that turns out damaged while running is set aside and written
//! anew, and a disk that was full is caught up with as soon as it takes bytes again.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;

use super::Shared;
use super::pending::Work;
use super::store::{Batch, Failure, Store, set_aside};
use crate::client::ClientKey;
use crate::clock::Now;

/// How many records one transaction holds at most, and for how many the memory is locked at a time.
const CHUNK: usize = 4096;

pub(super) struct Writer {
    shared: Arc<Shared>,
    path: Box<Path>,
    store: Option<Store>,
}

/// Those who wait for a flush must not wait for a thread that is gone.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.pending.leave();
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Pass(ClientKey),
    History(ClientKey),
    Static(IpNet),
    Offender(IpNet),
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, path: &Path, store: Option<Store>) -> Self {
        Self { shared, path: path.into(), store }
    }

    /// Runs until the ledger closes.
    pub(super) fn run(mut self) {
        let leaving = Leaving(Arc::clone(&self.shared));
        let options = self.shared.options;
        let mut not_before = None;
        while let Some((work, ticket)) = self.shared.pending.take(options.batch_interval, not_before) {
            match self.write(&work) {
                Ok(()) => {
                    not_before = None;
                    self.shared.store_status().succeeded(Now::read().unix);
                    self.shared.pending.answer(ticket, None);
                    if self.shared.pending.is_let_go() {
                        self.store = None;
                        self.shared.pending.closed();
                    }
                }
                Err(failure) => {
                    not_before = Some(Instant::now() + options.retry);
                    let reason = format!("{} cannot be written: {failure}", self.path.display());
                    self.shared.store_status().failed(&reason);
                    self.shared.pending.put_back(work);
                    self.shared.pending.answer(ticket, Some(reason));
                    if self.shared.pending.stopping() {
                        break;
                    }
                }
            }
        }
        // The file is closed before anybody who waits for the end is told.
        drop(self);
        drop(leaving);
    }

    fn write(&mut self, work: &Work) -> Result<(), Failure> {
        let result = self.try_write(work);
        let Err(failure) = result else { return Ok(()) };
        // After an error redb takes nothing more until the file is opened again.
        self.store = None;
        let Failure::Damaged(reason) = failure else { return Err(failure) };
        let aside = set_aside(&self.path, Now::read().unix).map_err(|error| {
            Failure::Unavailable(format!("it is damaged ({reason}) and cannot be renamed: {error}"))
        })?;
        self.shared.store_status().set_aside(&self.path, &aside, &reason);
        self.try_write(&Work { everything: true, ..Work::default() })
    }

    fn try_write(&mut self, work: &Work) -> Result<(), Failure> {
        let store = match &mut self.store {
            Some(store) => store,
            slot => slot.insert(Store::open(&self.path)?),
        };
        if work.everything || store.fresh {
            store.replace(everything(&self.shared))?;
            store.fresh = false;
            return Ok(());
        }
        if work.all_statics {
            store.write_statics(&self.shared.all_statics())?;
        }
        let passes = work.passes.iter().copied().map(Key::Pass);
        let histories = work.histories.iter().copied().map(Key::History);
        let statics = work.statics.iter().copied().map(Key::Static);
        let offenders = work.offenders.iter().copied().map(Key::Offender);
        let mut keys: Vec<_> = passes.chain(histories).chain(statics).chain(offenders).collect();
        // In the order of the file, so that a transaction rewrites few of its pages.
        keys.sort_unstable();
        for keys in keys.chunks(CHUNK) {
            store.write(&present(&self.shared, keys))?;
        }
        Ok(())
    }
}

/// The present values under some keys.
fn present(shared: &Shared, keys: &[Key]) -> Batch {
    let mut batch = Batch::default();
    // One lock after the other, never two at once.
    {
        let passes = shared.passes();
        let keys = keys.iter().filter_map(|key| if let Key::Pass(client) = key { Some(*client) } else { None });
        batch.passes.extend(keys.map(|client| (client, passes.by_client.get(&client).cloned())));
    }
    {
        let histories = shared.histories();
        let keys = keys.iter().filter_map(|key| if let Key::History(client) = key { Some(*client) } else { None });
        batch.histories.extend(keys.map(|client| (client, histories.get(client).cloned())));
    }
    {
        let statics = shared.statics();
        let keys = keys.iter().filter_map(|key| if let Key::Static(prefix) = key { Some(*prefix) } else { None });
        batch.statics.extend(keys.map(|prefix| (prefix, statics.get(&prefix).cloned())));
    }
    {
        let offenders = shared.offenders();
        let keys = keys.iter().filter_map(|key| if let Key::Offender(network) = key { Some(*network) } else { None });
        batch.offenders.extend(keys.map(|network| (network, offenders.ladder.get(network).cloned())));
    }
    batch
}

/// All there is, in batches. What changes meanwhile is noted as pending and follows.
fn everything(shared: &Shared) -> impl Iterator<Item = Batch> + '_ {
    let mut after = Bound::Unbounded;
    let passes = std::iter::from_fn(move || {
        let table = shared.passes();
        let page: Vec<_> = table
            .by_client
            .range((after, Bound::Unbounded))
            .take(CHUNK)
            .map(|(&key, pass)| (key, Some(pass.clone())))
            .collect();
        after = Bound::Excluded(page.last()?.0);
        Some(Batch { passes: page, ..Batch::default() })
    });
    let clients: Vec<ClientKey> = shared.histories().keys().collect();
    let mut clients = clients.into_iter();
    let histories = std::iter::from_fn(move || {
        let keys: Vec<_> = clients.by_ref().take(CHUNK).map(Key::History).collect();
        (!keys.is_empty()).then(|| present(shared, &keys))
    });
    let prefixes: Vec<_> = shared.statics().keys().copied().map(Key::Static).collect();
    let offenders: Vec<_> = shared.offenders().ladder.iter().map(|(network, _)| Key::Offender(network)).collect();
    let statics = std::iter::once_with(move || present(shared, &prefixes));
    passes.chain(histories).chain(statics).chain(std::iter::once_with(move || present(shared, &offenders)))
}
