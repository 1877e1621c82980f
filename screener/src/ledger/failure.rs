//! What can be wrong with the file, and whose fault it is.
//!
//! Holds the kinds of failure and how redb's errors become one. redb promises errors for files it did not write, but says
//! that it may panic on some: both count as damage here. Never decides what is done about it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};
use thiserror::Error;

use super::schema::Schema;

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error("it is in use by another process")]
    Locked,
    /// Its content is not what was written, or not ours.
    #[error("{0}")]
    Damaged(String),
    /// A later version wrote it: nobody here may touch it.
    #[error("a newer screener wrote it (schema {0}, this one knows up to {known}): run that one again, or move the file away", known = Schema::CURRENT.number())]
    Newer(u64),
    /// The system refuses: permissions, a full or read-only disk.
    #[error("{0}")]
    Unavailable(String),
}

impl Failure {
    pub(super) fn from_io(error: &io::Error) -> Self {
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
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        Err(Failure::Damaged(format!("the store gave up: {text}")))
    })
}
