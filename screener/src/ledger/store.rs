//! The file: opening, reading it once, writing batches, setting a damaged one aside.
//!
//! Holds the only use of redb. Never waits for anything but the disk, and is only called from `Ledger::open` and from the
//! writer's thread. redb promises errors for files it did not write, but says that it may panic on some: both count as
//! damage here.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use redb::backends::InMemoryBackend;
use redb::{
    Builder, CommitError, Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _,
    StorageBackend as _, StorageError, TableDefinition, TableError, TableHandle as _, TransactionError,
    WriteTransaction,
};
use thiserror::Error;

use super::history::History;
use super::key::{self, ClientBytes, PrefixBytes};
use super::pass::Packed;
use super::statics::StoredStatic;
use crate::client::{ClientKey, Ipv6KeyLength};
use crate::clock::UnixTime;
use crate::ladder::Offender;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const PASSES: TableDefinition<'_, &ClientBytes, &[u8]> = TableDefinition::new("passes");
const HISTORIES: TableDefinition<'_, &ClientBytes, &[u8]> = TableDefinition::new("histories");
const STATICS: TableDefinition<'_, &PrefixBytes, &[u8]> = TableDefinition::new("statics");

/// Of the offence ladder. A file from before it has none.
const OFFENDERS: TableDefinition<'_, &PrefixBytes, &[u8]> = TableDefinition::new("offenders");

const SCHEMA_KEY: &str = "schema";
/// The layout of the tables above. A change that an older daemon would misread gets a new number.
const SCHEMA: u64 = 1;

/// What redb may keep of the file in memory. The tables are read once, everything is in memory as it is, and the pages that a
/// batch changes are in the system's own cache: more would be a second copy of what thousands of waiting clients left.
const CACHE: usize = 2 << 20;

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("it is in use by another process")]
    Locked,
    /// Its content is not what was written, or not ours.
    #[error("{0}")]
    Damaged(String),
    /// The system refuses: permissions, a full or read-only disk.
    #[error("{0}")]
    Unavailable(String),
}

impl Failure {
    fn from_io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            // What redb makes of a file that is shorter than it says, or whose pages make no sense.
            Kind::UnexpectedEof | Kind::InvalidData | Kind::InvalidInput => Self::Damaged(error.to_string()),
            // EIO: these bytes cannot be read again; a new file may well land on sound blocks.
            _ if error.raw_os_error() == Some(libc::EIO) => Self::Damaged(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => Self::from_io(&error),
            StorageError::PreviousIo | StorageError::DatabaseClosed => Self::Unavailable(error.to_string()),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::Locked,
            DatabaseError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Turns a panic inside redb into damage.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        Err(Failure::Damaged(format!("the store gave up: {text}")))
    })
}

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// In the order of the clients.
    pub(super) passes: Vec<(ClientKey, Packed)>,
    pub(super) histories: Vec<(ClientKey, History)>,
    pub(super) statics: Vec<(IpNet, Arc<StoredStatic>)>,
    pub(super) offenders: Vec<(IpNet, Offender)>,
    /// Keys of the file under which nothing stands in memory: records of another IPv6 key length, now kept under a
    /// shorter key. To be deleted.
    pub(super) stale: Vec<ClientKey>,
    /// Records that could not be understood. They stay in the file and are left alone.
    pub(super) unreadable: u64,
}

/// The values that a batch writes: `None` deletes.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) passes: Vec<(ClientKey, Option<Packed>)>,
    pub(super) histories: Vec<(ClientKey, Option<History>)>,
    pub(super) statics: Vec<(IpNet, Option<Arc<StoredStatic>>)>,
    pub(super) offenders: Vec<(IpNet, Option<Offender>)>,
}

/// An open file.
pub(super) struct Store {
    database: Option<Database>,
    /// The file was empty or not there.
    pub(super) fresh: bool,
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
        let opened = Self::open_existing_or_new(path);
        if !existed && matches!(opened, Err(Failure::Unavailable(_))) {
            // A half-made file would look damaged the next time.
            let _ = std::fs::remove_file(path);
        }
        opened
    }

    fn open_existing_or_new(path: &Path) -> Result<Self, Failure> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(|error| Failure::from_io(&error))?;
        // Made here because it holds personal data: redb would make it readable to all.
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        let empty = file.and_then(|file| file.metadata()).map_err(|error| Failure::from_io(&error))?.len() == 0;
        guarded(|| {
            // The check reads the whole file, which the load does anyway, and turns damage into an error.
            let database = Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).create(path)?;
            let store = Self { database: Some(database), fresh: empty };
            if empty {
                store.initialise()?;
                File::open(parent).and_then(|parent| parent.sync_all()).map_err(|error| Failure::from_io(&error))?;
            } else {
                store.check_schema()?;
            }
            Ok(store)
        })
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

    fn initialise(&self) -> Result<(), Failure> {
        let transaction = self.transaction()?;
        transaction.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
        transaction.open_table(PASSES)?;
        transaction.open_table(HISTORIES)?;
        transaction.open_table(STATICS)?;
        Ok(transaction.commit()?)
    }

    fn check_schema(&self) -> Result<(), Failure> {
        let transaction = self.database()?.begin_read()?;
        let tables: Vec<_> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
        if tables.is_empty() {
            // The power went between the creation of the file and its first commit.
            drop(transaction);
            return self.initialise();
        }
        if !tables.iter().any(|name| name == META.name()) {
            return Err(Failure::Damaged("it is a database, but not a ledger".to_owned()));
        }
        match transaction.open_table(META)?.get(SCHEMA_KEY)?.map(|version| version.value()) {
            Some(SCHEMA) => Ok(()),
            Some(version) => Err(Failure::Damaged(format!(
                "it has schema version {version}, this daemon knows {SCHEMA}: was it written by a newer one?"
            ))),
            None => Err(Failure::Damaged("it has no schema version".to_owned())),
        }
    }

    /// Reads everything, cutting keys to today's length.
    pub(super) fn load(&self, length: Ipv6KeyLength) -> Result<Loaded, Failure> {
        guarded(|| load(self.database()?, length))
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

    /// Makes the file hold what the batches hold and nothing else, in one durable commit.
    pub(super) fn replace(&self, batches: impl Iterator<Item = Batch>) -> Result<(), Failure> {
        guarded(|| {
            let transaction = self.transaction()?;
            transaction.delete_table(PASSES)?;
            transaction.delete_table(HISTORIES)?;
            transaction.delete_table(STATICS)?;
            transaction.delete_table(OFFENDERS)?;
            for batch in batches {
                write_batch(&transaction, &batch)?;
            }
            // A batch leaves no trace of a table that it has nothing for.
            transaction.open_table(PASSES)?;
            transaction.open_table(HISTORIES)?;
            transaction.open_table(STATICS)?;
            Ok(transaction.commit()?)
        })
    }
}

