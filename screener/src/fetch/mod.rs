//! How the list of a feed is got, and how its last good copy is kept.
//!
//! Holds the asking (over HTTP, from a file) and the files of the copies. Never looks into a list: what it says, and whether
//! that is good, is known to `feed/`.

mod copy;
mod file;
mod http;

pub use copy::{Copied, Head};
pub use file::{Looked, Stamp, look};
pub use http::{certificates, get};

use thiserror::Error;

/// The longest list, in bytes: about three million prefixes, as many as a command may bring at once.
pub const MOST_BYTES: u64 = 64 << 20;

/// By what a server knows whether somebody has its list already.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validators {
    /// `ETag`
    #[serde(default)]
    pub etag: Option<String>,
    /// `Last-Modified`
    #[serde(default)]
    pub last_modified: Option<String>,
}

/// What a server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// What is known already.
    Same,
    /// A list.
    List(String, Validators),
}

/// Why there is no list.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FetchError {
    /// Nobody there, or nobody in time: the next try may be better.
    #[error("{0}")]
    Away(String),
    /// Somebody answered, but not with a list. Who is asked again at once may take that ill.
    #[error("{0}")]
    Answered(String),
}

/// Bytes as text. What is no UTF-8 is replaced, so that a complaint can name the line.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn too_long() -> String {
    format!("it is longer than {} MiB: that is no list", MOST_BYTES >> 20)
}
