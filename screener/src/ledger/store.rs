//! The file: opening it, writing batches, writing another one as a whole, setting a damaged one aside.
//!
//! Holds, with `load`, the only use of redb. Never waits for anything but the disk, and is only called where waiting for that
//! is allowed: from `Ledger::open`, the writer's thread and commands.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use redb::{
    Builder, Database, Durability, ReadTransaction, ReadableDatabase as _, TableDefinition, TableHandle as _,
    WriteTransaction,
};

use super::failure::{Failure, guarded};
use super::history::History;
use super::key::{self, ClientBytes, PrefixBytes};
use super::load::{Loaded, load};
use super::pardons;
use super::pass::Packed;
use super::schema::Schema;
use super::shared::Epochs;
use super::statics::StoredStatic;
use crate::client::{ClientKey, Ipv6KeyLength};
use crate::clock::UnixTime;
use crate::ladder::Offender;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const PASSES: TableDefinition<'_, &ClientBytes, &[u8]> = TableDefinition::new("passes");
pub(super) const HISTORIES: TableDefinition<'_, &ClientBytes, &[u8]> = TableDefinition::new("histories");
pub(super) const STATICS: TableDefinition<'_, &PrefixBytes, &[u8]> = TableDefinition::new("statics");
/// Of the offence ladder. A file from before it has none.
pub(super) const OFFENDERS: TableDefinition<'_, &PrefixBytes, &[u8]> = TableDefinition::new("offenders");

/// Who was revoked when. Not there unless passes are or were shared with other hosts.
pub(super) const REVOCATIONS: TableDefinition<'_, &ClientBytes, &[u8]> = TableDefinition::new("revocations");

/// Who was pardoned when. Not there unless offenders are or were shared with other hosts.
pub(super) const PARDONS: TableDefinition<'_, &PrefixBytes, &[u8]> = TableDefinition::new("pardons");

/// Under which the number of the schema stands in [`META`].
pub(super) const SCHEMA_KEY: &str = "schema";

/// What redb may keep of the file in memory. The tables are read once, everything is in memory as it is, and the pages that a
/// batch changes are in the system's own cache: more would be a second copy of what thousands of waiting clients left.
pub(super) const CACHE: usize = 2 << 20;

/// The values that a batch writes: `None` deletes.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) passes: Vec<(ClientKey, Option<Packed>)>,
    pub(super) epochs: Vec<(ClientKey, Option<Epochs>)>,
    pub(super) histories: Vec<(ClientKey, Option<History>)>,
    pub(super) statics: Vec<(IpNet, Option<Arc<StoredStatic>>)>,
    pub(super) offenders: Vec<(IpNet, Option<Offender>)>,
    pub(super) pardons: Vec<(IpNet, Option<UnixTime>)>,
}

/// An open file.
pub(super) struct Store {
    database: Option<Database>,
    /// The form of what is in it.
    pub(super) schema: Schema,
    /// The file was empty or not there.
    pub(super) fresh: bool,
    /// Device and number of the file.
    identity: Option<(u64, u64)>,
}

impl Drop for Store {
    fn drop(&mut self) {
        // Closing writes too, and must not take the thread down with a file that is damaged.
        let database = self.database.take();
        let _ = guarded(|| {
            drop(database);
            Ok(())
        });
    }
}