/// Reads a file that cannot be opened for writing (a full or read-only disk), through a copy in memory: what redb has to
/// repair after an unclean stop it repairs there.
pub(super) fn load_copy(path: &Path, length: Ipv6KeyLength) -> Result<Loaded, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::from_io(&error))?;
    guarded(|| {
        let copy = InMemoryBackend::new();
        copy.set_len(bytes.len() as u64)
            .and_then(|()| copy.write(0, &bytes))
            .map_err(|error| Failure::Unavailable(error.to_string()))?;
        drop(bytes);
        let database =
            Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).create_with_backend(copy)?;
        let mut store = Store { database: Some(database), fresh: false };
        store.check_schema()?;
        let loaded = store.load(length);
        store.database.take();
        loaded
    })
}

fn load(database: &Database, length: Ipv6KeyLength) -> Result<Loaded, Failure> {
    let transaction = database.begin_read()?;
    let mut loaded = Loaded::default();

    for row in transaction.open_table(PASSES)?.iter()? {
        let (key, value) = row?;
        let (Some((client, old)), Some(pass)) = (client_of(key.value(), length), Packed::decode(value.value())) else {
            loaded.unreadable += 1;
            continue;
        };
        loaded.stale.extend(old);
        // The keys come in order, so those that fall together are neighbours.
        match loaded.passes.last_mut() {
            Some((last, joined)) if *last == client => *joined = pass.joined(joined),
            _ => loaded.passes.push((client, pass)),
        }
    }

    for row in transaction.open_table(HISTORIES)?.iter()? {
        let (key, value) = row?;
        match (client_of(key.value(), length), serde_json::from_slice(value.value())) {
            // Of histories that fall together the last one read stays: they are hints, not decisions.
            (Some((client, old)), Ok(history)) => {
                loaded.stale.extend(old);
                loaded.histories.push((client, history));
            }
            _ => loaded.unreadable += 1,
        }
    }

    // The entries of a list differ in nothing but their prefixes, and lie in the file side by side.
    let mut known: HashMap<Box<[u8]>, Arc<StoredStatic>> = HashMap::new();
    for row in transaction.open_table(STATICS)?.iter()? {
        let (key, value) = row?;
        let entry = known.get(value.value()).cloned().or_else(|| {
            let entry = Arc::new(StoredStatic::decode(value.value())?);
            known.insert(value.value().into(), Arc::clone(&entry));
            Some(entry)
        });
        match (key::prefix(key.value()), entry) {
            (Some(prefix), Some(entry)) => loaded.statics.push((prefix, entry)),
            _ => loaded.unreadable += 1,
        }
    }

    match transaction.open_table(OFFENDERS) {
        Ok(table) => {
            for row in table.iter()? {
                let (key, value) = row?;
                match (key::prefix(key.value()), serde_json::from_slice(value.value())) {
                    (Some(network), Ok(offender)) => loaded.offenders.push((network, offender)),
                    _ => loaded.unreadable += 1,
                }
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(loaded)
}

/// The client of a key, and the key itself if the client is kept under another one today.
fn client_of(bytes: &ClientBytes, length: Ipv6KeyLength) -> Option<(ClientKey, Option<ClientKey>)> {
    let address = key::client_address(bytes)?;
    let client = ClientKey::of(address, length);
    // Under the full length a key is its own address, whatever length it was written under.
    let written = Ipv6KeyLength::try_from(128).map_or(client, |whole| ClientKey::of(address, whole));
    Some((client, (written != client).then_some(written)))
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
    Ok(())
}

/// Renames a damaged file so that it can be looked at, and returns its new name.
pub(super) fn set_aside(path: &Path, now: UnixTime) -> io::Result<PathBuf> {
    let stamp = now.to_string().replace(['-', ':'], "");
    for attempt in 0_u32.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{stamp}"));
        if attempt > 0 {
            name.push(format!("-{attempt}"));
        }
        let aside = PathBuf::from(name);
        if !aside.exists() {
            std::fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}
