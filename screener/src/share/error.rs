//! What goes wrong with a shared store, in words that say what to do.
//!
//! Holds no password and no client's address.

use std::path::PathBuf;

use redis::{ErrorKind, RedisError, ServerErrorKind};
use thiserror::Error;

/// Why nothing is shared at the moment.
#[derive(Debug, Error)]
pub enum Error {
    /// A file of `[shared]` cannot be used.
    #[error("{key}: {} cannot be used: {why}", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It accepts connections and does not answer, or not in time.
    #[error("it does not answer in time")]
    Silent,
    /// Nobody is there.
    #[error("it cannot be reached: {0}")]
    Away(String),
    /// Its certificate is not one that we trust.
    #[error(
        "its certificate is not accepted ({0}): set shared.ca_file to the CA that signed it, and name it as the certificate does"
    )]
    Certificate(String),
    /// It wants to know who we are, or does not believe it.
    #[error(
        "it does not let us in ({0}): set the user in ledger.shared and the password there or in shared.password_file"
    )]
    Login(String),
    /// The user may not do what we do.
    #[error("its user may not do what is needed ({0}): docs/shared-store.md lists the commands")]
    Forbidden(String),
    /// It takes no changes, because it is not the master or its replicas or disk are away.
    #[error("it takes no changes ({0})")]
    ReadOnly(String),
    /// It has no room.
    #[error("it is full ({0}): raise its maxmemory, or give Screener a store of its own")]
    Full(String),
    /// The sentinels do not know the master.
    #[error("the sentinels do not lead to a master: {0}")]
    Sentinels(String),
    /// The hosts at the store do not mean the same by an IPv6 client.
    #[error(
        "the hosts at this store have ledger.ipv6_prefix = {theirs}, this one has {ours}: set the same everywhere, or another \
         shared.prefix here"
    )]
    KeyLength {
        /// Theirs.
        theirs: u8,
        /// Ours.
        ours: u8,
    },
    /// What stands there was not written by us.
    #[error(
        "what stands there under {0} is not Screener's, or of another version of it: set another shared.prefix, or delete that key"
    )]
    Foreign(String),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// Whether somebody has to do something before it can go on.
    pub fn needs_somebody(&self) -> bool {
        match self {
            Self::File { .. }
            | Self::Certificate(_)
            | Self::Login(_)
            | Self::Forbidden(_)
            | Self::KeyLength { .. }
            | Self::Foreign(_) => true,
            Self::Silent | Self::Away(_) | Self::ReadOnly(_) | Self::Full(_) | Self::Sentinels(_) | Self::Other(_) => {
                false
            }
        }
    }
}

impl From<RedisError> for Error {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if error.is_timeout() {
            return Self::Silent;
        }
        if says(&["WRONGPASS", "NOAUTH", "without any password configured", "invalid password"]) {
            return Self::Login(text);
        }
        if says(&["READONLY", "MISCONF", "NOREPLICAS", "MASTERDOWN"]) {
            return Self::ReadOnly(text);
        }
        if says(&["OOM "]) {
            return Self::Full(text);
        }
        if says(&["certificate"]) {
            return Self::Certificate(text);
        }
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Login(text),
            ErrorKind::Server(ServerErrorKind::NoPerm) => Self::Forbidden(text),
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Self::ReadOnly(text),
            ErrorKind::MasterNameNotFoundBySentinel | ErrorKind::EmptySentinelList => Self::Sentinels(text),
            ErrorKind::Io => Self::Away(text),
            _ if says(&["NOPERM"]) => Self::Forbidden(text),
            _ => Self::Other(text),
        }
    }
}