impl Store {
    /// Opens the file, creating it and its directory if missing.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let existed = path.exists();
        let opened = look(path).and_then(|()| Self::open_existing_or_new(path));
        if !existed && matches!(opened, Err(Failure::Unavailable(_))) {
            // A half-made file would look damaged the next time.
            let _ = fs::remove_file(path);
        }
        opened
    }

    fn open_existing_or_new(path: &Path) -> Result<Self, Failure> {
        let parent = parent(path);
        fs::create_dir_all(parent).map_err(|error| Failure::from_io(&error))?;
        // Made here because it holds personal data: redb would make it readable to all.
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        let empty = file.and_then(|file| file.metadata()).map_err(|error| Failure::from_io(&error))?.len() == 0;
        guarded(|| {
            // The check reads the whole file, which the load does anyway, and turns damage into an error.
            let database = Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).create(path)?;
            let mut store = Self::of(database, path);
            let found = if empty { None } else { schema_of(&store.database()?.begin_read()?)? };
            // Without tables: the power went between the creation of the file and its first commit.
            store.fresh = found.is_none();
            match found {
                Some(schema) => store.schema = schema,
                None => {
                    store.replace(std::iter::empty())?;
                    sync(parent)?;
                }
            }
            Ok(store)
        })
    }

    fn of(database: Database, path: &Path) -> Self {
        Self { database: Some(database), schema: Schema::CURRENT, fresh: false, identity: identity(path) }
    }

    /// Writes a ledger of its own in one durable commit. There must be no file yet; where it fails none is left.
    pub(super) fn create(path: &Path, batches: impl Iterator<Item = Result<Batch, Failure>>) -> Result<Self, Failure> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        made.map_err(|error| Failure::from_io(&error))?;
        let written = guarded(|| {
            let store = Self::of(Builder::new().set_cache_size(CACHE).create(path)?, path);
            store.replace(batches)?;
            Ok(store)
        });
        if written.is_err() {
            let _ = fs::remove_file(path);
        }
        written
    }

    /// Whether the file is still what the path leads to, or what is in its place.
    pub(super) fn place(&self, path: &Path) -> Place {
        match (fs::metadata(path), self.identity) {
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Place::Gone,
            (Ok(found), Some(own)) if (found.dev(), found.ino()) != own => Place::Other,
            _ => Place::Own,
        }
    }

    fn database(&self) -> Result<&Database, Failure> {
        self.database.as_ref().ok_or_else(|| Failure::Unavailable("the file is closed".to_owned()))
    }

    fn transaction(&self) -> Result<WriteTransaction, Failure> {
        let mut transaction = self.database()?.begin_write()?;
        transaction.set_durability(Durability::Immediate).map_err(|error| Failure::Unavailable(error.to_string()))?;
        // Without it an unclean stop would cost a walk through the whole file at the next start.
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    /// Reads everything, cutting keys to today's length.
    pub(super) fn load(&self, length: Ipv6KeyLength) -> Result<Loaded, Failure> {
        guarded(|| load(self.database()?, self.schema, length))
    }

    /// Writes one batch in one durable commit.
    pub(super) fn write(&self, batch: &Batch) -> Result<(), Failure> {
        guarded(|| {
            let transaction = self.transaction()?;
            write_batch(&transaction, batch)?;
            Ok(transaction.commit()?)
        })
    }

    /// Writes static entries, all of them in one durable commit.
    pub(super) fn write_statics(&self, statics: &[(IpNet, Arc<StoredStatic>)]) -> Result<(), Failure> {
        guarded(|| {
            let transaction = self.transaction()?;
            {
                let mut table = transaction.open_table(STATICS)?;
                for (prefix, entry) in statics {
                    table.insert(&key::prefix_bytes(*prefix), entry.encode().as_slice())?;
                }
            }
            Ok(transaction.commit()?)
        })
    }

    /// Makes the file hold what the batches hold and nothing else, in one durable commit, or leaves it as it is.
    pub(super) fn replace(&self, batches: impl Iterator<Item = Result<Batch, Failure>>) -> Result<(), Failure> {
        guarded(|| {
            let transaction = self.transaction()?;
            transaction.open_table(META)?.insert(SCHEMA_KEY, Schema::CURRENT.number())?;
            transaction.delete_table(PASSES)?;
            transaction.delete_table(REVOCATIONS)?;
            transaction.delete_table(HISTORIES)?;
            transaction.delete_table(STATICS)?;
            transaction.delete_table(OFFENDERS)?;
            transaction.delete_table(PARDONS)?;
            for batch in batches {
                write_batch(&transaction, &batch?)?;
            }
            // A batch leaves no trace of a table that it has nothing for.
            transaction.open_table(PASSES)?;
            transaction.open_table(HISTORIES)?;
            transaction.open_table(STATICS)?;
            Ok(transaction.commit()?)
        })
    }
}

/// What is found where the file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The file, or nobody can tell.
    Own,
    /// Nothing: what is written reaches nobody.
    Gone,
    /// Another file.
    Other,
}

/// Refuses what a later version wrote, before a byte of it is changed. Says nothing of a file that is damaged or has to be
/// repaired: opening it does.
fn look(path: &Path) -> Result<(), Failure> {
    if !fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0) {
        return Ok(());
    }
    let looked = guarded(|| {
        let database = Builder::new().set_cache_size(CACHE).open_read_only(path)?;
        schema_of(&database.begin_read()?)
    });
    match looked {
        Err(failure @ (Failure::Newer(_) | Failure::Locked)) => Err(failure),
        _ => Ok(()),
    }
}

