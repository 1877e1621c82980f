//! Reading the file: everything, once, at the start.
//!
//! Holds what becomes of each row. Never changes the file, and never gives up for a record that makes no sense: it is counted.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use redb::backends::InMemoryBackend;
use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, StorageBackend as _, TableDefinition, TableError,
};

use super::failure::{Failure, guarded};
use super::history::History;
use super::key::{self, ClientBytes, PrefixBytes};
use super::pardons;
use super::pass::Packed;
use super::schema::Schema;
use super::shared::Epochs;
use super::statics::StoredStatic;
use super::store::{CACHE, HISTORIES, OFFENDERS, PARDONS, PASSES, REVOCATIONS, STATICS, schema_of};
use crate::client::{ClientKey, Ipv6KeyLength};
use crate::clock::UnixTime;
use crate::ladder::Offender;

/// What a file held.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// In the order of the clients.
    pub(super) passes: Vec<(ClientKey, Packed)>,
    pub(super) epochs: Vec<(ClientKey, Epochs)>,
    pub(super) histories: Vec<(ClientKey, History)>,
    pub(super) statics: Vec<(IpNet, Arc<StoredStatic>)>,
    pub(super) offenders: Vec<(IpNet, Offender)>,
    pub(super) pardons: Vec<(IpNet, UnixTime)>,
    /// Keys of the file under which nothing stands in memory: records of another IPv6 key length, now kept under a
    /// shorter key. To be deleted.
    pub(super) stale: Vec<ClientKey>,
    /// Records that could not be understood. They stay in the file and are left alone.
    pub(super) unreadable: u64,
}

/// Reads a file that cannot be opened for writing (a full or read-only disk), through a copy in memory: what redb has to
/// repair after an unclean stop it repairs there.
pub(super) fn load_copy(path: &Path, length: Ipv6KeyLength) -> Result<Loaded, Failure> {
    let bytes = fs::read(path).map_err(|error| Failure::from_io(&error))?;
    guarded(|| {
        let copy = InMemoryBackend::new();
        copy.set_len(bytes.len() as u64)
            .and_then(|()| copy.write(0, &bytes))
            .map_err(|error| Failure::Unavailable(error.to_string()))?;
        drop(bytes);
        let database =
            Builder::new().set_cache_size(CACHE).set_check_integrity_on_open(true).create_with_backend(copy)?;
        match schema_of(&database.begin_read()?)? {
            Some(schema) => load(&database, schema, length),
            None => Ok(Loaded::default()),
        }
    })
}

/// Reads everything in a database, tables beside one another.
pub(super) fn load(database: &Database, schema: Schema, length: Ipv6KeyLength) -> Result<Loaded, Failure> {
    std::thread::scope(|scope| {
        // A panic of redb's on a thread of its own is damage too.
        let histories = scope.spawn(|| guarded(|| histories(&database.begin_read()?, length)));
        let mut loaded = passes(&database.begin_read()?, schema, length)?;
        revocations(&database.begin_read()?, length, &mut loaded)?;
        statics(&database.begin_read()?, &mut loaded)?;
        let transaction = database.begin_read()?;
        let offender = |json: &[u8]| serde_json::from_slice(json).ok();
        loaded.offenders = networks(&transaction, OFFENDERS, offender, &mut loaded.unreadable)?;
        loaded.pardons = networks(&transaction, PARDONS, pardons::decode, &mut loaded.unreadable)?;
        let panicked = |_| Err(Failure::Unavailable("reading it was broken off".to_owned()));
        let histories = histories.join().unwrap_or_else(panicked)?;
        loaded.histories = histories.histories;
        loaded.stale.extend(histories.stale);
        loaded.unreadable += histories.unreadable;
        Ok(loaded)
    })
}

fn passes(transaction: &ReadTransaction, schema: Schema, length: Ipv6KeyLength) -> Result<Loaded, Failure> {
    let mut loaded = Loaded::default();
    let table = transaction.open_table(PASSES)?;
    loaded.passes.reserve_exact(table.len()?.try_into().unwrap_or(0));
    for row in table.iter()? {
        let (key, value) = row?;
        let (Some((client, old)), Some(pass)) = (client_of(key.value(), length), schema.pass(value.value())) else {
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
    Ok(loaded)
}

fn revocations(transaction: &ReadTransaction, length: Ipv6KeyLength, loaded: &mut Loaded) -> Result<(), Failure> {
    let Some(table) = table_if_any(transaction, REVOCATIONS)? else { return Ok(()) };
    for row in table.iter()? {
        let (key, value) = row?;
        match (client_of(key.value(), length), Epochs::decode(value.value())) {
            (Some((client, old)), Some(epochs)) => {
                loaded.stale.extend(old);
                loaded.epochs.push((client, epochs));
            }
            _ => loaded.unreadable += 1,
        }
    }
    Ok(())
}

fn histories(transaction: &ReadTransaction, length: Ipv6KeyLength) -> Result<Loaded, Failure> {
    let mut loaded = Loaded::default();
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
    Ok(loaded)
}

fn statics(transaction: &ReadTransaction, loaded: &mut Loaded) -> Result<(), Failure> {
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
    Ok(())
}

/// A table of networks.
fn networks<T>(
    transaction: &ReadTransaction,
    definition: TableDefinition<'_, &'static PrefixBytes, &'static [u8]>,
    decode: impl Fn(&[u8]) -> Option<T>,
    unreadable: &mut u64,
) -> Result<Vec<(IpNet, T)>, Failure> {
    let mut networks = Vec::new();
    let Some(table) = table_if_any(transaction, definition)? else { return Ok(networks) };
    for row in table.iter()? {
        let (key, value) = row?;
        match (key::prefix(key.value()), decode(value.value())) {
            (Some(network), Some(value)) => networks.push((network, value)),
            _ => *unreadable += 1,
        }
    }
    Ok(networks)
}

/// A table that not every file has.
fn table_if_any<K: redb::Key + 'static>(
    transaction: &ReadTransaction,
    definition: TableDefinition<'_, K, &'static [u8]>,
) -> Result<Option<ReadOnlyTable<K, &'static [u8]>>, Failure> {
    match transaction.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The client of a key, and the key itself if the client is kept under another one today.
fn client_of(bytes: &ClientBytes, length: Ipv6KeyLength) -> Option<(ClientKey, Option<ClientKey>)> {
    let address = key::client_address(bytes)?;
    let client = ClientKey::of(address, length);
    // Under the full length a key is its own address, whatever length it was written under.
    let written = Ipv6KeyLength::try_from(128).map_or(client, |whole| ClientKey::of(address, whole));
    Some((client, (written != client).then_some(written)))
}
