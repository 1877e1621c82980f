//! A copy of the whole ledger while it is in use: as lines from the daemon, and as a file again from them.
//!
//! Holds both ends. The daemon's end only reads memory, a page at a time, so it works whatever the disk does; the file is
//! made by whoever wants it, with the rights that he has. Never touches the file in use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::change::Changes;
use super::failure::Failure;
use super::key::{self, client_address};
use super::pages::{CHUNK, Key, everything, present};
use super::pardons;
use super::pass::Packed;
use super::schema::Schema;
use super::shared::Epochs;
use super::statics::StoredStatic;
use super::store::{Batch, Store, beside};
use super::{Ledger, Shared};
use crate::client::{ClientKey, Ipv6KeyLength};

/// The last line: without it the copy is not a whole one.
const END: &[u8] = b"end";

/// The first line.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Heading {
    schema: u64,
}

/// What a copy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// Passes.
    pub passes: usize,
    /// Clients with a history.
    pub histories: usize,
    /// Static entries made by command.
    pub statics: usize,
    /// How long the file is.
    pub bytes: u64,
}

/// Why there is no copy. Nothing is left of it, and what was there before stays.
#[derive(Debug, Error)]
pub enum CopyError {
    /// The place cannot be written to.
    #[error("{} cannot be written: {reason}", path.display())]
    Unwritable {
        /// The place.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// There is a file.
    #[error("{} is there already: name another file, or overwrite it with --force", .0.display())]
    Exists(PathBuf),
    /// The lines are not what they should be.
    #[error("the copy is not whole: {0}; nothing was written")]
    Broken(String),
}

impl CopyError {
    fn unwritable(path: &Path, reason: &(impl ToString + ?Sized)) -> Self {
        Self::Unwritable { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl Ledger {
    /// Everything as lines, some at a time, for [`write_copy`]. A history is as it is when it is met; the passes are those at
    /// the end, whatever came and went meanwhile.
    pub fn copied(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        let shared: &Shared = &self.shared;
        let mut changes = self.news();
        let heading = serde_json::to_vec(&Heading { schema: Schema::CURRENT.number() }).unwrap_or_default();
        let pages = everything(shared).map(|batch| lines(&batch));
        let rest = std::iter::from_fn(move || meanwhile(shared, &mut changes));
        std::iter::once([&heading[..], b"\n"].concat())
            .chain(pages)
            .chain(rest)
            .chain(std::iter::once([END, b"\n"].concat()))
    }
}

/// What has changed since it was last asked for; `None`: nothing.
fn meanwhile(shared: &Shared, changes: &mut Changes) -> Option<Vec<u8>> {
    let keys: Vec<_> = changes.take(CHUNK).into_iter().map(|change| Key::Pass(change.client)).collect();
    (!keys.is_empty()).then(|| lines(&present(shared, &keys)))
}

/// A record a line: of which kind, under which key, and what it says; without that: it has gone.
fn lines(batch: &Batch) -> Vec<u8> {
    let mut text = Vec::new();
    for (client, pass) in &batch.passes {
        put(&mut text, b'p', &key::client_bytes(*client), pass.as_ref().map(|pass| hex(&pass.encode())));
    }
    for (client, epochs) in &batch.epochs {
        put(&mut text, b'r', &key::client_bytes(*client), epochs.as_ref().map(|epochs| hex(&epochs.encode())));
    }
    for (client, history) in &batch.histories {
        let json = history.as_ref().and_then(|history| serde_json::to_vec(history).ok());
        put(&mut text, b'h', &key::client_bytes(*client), json);
    }
    for (prefix, entry) in &batch.statics {
        put(&mut text, b's', &key::prefix_bytes(*prefix), entry.as_ref().map(|entry| hex(&entry.encode())));
    }
    for (network, offender) in &batch.offenders {
        let json = offender.as_ref().and_then(|offender| serde_json::to_vec(offender).ok());
        put(&mut text, b'o', &key::prefix_bytes(*network), json);
    }
    for (network, at) in &batch.pardons {
        put(&mut text, b'f', &key::prefix_bytes(*network), at.map(|at| hex(&pardons::encode(at))));
    }
    text
}

fn put(text: &mut Vec<u8>, kind: u8, key: &[u8], value: Option<Vec<u8>>) {
    text.push(kind);
    text.push(b' ');
    text.extend(hex(key));
    if let Some(value) = value {
        text.push(b' ');
        text.extend(value);
    }
    text.push(b'\n');
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]).collect()
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Takes a line into a batch; `None`: it is none of ours.
fn take(line: &[u8], batch: &mut Batch) -> Option<()> {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let (kind, key, value) = (words.next()?, unhex(words.next()?)?, words.next());
    let client = || {
        let whole = Ipv6KeyLength::try_from(128).ok()?;
        Some(ClientKey::of(client_address(key.as_slice().try_into().ok()?)?, whole))
    };
    match kind {
        b"p" => {
            let pass = value.map(|value| unhex(value).and_then(|value| Packed::decode(&value)));
            batch.passes.push((client()?, flat(pass)?));
        }
        b"r" => {
            let epochs = value.map(|value| unhex(value).and_then(|value| Epochs::decode(&value)));
            batch.epochs.push((client()?, flat(epochs)?));
        }
        b"h" => {
            let history = value.map(|json| serde_json::from_slice(json).ok());
            batch.histories.push((client()?, flat(history)?));
        }
        b"s" => {
            let entry = value.map(|value| unhex(value).and_then(|value| StoredStatic::decode(&value)).map(Arc::new));
            batch.statics.push((key::prefix(key.as_slice().try_into().ok()?)?, flat(entry)?));
        }
        b"o" => {
            let offender = value.map(|json| serde_json::from_slice(json).ok());
            batch.offenders.push((key::prefix(key.as_slice().try_into().ok()?)?, flat(offender)?));
        }
        b"f" => {
            let at = value.map(|value| unhex(value).and_then(|value| pardons::decode(&value)));
            batch.pardons.push((key::prefix(key.as_slice().try_into().ok()?)?, flat(at)?));
        }
        _ => return None,
    }
    Some(())
}

/// `None` where a value is there and makes no sense.
fn flat<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(None) => None,
        value => Some(value.flatten()),
    }
}

/// Looks whether a copy could be written to a place, before anything is asked for.
///
/// # Errors
/// When the directory is missing, or there is a file and it is not to be replaced.
pub fn may_write_copy(path: &Path, replace: bool) -> Result<(), CopyError> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        let reason = format!("the directory {} does not exist: make it first", parent.display());
        return Err(CopyError::unwritable(path, &reason));
    }
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => Err(CopyError::unwritable(path, "it is a directory: name a file in it")),
        Ok(_) if !replace => Err(CopyError::Exists(path.to_owned())),
        _ => Ok(()),
    }
}