/// The form of what is in a database; `None`: nothing is in it.
pub(super) fn schema_of(transaction: &ReadTransaction) -> Result<Option<Schema>, Failure> {
    let tables: Vec<_> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    if tables.is_empty() {
        return Ok(None);
    }
    if !tables.iter().any(|name| name == META.name()) {
        return Err(Failure::Damaged("it is a database, but not a ledger".to_owned()));
    }
    match transaction.open_table(META)?.get(SCHEMA_KEY)?.map(|number| number.value()) {
        Some(number) => Schema::of(number).map(Some).ok_or(Failure::Newer(number)),
        None => Err(Failure::Damaged("it has no schema version".to_owned())),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Makes names in a directory durable.
fn sync(directory: &Path) -> Result<(), Failure> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| Failure::from_io(&error))
}

/// Another name beside a path.
pub(super) fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(more);
    name.into()
}

/// Puts a file in the place of another, durably. At any moment the place holds one of them as a whole.
pub(super) fn put_in_place(new: &Path, path: &Path) -> Result<(), Failure> {
    fs::rename(new, path).map_err(|error| Failure::from_io(&error))?;
    sync(parent(path))
}

/// Gives a file another name beside its own, in the place of what has that name.
pub(super) fn keep_as(path: &Path, kept: &Path) -> io::Result<()> {
    let link = beside(kept, ".link");
    let _ = fs::remove_file(&link);
    fs::hard_link(path, &link)?;
    let renamed = fs::rename(&link, kept);
    // Where both were names of one file already, renaming leaves both.
    let _ = fs::remove_file(&link);
    renamed
}

fn write_batch(transaction: &WriteTransaction, batch: &Batch) -> Result<(), Failure> {
    let mut table = transaction.open_table(PASSES)?;
    for (client, pass) in &batch.passes {
        let key = key::client_bytes(*client);
        match pass {
            Some(pass) => table.insert(&key, pass.encode().as_slice())?,
            None => table.remove(&key)?,
        };
    }
    if !batch.epochs.is_empty() {
        let mut table = transaction.open_table(REVOCATIONS)?;
        for (client, epochs) in &batch.epochs {
            let key = key::client_bytes(*client);
            match epochs {
                Some(epochs) => table.insert(&key, epochs.encode().as_slice())?,
                None => table.remove(&key)?,
            };
        }
    }
    let mut table = transaction.open_table(HISTORIES)?;
    for (client, history) in &batch.histories {
        let key = key::client_bytes(*client);
        let json = history.as_ref().map(serde_json::to_vec).transpose();
        match json.map_err(|error| Failure::Unavailable(error.to_string()))? {
            Some(json) => table.insert(&key, json.as_slice())?,
            None => table.remove(&key)?,
        };
    }
    let mut table = transaction.open_table(STATICS)?;
    for (prefix, entry) in &batch.statics {
        let key = key::prefix_bytes(*prefix);
        match entry {
            Some(entry) => table.insert(&key, entry.encode().as_slice())?,
            None => table.remove(&key)?,
        };
    }
    let mut table = transaction.open_table(OFFENDERS)?;
    for (network, offender) in &batch.offenders {
        let key = key::prefix_bytes(*network);
        let json = offender.as_ref().map(serde_json::to_vec).transpose();
        match json.map_err(|error| Failure::Unavailable(error.to_string()))? {
            Some(json) => table.insert(&key, json.as_slice())?,
            None => table.remove(&key)?,
        };
    }
    if !batch.pardons.is_empty() {
        let mut table = transaction.open_table(PARDONS)?;
        for (network, at) in &batch.pardons {
            let key = key::prefix_bytes(*network);
            match at {
                Some(at) => table.insert(&key, pardons::encode(*at).as_slice())?,
                None => table.remove(&key)?,
            };
        }
    }
    Ok(())
}

/// Why a file is set aside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aside {
    /// It cannot be read.
    Damaged,
    /// Somebody put it there while another was in use.
    Foreign,
}

/// Renames a file so that it can be looked at, and returns its new name.
pub(super) fn set_aside(path: &Path, why: Aside, now: UnixTime) -> io::Result<PathBuf> {
    let stamp = now.to_string().replace(['-', ':'], "");
    let why = match why {
        Aside::Damaged => "damaged",
        Aside::Foreign => "found",
    };
    for attempt in 0_u32.. {
        let more = if attempt > 0 { format!("-{attempt}") } else { String::new() };
        let aside = beside(path, &format!(".{why}-{stamp}{more}"));
        if !aside.exists() {
            fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}
