//! The writer's thread: takes what changed, reads its present value from memory, commits it.
//!
//! Memory is the truth and the file its copy. So a file that turns out damaged while running is set aside and written
//! anew, and a disk that was full is caught up with as soon as it takes bytes again.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::Shared;
use super::failure::Failure;
use super::pages::{CHUNK, Key, everything, present};
use super::pending::Work;
use super::schema::Schema;
use super::store::{Aside, Place, Store, beside, keep_as, put_in_place, set_aside};
use crate::clock::Now;

pub(super) struct Writer {
    shared: Arc<Shared>,
    path: Box<Path>,
    store: Option<Store>,
    /// The file lacks more of what is in memory than the work at hand: it is to be written as a whole.
    lacking: bool,
}

/// Those who wait for a flush must not wait for a thread that is gone.
struct Leaving(Arc<Shared>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.pending.leave();
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, path: &Path, store: Option<Store>) -> Self {
        Self { shared, path: path.into(), store, lacking: false }
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
                    if self.shared.store_status().succeeded(Now::read().unix) {
                        info!("the ledger is written to {} again", self.path.display());
                    }
                    self.shared.pending.answer(ticket, None);
                    if self.shared.pending.is_let_go() {
                        self.store = None;
                        self.shared.pending.closed();
                    }
                }
                Err(failure) => {
                    not_before = Some(Instant::now() + options.retry);
                    let reason = format!("{} cannot be written: {failure}", self.path.display());
                    if let Some(sentence) = self.shared.store_status().failed(&reason) {
                        warn!("{sentence}");
                    }
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
        let result = self.look_after_place().and_then(|()| self.try_write(work));
        let Err(failure) = result else { return Ok(()) };
        // After an error redb takes nothing more until the file is opened again.
        self.store = None;
        let Failure::Damaged(reason) = failure else { return Err(failure) };
        let aside = set_aside(&self.path, Aside::Damaged, Now::read().unix).map_err(|error| {
            Failure::Unavailable(format!("it is damaged ({reason}) and cannot be renamed: {error}"))
        })?;
        self.lacking = true;
        let sentence = self.shared.store_status().set_aside(&self.path, &aside, &reason);
        warn!("{sentence}");
        self.try_write(work).inspect_err(|_| self.store = None)
    }

    /// What was written to a file that its path no longer leads to would be lost at the next start.
    fn look_after_place(&mut self) -> Result<(), Failure> {
        let place = self.store.as_ref().map_or(Place::Own, |store| store.place(&self.path));
        let sentence = match place {
            Place::Own => return Ok(()),
            Place::Gone => self.shared.store_status().gone(&self.path),
            Place::Other => {
                let aside = set_aside(&self.path, Aside::Foreign, Now::read().unix).map_err(|error| {
                    Failure::Unavailable(format!("another file was put in its place and cannot be renamed: {error}"))
                })?;
                self.shared.store_status().replaced(&self.path, &aside)
            }
        };
        warn!("{sentence}");
        self.store = None;
        self.lacking = true;
        Ok(())
    }

    fn try_write(&mut self, work: &Work) -> Result<(), Failure> {
        let store = match &mut self.store {
            Some(store) => store,
            slot => slot.insert(Store::open(&self.path)?),
        };
        let schema = store.schema;
        if schema != Schema::CURRENT {
            self.store = Some(self.renewed(schema)?);
            self.lacking = false;
            return Ok(());
        }
        // Noted beyond this store's life: where the whole cannot be written, the next one finds tables, and empty ones.
        self.lacking |= store.fresh || work.everything;
        if self.lacking {
            store.replace(everything(&self.shared).map(Ok))?;
            store.fresh = false;
            self.lacking = false;
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

    /// Writes the file anew in the present form. The old one, which keeps a name, is whole until the new one is: a kill in
    /// between costs nothing but the work. What changes meanwhile is noted as pending and follows.
    fn renewed(&self, old: Schema) -> Result<Store, Failure> {
        let new = beside(&self.path, ".new");
        // Of an attempt that was killed.
        let _ = fs::remove_file(&new);
        let store = Store::create(&new, everything(&self.shared).map(Ok))?;
        let kept = beside(&self.path, &format!(".schema-{}", old.number()));
        let kept = match keep_as(&self.path, &kept) {
            Ok(()) => format!("the old file is kept as {}", kept.display()),
            Err(error) => format!("the old file could not be kept: {error}"),
        };
        put_in_place(&new, &self.path)?;
        info!("{} was brought from schema {} to {}; {kept}", self.path.display(), old.number(), store.schema.number());
        Ok(store)
    }
}