/// Makes a ledger out of the lines of [`Ledger::copied`], beside its place and then in it, and reads it once. `replace`: also
/// where there is a file. Blocks for as long as the lines come.
///
/// # Errors
/// When the lines are not whole or the disk does not take them.
pub fn write_copy(
    path: &Path,
    replace: bool,
    lines: impl Iterator<Item = Result<impl AsRef<[u8]>, String>>,
) -> Result<Copied, CopyError> {
    may_write_copy(path, replace)?;
    let part = beside(path, ".part");
    // Of a copy that was broken off.
    let _ = std::fs::remove_file(&part);
    let mut lines = Lines { lines, broken: None, ended: false };
    let copied = lines.heading().and_then(|()| {
        let store = Store::create(&part, std::iter::from_fn(|| lines.batch()));
        let written = store.and_then(|store| store.load(Ipv6KeyLength::default()));
        match (lines.broken.take(), written) {
            (Some(broken), _) => Err(CopyError::Broken(broken)),
            (None, Err(failure)) => Err(CopyError::unwritable(path, &with_advice(&failure))),
            (None, Ok(loaded)) => Ok(loaded),
        }
    });
    let copied = copied.and_then(|loaded| {
        let bytes = part.metadata().map_err(|error| CopyError::unwritable(path, &error))?.len();
        into_place(&part, path, replace)?;
        let (passes, histories, statics) = (loaded.passes.len(), loaded.histories.len(), loaded.statics.len());
        Ok(Copied { passes, histories, statics, bytes })
    });
    if copied.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    copied
}

fn with_advice(failure: &Failure) -> String {
    let text = failure.to_string();
    if text.contains("No space left") { format!("{text}: make room, or name a file on another disk") } else { text }
}

fn into_place(part: &Path, path: &Path, replace: bool) -> Result<(), CopyError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => CopyError::Exists(path.to_owned()),
        _ => CopyError::unwritable(path, &error),
    };
    if !replace {
        // Unlike a rename this does not replace what has come there meanwhile. Not every file system has it.
        match std::fs::hard_link(part, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
    }
    super::store::put_in_place(part, path).map_err(|failure| CopyError::unwritable(path, &failure))?;
    // Where both were names of one file the rename has left both.
    let _ = std::fs::remove_file(part);
    Ok(())
}

/// The lines, as batches.
struct Lines<I> {
    lines: I,
    broken: Option<String>,
    ended: bool,
}

impl<I: Iterator<Item = Result<L, String>>, L: AsRef<[u8]>> Lines<I> {
    fn heading(&mut self) -> Result<(), CopyError> {
        let own = Schema::CURRENT.number();
        let first = self.lines.next().unwrap_or_else(|| Err("it is empty".to_owned())).map_err(CopyError::Broken)?;
        match serde_json::from_slice(first.as_ref()) {
            Ok(Heading { schema }) if schema == own => Ok(()),
            Ok(Heading { schema }) => {
                let text =
                    format!("the daemon keeps schema {schema}, this command {own}: use the daemon's own executable");
                Err(CopyError::Broken(text))
            }
            Err(error) => Err(CopyError::Broken(error.to_string())),
        }
    }

    /// The next batch; `None` behind the last.
    fn batch(&mut self) -> Option<Result<Batch, Failure>> {
        let mut batch = Batch::default();
        let mut taken = 0;
        while !self.ended && taken < CHUNK {
            let broken = match self.lines.next() {
                Some(Ok(line)) if line.as_ref() == END => {
                    self.ended = true;
                    continue;
                }
                Some(Ok(line)) if take(line.as_ref(), &mut batch).is_some() => {
                    taken += 1;
                    continue;
                }
                Some(Ok(_)) => "a line makes no sense".to_owned(),
                Some(Err(why)) => why,
                None => "the daemon broke off".to_owned(),
            };
            self.broken = Some(broken.clone());
            return Some(Err(Failure::Unavailable(broken)));
        }
        (taken > 0).then_some(Ok(batch))
    }
}
